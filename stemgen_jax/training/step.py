# SPDX-License-Identifier: Apache-2.0
"""One training step: hide tokens, drop sources, predict, descend. Pure functions of one state.

Example b of a batch is asked for level `asked_levels(config)[b mod P]`: with `masking.levels` left
empty, b mod Q, so that every level gets an equal share.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.stages import Wrapped

from stemgen_jax.config import Config
from stemgen_jax.model import guidance, losses
from stemgen_jax.model.masking import draw_mask
from stemgen_jax.model.network import Model
from stemgen_jax.model.sharding import compiler_options, everywhere
from stemgen_jax.training.codebook_init import start_from_codebooks
from stemgen_jax.training.optim import build_optimizer, build_schedule, update_average, updates_done
from stemgen_jax.types import Array, Bool, Float, Int, Key, Params

RATE_BINS = 5  # masked accuracy is reported by mask rate: (0, 0.2], ..., (0.8, 1]


@struct.dataclass
class TrainState:
  """What a step changes. Leaves are arrays, or stand-ins for them: shapes, shardings."""

  step: Any  # Int[Array, ""], updates done
  params: Params
  average: Params  # exponential moving average of params, used to sample
  opt_state: optax.OptState


def init_state(
  config: Config,
  model: Model,
  codebooks: Float[np.ndarray, "Q V d"] | None = None,
  params: Params | None = None,
) -> TrainState:
  """Returns the state before the first step.

  Its parameters are `params`, or drawn by config.seed, the token embeddings from `codebooks`.
  """
  key = jax.random.key(config.seed)
  params = model.init(key) if params is None else params
  if codebooks is not None:
    params = start_from_codebooks(params, jnp.asarray(codebooks), jax.random.fold_in(key, 1))
  opt_state = build_optimizer(config.optim).init(params)
  return TrainState(jnp.int32(0), params, jax.tree.map(jnp.copy, params), opt_state)


def jit_train_step(
  config: Config, model: Model, shardings: TrainState, step: Callable | None = None
) -> Wrapped:
  """Returns a step, `train_step`, compiled for the state's mesh.

  It gives its state's memory to the next state.
  """
  mesh = shardings.step.mesh
  return jax.jit(
    functools.partial(step or train_step, config, model),
    donate_argnums=0,
    out_shardings=(shardings, everywhere(mesh)),
    compiler_options=compiler_options(mesh),
  )


def train_step(
  config: Config, model: Model, state: TrainState, batch: dict[str, Array]
) -> tuple[TrainState, dict[str, Array]]:
  """Returns the next state and the step's metrics (see `step_metrics`).

  A step whose loss or gradient is not finite changes nothing but the step number, and counts as
  `skipped`. The gradient is that of the whole batch, in however many parts it is computed.

  Args:
    config: the run's settings.
    model: the network.
    state: before the step. Its step number and config.seed alone decide masks and dropout.
    batch: `target`, `context` Int 'B T Q'; `conditions` Int 'B C'.
  """
  key = jax.random.fold_in(jax.random.key(config.seed), state.step)
  mask_key, keep_key, dropout_key = jax.random.split(key, 3)
  n_levels, n_parts = config.model.n_levels, config.optim.accumulate
  asked = asked_levels(config)
  level = spread_levels(asked, batch["target"].shape[0])
  mask = draw_mask(mask_key, level, batch["target"].shape[1], n_levels, config.masking)
  keep = draw_keep(keep_key, batch["conditions"].shape, config)
  count = jnp.sum(losses.loss_weight(mask, level, config.masking.loss))

  def gradient(index, batch, mask, keep):
    def loss_fn(params: Params):
      drop_key = jax.random.fold_in(dropout_key, index)
      return masked_loss(config, model, params, batch, mask, keep, drop_key, count)

    (loss, metrics), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    return grads, metrics | {"loss": loss}

  if n_parts == 1:
    grads, metrics = gradient(0, batch, mask, keep)
  else:
    parts = (jnp.arange(n_parts), *split_batch((batch, mask, keep), n_parts, len(asked)))
    shapes = jax.eval_shape(gradient, *jax.tree.map(lambda x: x[0], parts))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    (grads, metrics), _ = jax.lax.scan(
      lambda sums, part: (jax.tree.map(jnp.add, sums, gradient(*part)), None), zeros, parts
    )

  return descend(config, state, grads, metrics)


def descend(
  config: Config, state: TrainState, grads: Params, metrics: dict[str, Array]
) -> tuple[TrainState, dict[str, Array]]:
  """Returns the state after one update, and the step's metrics, of which "loss" is one."""
  updates, opt_state = build_optimizer(config.optim).update(grads, state.opt_state, state.params)
  params = cast(Params, optax.apply_updates(state.params, updates))
  average = update_average(state.average, params, config.optim.ema_decay, state.step)
  norm = optax.tree.norm(grads)
  finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm)
  after = TrainState(state.step, params, average, opt_state)
  after = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, state)
  found: dict[str, Any] = {
    "gradient_norm": norm,
    "learning_rate": build_schedule(config.optim)(updates_done(state.opt_state)),
    "skipped": 1 - finite.astype(jnp.float32),
  }
  return after.replace(step=state.step + 1), metrics | found


class Lesson(NamedTuple):
  """What a run learns. `given` are trees of arrays that both functions take last."""

  step: Callable[..., tuple[TrainState, dict[str, Array]]]  # as `train_step`
  measure: Callable[..., dict[str, Array]]  # as `measure_masked`
  given: tuple = ()


def measure_masked(
  config: Config, model: Model, params: Params, batch: dict[str, Array], key: Key
) -> dict[str, Array]:
  """The sums of `step_metrics` for one batch under the mask of a key, with every source heard."""
  rows, frames, n_levels = batch["target"].shape
  level = spread_levels(asked_levels(config), rows)
  mask = draw_mask(key, level, frames, n_levels, config.masking)
  keep = jnp.ones((rows, 1 + batch["conditions"].shape[1]), bool)
  return masked_loss(config, model, params, batch, mask, keep, None)[1]


PREDICT = Lesson(train_step, measure_masked)


def split_batch(tree: Any, n_parts: int, run: int) -> Any:
  """Returns arrays 'B ...' as 'A B/A ...'; every part asks for the levels in the batch's order.

  Runs of `run` rows go to the parts in turn, so that each device keeps to its own rows.
  """

  def split(x: Array) -> Array:
    runs = x.reshape(-1, n_parts, run, *x.shape[1:])
    return jnp.moveaxis(runs, 1, 0).reshape(n_parts, -1, *x.shape[1:])

  return jax.tree.map(split, tree)


def masked_loss(
  config: Config,
  model: Model,
  params: Params,
  batch: dict[str, Array],
  mask: Bool[Array, "B T Q"],
  keep: Bool[Array, "B K"],
  dropout_key: Key | None,
  count: Float[Array, ""] | None = None,
) -> tuple[Float[Array, ""], dict[str, Array]]:
  """Mean negative log-likelihood in nats of the hidden tokens that count, and its parts.

  `count` is the number of tokens to divide by: that of a larger batch, where this is a part of it.
  """
  target = batch["target"]
  asked = asked_levels(config)
  level = spread_levels(asked, target.shape[0])
  hidden = jnp.where(mask, config.model.n_codes, target)
  features = model.apply(params, hidden, batch["context"], batch["conditions"], keep, dropout_key)
  weight = losses.loss_weight(mask, level, config.masking.loss)
  if config.masking.loss == "level":  # only the asked level needs logits
    target, weight = (take_level(x, level)[:, :, None] for x in (target, weight))
    logits = model.read_asked(params, features, asked)[:, :, None]
  else:
    logits = model.read_all(params, features)
  nll = losses.token_nll(logits, target)
  hit = (jnp.argmax(logits, axis=-1) == target).astype(jnp.float32)
  count = jnp.sum(weight) if count is None else count
  loss = jnp.sum(nll * weight) / jnp.maximum(count, 1.0)
  return loss, step_metrics(nll, hit, weight, mask, level)


def step_metrics(
  nll: Float[Array, "B T q"],
  hit: Float[Array, "B T q"],
  weight: Float[Array, "B T q"],
  mask: Bool[Array, "B T Q"],
  level: Int[Array, " B"],
) -> dict[str, Array]:
  """Sums and counts, by asked level and by mask-rate bin (nll, hits), to be added over steps."""
  n_levels = mask.shape[-1]
  rate = jnp.mean(take_level(mask, level), axis=1)
  rate_bin = jnp.clip(jnp.ceil(rate * RATE_BINS).astype(jnp.int32) - 1, 0, RATE_BINS - 1)
  by_level = jax.nn.one_hot(level, n_levels)
  by_bin = jax.nn.one_hot(rate_bin, RATE_BINS)
  counts = jnp.sum(weight, axis=(1, 2))
  return {
    "level_nll": jnp.sum(nll * weight, axis=(1, 2)) @ by_level,
    "level_count": counts @ by_level,
    "bin_nll": jnp.sum(nll * weight, axis=(1, 2)) @ by_bin,
    "bin_hits": jnp.sum(hit * weight, axis=(1, 2)) @ by_bin,
    "bin_count": counts @ by_bin,
  }


def asked_levels(config: Config) -> tuple[int, ...]:
  """The levels that training asks of one example after another, from 0; each once by default."""
  return tuple(q - 1 for q in config.masking.levels) or tuple(range(config.model.n_levels))


def spread_levels(asked: tuple[int, ...], batch: int) -> Int[Array, " B"]:
  """asked[b mod P] of each example b, as the model's head takes it."""
  return jnp.tile(jnp.array(asked), batch // len(asked))


def draw_keep(key: Key, shape: tuple[int, ...], config: Config) -> Bool[Array, "B K"]:
  """Returns True where a source is heard: column 0 the context, then the conditions.

  Each is dropped alone at its rate. With probability `masking.branch_share` an example hears only
  what a branch of the guidance that the model samples with hears, of those that do not hear all.

  Source: StemGen (PAPER.md) section 2.1.2 drops the sources independently; the table of
  branches is ours, so that the branch that guidance subtracts is well learnt.
  """
  batch, n_conditions = shape
  alone_key, share_key, branch_key = jax.random.split(key, 3)
  rates = [config.masking.context_dropout] + [config.masking.condition_dropout] * n_conditions
  keep = jax.random.uniform(alone_key, (batch, 1 + n_conditions)) >= jnp.array(rates)[None, :]
  guided = [name in config.sample.guidance for name in ("context", *config.model.sources)]
  table = guidance.branches(guided, config.sample.guidance_mode)
  table = table[~table.all(axis=1)]
  if not len(table):
    return keep
  branch = jnp.asarray(table)[jax.random.randint(branch_key, (batch,), 0, len(table))]
  chosen = jax.random.uniform(share_key, (batch, 1)) < config.masking.branch_share
  return keep & (branch | ~chosen)


def take_level(x: Array, level: Int[Array, " B"]) -> Array:
  """x[b, :, level[b]] of an array 'B T Q'."""
  return jnp.take_along_axis(x, level[:, None, None], axis=2)[:, :, 0]
