# SPDX-License-Identifier: Apache-2.0
"""Tokens of a context mix -> tokens of a stem: the model, guidance and the sampler put together.

A context longer than the training window is written in windows that overlap by half: each keeps
what the one before has written.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from stemgen_jax import guidance
from stemgen_jax.decode import DecodeOptions, decode
from stemgen_jax.model import Model
from stemgen_jax.types import Array, Bool, Float, Int, Keys, Params

Generate = Callable[..., Int[Array, "B T Q"]]


def build_generate(model: Model, n_codes: int, mode: str) -> Generate:
  """Returns a jitted function of the parameters and of what a stem is to be made from.

  It compiles once per shape; every number in `options` and `scales` may change freely.

  Args:
    model: the network.
    n_codes: V.
    mode: of guidance, see `guidance.branches`.
  """

  def generate(
    params: Params,
    context: Int[Array, "B T Q"],
    conditions: Int[Array, "B C"],
    given: Int[Array, "B T Q"],
    known: Bool[Array, "B T Q"],
    keys: Keys,
    options: DecodeOptions,
    scales: Float[Array, " K"],
  ) -> Int[Array, "B T Q"]:
    """See `decode.decode`; `scales` is the guidance of the context, then of each condition."""
    batch = len(context)
    branches = guidance.branches(1 + conditions.shape[1], mode)
    weights = guidance.branch_weights(scales, mode)
    tile = functools.partial(_tile, count=len(branches))
    keep = jnp.repeat(jnp.asarray(branches), batch, axis=0)  # all branches run as one batch

    def network(tokens: Int[Array, "B T Q"], level: Int[Array, ""]) -> Float[Array, "B T V"]:
      logits = model.apply(params, tile(tokens), tile(context), tile(conditions), keep, level)
      return guidance.guide(logits.reshape(len(branches), batch, *logits.shape[1:]), weights)

    return decode(network, given, known, keys, options, n_codes)

  return jax.jit(generate)


def generate_windows(
  generate: Generate,
  params: Params,
  context: Int[np.ndarray, "T Q"],
  conditions: Int[np.ndarray, " C"],
  keys: Keys,
  options: DecodeOptions,
  scales: Float[Array, " K"],
  window_frames: int,
  advance: Callable[[int, int], None] = lambda done, total: None,
) -> Int[np.ndarray, "B T Q"]:
  """Returns one stem a key, as long as the context.

  Args:
    generate: from `build_generate`.
    params: of the model.
    context: codes of the context mix, of any length.
    conditions: one value for each categorical source; -1 where unknown.
    keys: one an example; each window folds in its own number.
    options: see `DecodeOptions`.
    scales: guidance of the context, then of each condition.
    window_frames: the training window: the longest stretch the model sees at once.
    advance: called with (windows done, windows in all) after each window.
  """
  takes, (frames, n_levels) = len(keys), context.shape
  size = min(frames, window_frames)
  stems = np.zeros((takes, frames, n_levels), np.int32)
  written = 0
  starts = plan_windows(frames, size)
  for i, start in enumerate(starts):
    stop = start + size
    known = np.zeros((takes, size, n_levels), bool)
    known[:, : written - start] = True
    tokens = generate(
      params,
      jnp.asarray(np.broadcast_to(context[start:stop], known.shape)),
      jnp.asarray(np.tile(conditions, (takes, 1))),
      jnp.asarray(stems[:, start:stop]),
      jnp.asarray(known),
      jax.vmap(jax.random.fold_in, (0, None))(keys, i),
      options,
      scales,
    )
    stems[:, start:stop] = np.asarray(tokens)
    written = stop
    advance(i + 1, len(starts))
  return stems


def plan_windows(frames: int, size: int) -> list[int]:
  """First frames of windows that cover all frames and overlap by half; the last ends at the end."""
  starts = range(0, max(1, frames - size + 1), max(1, size // 2))
  return sorted({*starts, frames - size})


def take_keys(seed: int, takes: int) -> Keys:
  """One key a take; take i has the same chances whatever the number of takes."""
  return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.arange(takes))


def _tile(x: Array, count: int) -> Array:
  return jnp.tile(x, (count,) + (1,) * (x.ndim - 1))
