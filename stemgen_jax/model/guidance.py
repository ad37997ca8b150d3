# SPDX-License-Identifier: Apache-2.0
"""Multi-source classifier-free guidance: how far each source steers, as one sum over branches.

Each branch g hears some of the sources (`keep[g]`); the guided logits are sum_g w_g l_g, and the
weights add up to 1. Source 0 is the context mix, the others the categorical conditions. A source
that is not guided is heard by every branch. A source's scale g_i is the paper's lambda_i.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from stemgen_jax.config import GUIDANCE_MODES
from stemgen_jax.types import Array, Bool, Float


def order_sources(guided: Sequence[bool], mode: str) -> list[int]:
  """Returns the guided sources in the order of their branches.

  `nested` takes the context last: what it adds to the instrument is what should weigh most.
  """
  order = [source for source, is_guided in enumerate(guided) if is_guided]
  return sorted(order, key=lambda source: source == 0) if mode == "nested" else order


def branches(guided: Sequence[bool], mode: str) -> Bool[np.ndarray, "G K"]:
  """Returns which sources each branch keeps; those that are not guided, always.

  `independent`: l_0 with no guided source, then l_i with source i alone. `nested`: l_0, l_1, l_12,
  ..., in the order of `order_sources`. `leave_one_out`: l with all, then l without source i alone.
  `joint` and `distilled`: the one branch that keeps all.
  """
  order = order_sources(guided, mode)
  if mode == "independent":
    kept = [[], *([source] for source in order)]
  elif mode == "nested":
    kept = [order[:n] for n in range(len(order) + 1)]
  elif mode == "leave_one_out":
    kept = [order, *([other for other in order if other != source] for source in order)]
  elif mode in ("joint", "distilled"):
    kept = [order]
  else:
    raise ValueError(f"mode must be among {GUIDANCE_MODES}; got {mode!r}.")
  return np.array([[not g or k in own for k, g in enumerate(guided)] for own in kept], bool)


def branch_weights(
  scales: Float[Array, " K"], guided: Sequence[bool], mode: str
) -> Float[Array, " G"]:
  """Returns the weight w_g of each branch, for the guidance scale g_i of each guided source.

  `independent`: l_0 + sum_i g_i (l_i - l_0), so w = [1 - sum g, g_1, g_2, ...].
  `nested`: l_0 + g_1 (l_1 - l_0) + g_2 (l_12 - l_1) + ..., so w = [1 - g_1, g_1 - g_2, ..., g_K].

  `leave_one_out`: l + sum_i g_i (l - l_without_i), so w = [1 + sum g, -g_1, -g_2, ...]: 0 is no
  guidance, and what the sources say only together is kept.

  Source: StemGen (PAPER.md) section 2.1.2, eq. 3, is `independent`; the others are not its.
  """
  own = scales[np.array(order_sources(guided, mode), int)]
  if mode == "independent":
    return jnp.concatenate([1 - jnp.sum(own, keepdims=True), own])
  if mode == "nested":
    return jnp.concatenate([jnp.ones(1), own]) - jnp.concatenate([own, jnp.zeros(1)])
  if mode == "leave_one_out":
    return jnp.concatenate([1 + jnp.sum(own, keepdims=True), -own])
  if mode in ("joint", "distilled"):
    return jnp.ones(1)
  raise ValueError(f"mode must be among {GUIDANCE_MODES}; got {mode!r}.")


def guide(logits: Float[Array, "G B T _"], weights: Float[Array, " G"]) -> Float[Array, "B T _"]:
  """sum_g w_g l_g, of logits, or of the features that a linear head reads."""
  return jnp.einsum("gbtx,g->btx", logits, weights)
