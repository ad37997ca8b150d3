# SPDX-License-Identifier: Apache-2.0
"""Which tokens training hides: one level at a random rate, all levels above it (Fig. 4).

Knows nothing of the network. The decode schedule lives here too, since it is the same cosine.
"""

import jax
import jax.numpy as jnp

from stemgen_jax.config import MaskingConfig
from stemgen_jax.types import Array, Bool, Float, Int, Key

_SHORTEST = 0.1  # of the frames that a suffix or a stretch may be
_BEAT_FRAMES = (8, 32)  # the shortest and the longest beat of a variation


def draw_mask_rate(key: Key, batch: int, masking: MaskingConfig) -> Float[Array, " B"]:
  """Returns the mask rate of each example: r = cos(pi/2 u), or r = u (`uniform`), u ~ U(0, 1).

  With probability `masking.full_prob` r = 1: all that is to be written is hidden, as where decoding
  begins.

  Source: SoundStorm (arXiv:2305.09636), which StemGen's section 2.1 follows, for the cosine.
  `full_prob` is ours: what is not yet written can be known from the context alone.
  """
  u_key, full_key = jax.random.split(key)
  u = jax.random.uniform(u_key, (batch,))
  if masking.schedule == "cosine":
    rate = jnp.cos(jnp.pi / 2 * u)
  elif masking.schedule == "uniform":
    rate = u
  else:
    raise ValueError(f"schedule must be 'cosine' or 'uniform'; got {masking.schedule!r}.")
  return jnp.where(jax.random.uniform(full_key, (batch,)) < masking.full_prob, 1.0, rate)


def draw_writable(key: Key, batch: int, frames: int, masking: MaskingConfig) -> Bool[Array, "B T"]:
  """Returns which frames of each example are still to be written: all, or only some stretches.

  With probability `masking.span_prob` the others are known, as sampling has it, in three ways
  equally often: a suffix (a window of longer music, a continuation), one stretch (the seam of a
  loop, an inpainting), or the frames of random beats (a variation).

  Source: ours; StemGen's windows are not stated.
  """
  keys = jax.random.split(key, 4)
  length, start, width, share, offset = jax.random.uniform(keys[0], (5, batch, 1))
  t = jnp.arange(frames)[None]
  length = jnp.ceil((_SHORTEST + (1 - _SHORTEST) * length) * frames)
  suffix = t >= frames - length
  start = jnp.floor(start * (frames - length + 1))
  stretch = (t >= start) & (t < start + length)
  beat = jnp.floor(_BEAT_FRAMES[0] + width * (_BEAT_FRAMES[1] - _BEAT_FRAMES[0]))
  number = ((t + jnp.floor(offset * beat)) // beat).astype(jnp.int32)
  beats = (
    jnp.take_along_axis(jax.random.uniform(keys[1], (batch, frames + _BEAT_FRAMES[1])), number, 1)
    < share
  )
  kind = jax.random.randint(keys[2], (batch, 1), 0, 3)
  some = jnp.select([kind == 0, kind == 1], [suffix, stretch], beats)
  return some | (jax.random.uniform(keys[3], (batch, 1)) >= masking.span_prob)


def draw_mask(
  key: Key, level: Int[Array, " B"], frames: int, n_levels: int, masking: MaskingConfig
) -> Bool[Array, "B T Q"]:
  """Returns what training hides at level q, the asked one: below it nothing, above it everything.

  At level q it hides exactly max(1, ceil(r n)) of the n frames that are to be written.

  Args:
    key: JAX key.
    level: the asked level q of each example, in [0, Q).
    frames: T.
    n_levels: Q.
    masking: how r and the frames are drawn, see `draw_mask_rate` and `draw_writable`.

  Source: StemGen (PAPER.md) section 2.1, Fig. 4.
  """
  rate_key, place_key, span_key = jax.random.split(key, 3)
  batch = level.shape[0]
  rate = draw_mask_rate(rate_key, batch, masking)
  writable = draw_writable(span_key, batch, frames, masking)
  count = jnp.maximum(1, jnp.ceil(rate * jnp.sum(writable, axis=1)).astype(jnp.int32))
  score = jax.random.uniform(place_key, (batch, frames))
  at_level = lowest(jnp.where(writable, score, 1 + score), count)
  q = jnp.arange(n_levels)[None, None, :]
  asked = level[:, None, None]
  return (q > asked) | ((q == asked) & at_level[:, :, None])


def lowest(score: Float[Array, "B T"], count: Int[Array, " B"]) -> Bool[Array, "B T"]:
  """Returns True at the `count` lowest scores of each row; of equal scores the later goes first.

  So of equal ranks the earlier frame is kept, as the causal bias would have it.
  """
  order = jnp.argsort(score[:, ::-1], axis=-1, stable=True)
  rank = jnp.argsort(order, axis=-1)[:, ::-1]  # the inverse permutation
  return rank < count[:, None]


def count_left_masked(
  iteration: Int[Array, ""], steps: Int[Array, ""], hidden: Int[Array, " B"]
) -> Int[Array, " B"]:
  """Tokens left masked after iteration k of N: floor(cos(pi/2 k/N) T), >= 1 till the last, then 0.

  Args:
    iteration: k in [1, N].
    steps: N.
    hidden: T, the tokens hidden at the level's start (fewer than its frames if some are given).

  Source: SoundStorm (arXiv:2305.09636); StemGen (PAPER.md) section 2.1.1 follows it.
  """
  left = jnp.floor(jnp.cos(jnp.pi / 2 * iteration / steps) * hidden).astype(jnp.int32)
  return jnp.where(iteration >= steps, 0, jnp.clip(left, jnp.minimum(1, hidden), hidden))
