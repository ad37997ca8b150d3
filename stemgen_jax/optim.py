# SPDX-License-Identifier: Apache-2.0
"""The optimiser: clipped AdamW with linear warm-up and cosine decay, and averaged weights."""

import re

import jax
import optax

from stemgen_jax.config import OptimConfig
from stemgen_jax.types import Array, Int, Params

_DECAYED = re.compile(r"(qkv|out|gate_up|down|heads|context_in|target_in)$")


def build_schedule(config: OptimConfig) -> optax.Schedule:
  """Learning rate by step: 0 to the peak over the warm-up, then a cosine to its final share."""
  return optax.warmup_cosine_decay_schedule(
    init_value=0.0,
    peak_value=config.learning_rate,
    warmup_steps=config.warmup_steps,
    decay_steps=config.steps,
    end_value=config.learning_rate * config.final_lr_ratio,
  )


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
