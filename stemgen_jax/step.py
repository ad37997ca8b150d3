# SPDX-License-Identifier: Apache-2.0
"""One training step: hide tokens, drop sources, predict, descend. Pure functions of one state.

Example b of a batch is asked for level b mod Q, so every level gets an equal share.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from stemgen_jax import losses
from stemgen_jax.codebook_init import start_from_codebooks
from stemgen_jax.config import Config
from stemgen_jax.masking import draw_mask
from stemgen_jax.model import Model
from stemgen_jax.optim import build_optimizer, update_average
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
  config: Config, model: Model, codebooks: Float[np.ndarray, "Q V d"] | None = None
) -> TrainState:
  """Returns the state before the first step; depends on config.seed and the codebooks alone."""
  key = jax.random.key(config.seed)
  params = model.init(key)
  if codebooks is not None:
    params = start_from_codebooks(params, jnp.asarray(codebooks), jax.random.fold_in(key, 1))
  opt_state = build_optimizer(config.optim).init(params)
  return TrainState(jnp.int32(0), params, jax.tree.map(jnp.copy, params), opt_state)


def train_step(
  config: Config, model: Model, state: TrainState, batch: dict[str, Array]
) -> tuple[TrainState, dict[str, Array]]:
  """Returns the next state and the step's metrics (see `step_metrics`).

  Args:
    config: the run's settings.
    model: the network.
    state: before the step. Its step number and config.seed alone decide masks and dropout.
    batch: `target`, `context` Int 'B T Q'; `conditions` Int 'B C'.
  """
  key = jax.random.fold_in(jax.random.key(config.seed), state.step)
  mask_key, keep_key, dropout_key = jax.random.split(key, 3)
  level = asked_levels(batch["target"].shape[0], config.model.n_levels)
  frames = batch["target"].shape[1]
  mask = draw_mask(mask_key, level, frames, config.model.n_levels, config.masking.schedule)
  keep = draw_keep(keep_key, batch["conditions"].shape, config)

  def loss_fn(params: Params):
    loss, aux = masked_loss(config, model, params, batch, mask, keep, level, dropout_key)
    return loss, aux

  (loss, metrics), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
  updates, opt_state = build_optimizer(config.optim).update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  average = update_average(state.average, params, config.optim.ema_decay, state.step)
  metrics |= {"loss": loss, "gradient_norm": optax.tree.norm(grads)}
  return TrainState(state.step + 1, params, average, opt_state), metrics


def masked_loss(
  config: Config,
  model: Model,
  params: Params,
  batch: dict[str, Array],
  mask: Bool[Array, "B T Q"],
  keep: Bool[Array, "B K"],
  level: Int[Array, " B"],
  dropout_key: Key | None,
) -> tuple[Float[Array, ""], dict[str, Array]]:
  """Mean negative log-likelihood in nats of the hidden tokens that count, and its parts."""
  target = batch["target"]
  hidden = jnp.where(mask, config.model.n_codes, target)
  head = "strided" if config.masking.loss == "level" else "all"
  logits = model.apply(
    params, hidden, batch["context"], batch["conditions"], keep, head, dropout_key
  )
  weight = losses.loss_weight(mask, level, config.masking.loss)
  if head == "strided":  # only the asked level has logits: B T V
    target, weight = (take_level(x, level)[:, :, None] for x in (target, weight))
    logits = logits[:, :, None]
  nll = losses.token_nll(logits, target)
  hit = (jnp.argmax(logits, axis=-1) == target).astype(jnp.float32)
  return losses.weighted_mean(nll, weight), step_metrics(nll, hit, weight, mask, level)


def step_metrics(
  nll: Float[Array, "B T q"],
  hit: Float[Array, "B T q"],
  weight: Float[Array, "B T q"],
  mask: Bool[Array, "B T Q"],
  level: Int[Array, " B"],
) -> dict[str, Array]:
  """Sums and counts, by asked level (nll) and by mask-rate bin (hits), to be added over steps."""
  n_levels = mask.shape[-1]
  rate = jnp.mean(take_level(mask, level), axis=1)
  rate_bin = jnp.clip(jnp.ceil(rate * RATE_BINS).astype(jnp.int32) - 1, 0, RATE_BINS - 1)
  by_level = jax.nn.one_hot(level, n_levels)
  by_bin = jax.nn.one_hot(rate_bin, RATE_BINS)
  counts = jnp.sum(weight, axis=(1, 2))
  return {
    "level_nll": jnp.sum(nll * weight, axis=(1, 2)) @ by_level,
    "level_count": counts @ by_level,
    "bin_hits": jnp.sum(hit * weight, axis=(1, 2)) @ by_bin,
    "bin_count": counts @ by_bin,
  }


def asked_levels(batch: int, n_levels: int) -> Int[Array, " B"]:
  """b mod Q, as the model's "strided" head has it."""
  return jnp.arange(batch) % n_levels


def draw_keep(key: Key, shape: tuple[int, int], config: Config) -> Bool[Array, "B K"]:
  """True where a source is heard: column 0 the context, then the conditions; each drawn alone."""
  batch, n_conditions = shape
  rates = [config.masking.context_dropout] + [config.masking.condition_dropout] * n_conditions
  return jax.random.uniform(key, (batch, 1 + n_conditions)) >= jnp.array(rates)[None, :]


def take_level(x: Array, level: Int[Array, " B"]) -> Array:
  """x[b, :, level[b]] of an array 'B T Q'."""
  return jnp.take_along_axis(x, level[:, None, None], axis=2)[:, :, 0]
