# SPDX-License-Identifier: Apache-2.0
"""The optimiser: clipped AdamW with its learning rate by step, and averaged weights."""

import re

import jax
import optax

from stemgen_jax.config import OptimConfig
from stemgen_jax.types import Array, Int, Params

_DECAYED = re.compile(r"(qkv|out|gate_up|down|heads)$")


def build_schedule(config: OptimConfig) -> optax.Schedule:
  """Returns the learning rate by step: a linear warm-up, a hold at the peak, then a decay.

  `cosine` reaches final_lr_ratio of the peak at the end of the decay, and `exponential` passes
  through it there, falling by the same factor every step; both stay on it afterwards.

  Source: StemGen (PAPER.md) section 3 has the exponential; to what share is ours.
  """
  peak, ratio = config.learning_rate, config.final_lr_ratio
  begins = config.warmup_steps + config.hold_steps
  steps = config.decay_steps or config.steps - begins
  if config.decay == "cosine":
    decay = optax.cosine_decay_schedule(peak, steps, alpha=ratio)
  elif config.decay == "exponential":
    decay = optax.exponential_decay(peak, steps, ratio, end_value=peak * ratio)
  else:
    raise ValueError(f"decay must be 'cosine' or 'exponential'; got {config.decay!r}.")
  warm_up = optax.linear_schedule(0.0, peak, config.warmup_steps)
  parts = [warm_up, optax.constant_schedule(peak), decay]
  return optax.join_schedules(parts, [config.warmup_steps, begins])


def build_optimizer(config: OptimConfig) -> optax.GradientTransformation:
  """Clip by global norm, then AdamW; only matrices decay (not norms, codebooks, null vectors)."""
  return optax.chain(
    optax.clip_by_global_norm(config.clip_norm),
    optax.adamw(
      build_schedule(config),
      b1=config.b1,
      b2=config.b2,
      weight_decay=config.weight_decay,
      mask=mark_decayed,
    ),
  )


def updates_done(opt_state: optax.OptState) -> Int[Array, ""]:
  """The number of updates so far: steps less those that were skipped."""
  return optax.tree.get_all_with_path(opt_state, "count")[0][1]


def mark_decayed(params: Params) -> Params:
  """True at each parameter that weight decay acts on."""
  return jax.tree.map_with_path(
    lambda path, _: bool(_DECAYED.search(jax.tree_util.keystr(path, simple=True, separator="/"))),
    params,
  )


def update_average(average: Params, params: Params, decay: float, step: Int[Array, ""]) -> Params:
  """m <- d m + (1 - d) p with d = min(decay, (1 + n) / (10 + n)), so that early steps count less.

  Args:
    average: m, of the structure of `params`.
    params: p, the new parameters.
    decay: the final d.
    step: n, updates done before this one.
  """
  rate = jax.numpy.minimum(decay, (1 + step) / (10 + step))
  return jax.tree.map(lambda m, p: rate * m + (1 - rate) * p, average, params)
