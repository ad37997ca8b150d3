# SPDX-License-Identifier: Apache-2.0
"""How well a stem fits its context, by the model itself: what hearing the context is worth."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from stemgen_jax.losses import token_nll
from stemgen_jax.model import Model
from stemgen_jax.types import Array, Float, Int, Params


def build_score(model: Model, n_codes: int) -> Callable[..., Float[Array, " B"]]:
  """Returns a jitted function that scores finished stems against a context.

  score = mean_t [log p(s_t | context, conditions) - log p(s_t | conditions)], over the tokens s_t
  of level 1, all hidden: the pointwise mutual information of stem and context in nats a token. It
  is the listening gain of this one stem; above 0, the context makes the stem likelier.
  """

  def score(
    params: Params,
    context: Int[Array, "B T Q"],
    stems: Int[Array, "B T Q"],
    conditions: Int[Array, "B C"],
  ) -> Float[Array, " B"]:
    hidden = jnp.full_like(stems, n_codes)
    batch, sources = len(stems), 1 + conditions.shape[1]

    def twice(x):
      return jnp.concatenate([x, x])

    keep = jnp.ones((2 * batch, sources), bool).at[batch:, 0].set(False)
    logits = model.apply(
      params, twice(hidden), twice(context), twice(conditions), keep, jnp.int32(0)
    )
    nll = token_nll(logits, twice(stems[..., 0]))
    heard, deaf = jnp.split(nll.mean(axis=1), 2)
    return deaf - heard

  return jax.jit(score)
