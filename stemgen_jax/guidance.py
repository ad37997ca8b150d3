# SPDX-License-Identifier: Apache-2.0
"""Multi-source classifier-free guidance: how far each source steers, as one sum over branches.

Each branch g hears some of the sources (`keep[g]`); the guided logits are sum_g w_g l_g, and the
weights add up to 1. Source 0 is the context mix, the others the categorical conditions.
"""

import jax.numpy as jnp
import numpy as np

from stemgen_jax.types import Array, Bool, Float


def branches(n_sources: int, mode: str) -> Bool[np.ndarray, "G K"]:
  """Which sources each branch keeps.

  `independent`: l_0 with none, then l_i with source i alone. `nested`: l_0, l_1, l_12, ...
  `joint`: the one branch that keeps all.
  """
  if mode == "independent":
    return np.concatenate([np.zeros((1, n_sources), bool), np.eye(n_sources, dtype=bool)])
  if mode == "nested":
    return np.tri(n_sources + 1, n_sources, k=-1, dtype=bool)
  if mode == "joint":
    return np.ones((1, n_sources), bool)
  raise ValueError(f"mode must be 'independent', 'nested' or 'joint'; got {mode!r}.")


def branch_weights(scales: Float[Array, " K"], mode: str) -> Float[Array, " G"]:
  """The weight w_g of each branch, for the guidance scale g_i of each source.

  `independent`: l_0 + sum_i g_i (l_i - l_0), so w = [1 - sum g, g_1, g_2, ...].
  `nested`: l_0 + g_1 (l_1 - l_0) + g_2 (l_12 - l_1) + ..., so w = [1 - g_1, g_1 - g_2, ..., g_K].

  Source: StemGen (arXiv:2312.08723), abstract; the form is PAPER.md 7's.
  """
  if mode == "independent":
    return jnp.concatenate([1 - jnp.sum(scales, keepdims=True), scales])
  if mode == "nested":
    return jnp.concatenate([jnp.ones(1), scales]) - jnp.concatenate([scales, jnp.zeros(1)])
  if mode == "joint":
    return jnp.ones(1)
  raise ValueError(f"mode must be 'independent', 'nested' or 'joint'; got {mode!r}.")


def guide(logits: Float[Array, "G B T _"], weights: Float[Array, " G"]) -> Float[Array, "B T _"]:
  """sum_g w_g l_g, of logits, or of the features that a linear head reads."""
  return jnp.einsum("gbtx,g->btx", logits, weights)
