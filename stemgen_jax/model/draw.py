# SPDX-License-Identifier: Apache-2.0
"""Drawing a token of each frame from its logits: temperature, nucleus, and the draw itself."""

import jax
import jax.numpy as jnp

from stemgen_jax.types import Array, Float, Int, Key, Scalar

_RUN = 32  # tokens summed together when one is drawn


def sample(
  key: Key, logits: Float[Array, "T V"], temperature: Scalar, top_p: Scalar
) -> tuple[Int[Array, " T"], Float[Array, " T"]]:
  """Returns a token for each frame, and its probability under the untempered softmax.

  Args:
    key: JAX key.
    logits: of every frame.
    temperature: what logits are divided by; 0 takes the likeliest token.
    top_p: probability of the nucleus that tokens are drawn from; 1 keeps every token.

  Source: StemGen (PAPER.md) section 2.1.1 draws from the logits, without either.
  """
  tempered = logits / jnp.maximum(temperature, 1e-6)
  tempered = jax.lax.cond(top_p < 1, lambda x: keep_nucleus(x, top_p), lambda x: x, tempered)
  tokens = jax.lax.cond(
    temperature > 0,
    lambda x: draw_tokens(jax.random.fold_in(key, 0), x),
    lambda x: jnp.argmax(x, axis=-1),
    tempered,
  )
  prob = jnp.take_along_axis(jax.nn.softmax(logits), tokens[:, None], axis=-1)[:, 0]
  return tokens, prob


def draw_tokens(key: Key, logits: Float[Array, "T V"]) -> Int[Array, " T"]:
  """A token for each frame, v with probability p_v: the first with p_0 + ... + p_v > u, u uniform.

  Summed over runs of tokens first, then inside one: V random numbers for a frame, as argmax of
  logits + Gumbel noise needs, would take a tenth of the time of the network.
  """
  weight = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
  weight = jnp.pad(weight, ((0, 0), (0, -logits.shape[1] % _RUN)))
  runs = weight.reshape(len(logits), -1, _RUN)

  def find(weight, u):
    """The first index at which the running sum exceeds u, and what of u lies before it."""
    sums = jnp.cumsum(weight, axis=-1)
    u = jnp.minimum(u, jnp.nextafter(sums[:, -1:], 0.0))  # rounding must not lead past the last
    index = jnp.sum(sums <= u, axis=-1, keepdims=True)
    before = jnp.take_along_axis(jnp.pad(sums, ((0, 0), (1, 0))), index, axis=-1)
    return index, u - before

  totals = jnp.sum(runs, axis=-1)
  u = jax.random.uniform(key, (len(logits), 1)) * jnp.sum(totals, axis=-1, keepdims=True)
  run, rest = find(totals, u)
  place, _ = find(jnp.take_along_axis(runs, run[..., None], axis=1)[:, 0], rest)
  return (run * _RUN + place)[:, 0]


def keep_nucleus(logits: Float[Array, "T V"], top_p: Scalar) -> Float[Array, "T V"]:
  """Drops the tokens outside the smallest set whose probability reaches top_p; ties stay together.

  That set is {v: p_v >= t} with the largest t that reaches it. t is found by bisection over the bit
  patterns of float32, which are ordered as the numbers are: exact, and far cheaper than sorting.
  """
  prob = jax.nn.softmax(logits)

  def as_float(bits: Int[Array, "T 1"]) -> Float[Array, "T 1"]:
    return jax.lax.bitcast_convert_type(bits, jnp.float32)

  def halve(_, bounds):
    low, high = bounds  # the tokens above low reach top_p, those above high do not
    middle = low + (high - low) // 2
    mass = jnp.sum(jnp.where(prob >= as_float(middle), prob, 0), axis=-1, keepdims=True)
    reached = mass >= top_p
    return jnp.where(reached, middle, low), jnp.where(reached, high, middle)

  low = jnp.zeros((len(logits), 1), jnp.int32)
  high = jnp.full_like(low, 2**30)  # the pattern of 2.0, above every probability
  low, _ = jax.lax.fori_loop(0, 30, halve, (low, high))
  return jnp.where(prob >= as_float(low), logits, -jnp.inf)
