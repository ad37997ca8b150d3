# SPDX-License-Identifier: Apache-2.0
"""How likely the model finds a finished stem, level by level, with a context or without one.

From it come two numbers that say whether a context is heard:

  listening score   mean_t [log p(s_t | context, conditions) - log p(s_t | conditions)], s_t the
                    tokens of level 1: the pointwise mutual information of stem and context
  listening gain    the same with another song's context in the place of none, for any level

both in nats a token, and above 0 where the context makes the stem likelier.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from stemgen_jax.model.losses import token_nll
from stemgen_jax.model.network import Model
from stemgen_jax.types import Array, Bool, Float, Int, Params


def build_nll(model: Model, n_codes: int, most: int) -> Callable[..., Float[np.ndarray, " B"]]:
  """Returns a function that gives the mean nats a token of one level of finished stems.

  It takes parameters, context, stems, conditions, the level from 0, and whether the context is
  heard. The level and those above it are hidden, those below are seen. Stems of more than `most`
  frames are taken window by window.
  """

  def nll(
    params: Params,
    context: Int[Array, "B T Q"],
    stems: Int[Array, "B T Q"],
    conditions: Int[Array, "B C"],
    level: Int[Array, ""],
    heard: Bool[Array, ""],
  ) -> Float[Array, " B"]:
    hidden = jnp.arange(stems.shape[-1]) >= level
    seen = jnp.where(hidden[None, None, :], n_codes, stems)
    keep = jnp.ones((len(stems), 1 + conditions.shape[1]), bool).at[:, 0].set(heard)
    features = model.apply(params, seen, context, conditions, keep)
    logits = model.read_level(params, features, level)
    return jnp.mean(token_nll(logits, jnp.take(stems, level, axis=2)), axis=1)

  compiled = jax.jit(nll)

  def over_windows(params, context, stems, conditions, level, heard):
    frames, parts = stems.shape[1], []
    for start in range(0, frames, most):
      at = slice(max(0, min(start, frames - most)), start + most)
      parts.append(
        compiled(params, context[:, at], stems[:, at], conditions, np.int32(level), np.bool_(heard))
      )
    return np.mean(parts, axis=0)

  return over_windows
