# SPDX-License-Identifier: Apache-2.0
"""Which tokens training hides: one level at a random rate, all levels above it (Fig. 4).

Knows nothing of the network. The decode schedule lives here too, since it is the same cosine.
"""

import jax
import jax.numpy as jnp

from stemgen_jax.types import Array, Bool, Float, Int, Key


def draw_mask_rate(
  key: Key, batch: int, schedule: str, full_prob: float = 0.0
) -> Float[Array, " B"]:
  """Mask rate r = cos(pi/2 u) (`cosine`) or r = u (`uniform`), u ~ U(0, 1), one an example.

  With probability `full_prob` r = 1: the whole level is hidden, as where decoding begins.

  Source: PAPER.md 5; the cosine is MaskGIT's. StemGen's own schedule is not readable. `full_prob`
  is ours: what is not yet written can be known from the context alone.
  """
  u_key, full_key = jax.random.split(key)
  u = jax.random.uniform(u_key, (batch,))
  if schedule == "cosine":
    rate = jnp.cos(jnp.pi / 2 * u)
  elif schedule == "uniform":
    rate = u
  else:
    raise ValueError(f"schedule must be 'cosine' or 'uniform'; got {schedule!r}.")
  return jnp.where(jax.random.uniform(full_key, (batch,)) < full_prob, 1.0, rate)


def draw_mask(
  key: Key,
  level: Int[Array, " B"],
  frames: int,
  n_levels: int,
  schedule: str,
  full_prob: float = 0.0,
) -> Bool[Array, "B T Q"]:
  """Hides level q at a random rate: below q nothing, at q exactly max(1, ceil(r T)), above q all.

  Args:
    key: JAX key.
    level: the asked level q of each example, in [0, Q).
    frames: T.
    n_levels: Q.
    schedule: of the mask rate r, see `draw_mask_rate`.
    full_prob: how often r = 1.

  Source: StemGen (arXiv:2312.08723) Fig. 4.
  """
  rate_key, place_key = jax.random.split(key)
  batch = level.shape[0]
  rate = draw_mask_rate(rate_key, batch, schedule, full_prob)
  count = jnp.maximum(1, jnp.ceil(rate * frames).astype(jnp.int32))
  at_level = lowest(jax.random.uniform(place_key, (batch, frames)), count)
  q = jnp.arange(n_levels)[None, None, :]
  asked = level[:, None, None]
  return (q > asked) | ((q == asked) & at_level[:, :, None])


def lowest(score: Float[Array, "B T"], count: Int[Array, " B"]) -> Bool[Array, "B T"]:
  """True at the `count` lowest scores of each row; of equal scores the earlier goes first."""
  order = jnp.argsort(score, axis=-1, stable=True)
  rank = jnp.argsort(order, axis=-1)  # the inverse permutation
  return rank < count[:, None]


def count_left_masked(
  iteration: Int[Array, ""], steps: Int[Array, ""], hidden: Int[Array, " B"]
) -> Int[Array, " B"]:
  """Tokens left masked after iteration k of N: floor(cos(pi/2 k/N) T), >= 1 till the last, then 0.

  Args:
    iteration: k in [1, N].
    steps: N.
    hidden: T, the tokens hidden at the level's start (fewer than its frames if some are given).

  Source: PAPER.md 6.
  """
  left = jnp.floor(jnp.cos(jnp.pi / 2 * iteration / steps) * hidden).astype(jnp.int32)
  return jnp.where(iteration >= steps, 0, jnp.clip(left, jnp.minimum(1, hidden), hidden))
