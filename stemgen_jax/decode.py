# SPDX-License-Identifier: Apache-2.0
"""Iterative decoding with causal bias: level by level, N_q iterations each, one `lax.while_loop`.

The network comes in as a function; this file knows the algorithm and no model.

Source: StemGen (arXiv:2312.08723) Fig. 5; PAPER.md 6.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from stemgen_jax.config import SampleConfig
from stemgen_jax.masking import count_left_masked, lowest
from stemgen_jax.types import Array, Bool, Float, Int, Key, Keys, Scalar


@struct.dataclass
class Turn:
  """Iteration k of the N of a level, from 1."""

  k: Int[Array, ""]
  n: Int[Array, ""]


_RUN = 32  # tokens summed together when one is drawn

Memory = Any  # what a network hands from one iteration to the next: a tree of arrays
Network = Callable[
  [Int[Array, "B T Q"], Int[Array, ""], Turn, Memory], tuple[Float[Array, "B T V"], Memory]
]


@struct.dataclass
class DecodeOptions:
  """How to decode. Numbers are traced, so a new value does not recompile; strings are static."""

  steps: Int[Array, " Q"]  # iterations N_q of each level
  w_conf: Scalar
  w_causal: Scalar  # 0 gives plain MaskGIT order
  w_noise: Scalar
  temperature: Scalar  # 0 takes the likeliest token
  top_p: Scalar  # 1 keeps every token
  confidence: str = struct.field(pytree_node=False, default="prob")  # or "log_prob"
  noise: str = struct.field(pytree_node=False, default="uniform")  # or "gumbel"


def options_of(settings: SampleConfig) -> DecodeOptions:
  """Returns the options that settings hold."""
  numbers = ("w_conf", "w_causal", "w_noise", "temperature", "top_p")
  return DecodeOptions(
    steps=jnp.array(settings.steps, jnp.int32),
    **{name: jnp.float32(getattr(settings, name)) for name in numbers},
    confidence=settings.confidence,
    noise=settings.noise,
  )


@struct.dataclass
class Carry:
  """The loop's state: `hidden` is True where a token is still masked."""

  iteration: Int[Array, ""]  # over all levels, from 0
  tokens: Int[Array, "B T Q"]
  hidden: Bool[Array, "B T Q"]
  memory: Memory


def decode(
  network: Network,
  given: Int[Array, "B T Q"],
  known: Bool[Array, "B T Q"],
  keys: Keys,
  options: DecodeOptions,
  n_codes: int,
  memory: Memory = (),
) -> Int[Array, "B T Q"]:
  """Returns tokens in [0, V): `given` where `known`, decoded elsewhere.

  Args:
    network: `network(tokens, level, turn, memory)` gives the (guided) logits of that level, and
      what it wants to remember in the next iteration; hidden tokens are V.
    given: tokens to keep; read only where `known`.
    known: True where a token is given and must never change.
    keys: one JAX key an example ' B', so an example's result does not depend on its neighbours.
    options: see `DecodeOptions`.
    n_codes: V, also the MASK token.
    memory: what the network is handed first.
  """
  starts = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(options.steps)])
  total_hidden = jnp.sum(~known, axis=1)  # B Q

  def iterate(carry: Carry) -> Carry:
    level = jnp.searchsorted(starts, carry.iteration, side="right") - 1
    k, n = carry.iteration - starts[level] + 1, options.steps[level]
    step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, carry.iteration)
    seen = jnp.where(carry.hidden, n_codes, carry.tokens)
    logits, memory = network(seen, level, Turn(k, n), carry.memory)
    sampled, confidence = jax.vmap(_sample, (0, 0, None))(step_keys, logits, options)
    hidden = jnp.take(carry.hidden, level, axis=2)
    tokens = jnp.where(hidden, sampled, jnp.take(carry.tokens, level, axis=2))
    rank = jnp.where(hidden, _rank(step_keys, confidence, k / n, options), jnp.inf)
    left = count_left_masked(k, n, jnp.take(total_hidden, level, axis=1))
    return Carry(
      iteration=carry.iteration + 1,
      tokens=carry.tokens.at[:, :, level].set(tokens),
      hidden=carry.hidden.at[:, :, level].set(hidden & lowest(rank, left)),
      memory=memory,
    )

  tokens = jnp.where(known, given, n_codes).astype(jnp.int32)
  start = Carry(jnp.int32(0), tokens, ~known, memory)
  return jax.lax.while_loop(lambda c: c.iteration < starts[-1], iterate, start).tokens


def _sample(
  key: Key, logits: Float[Array, "T V"], options: DecodeOptions
) -> tuple[Int[Array, " T"], Float[Array, " T"]]:
  """A token for each frame, and its probability under the untempered softmax."""
  tempered = logits / jnp.maximum(options.temperature, 1e-6)
  tempered = jax.lax.cond(
    options.top_p < 1, lambda x: _keep_nucleus(x, options.top_p), lambda x: x, tempered
  )
  tokens = jax.lax.cond(
    options.temperature > 0,
    lambda x: _draw(jax.random.fold_in(key, 0), x),
    lambda x: jnp.argmax(x, axis=-1),
    tempered,
  )
  prob = jnp.take_along_axis(jax.nn.softmax(logits), tokens[:, None], axis=-1)[:, 0]
  return tokens, prob


def _draw(key: Key, logits: Float[Array, "T V"]) -> Int[Array, " T"]:
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


def _keep_nucleus(logits: Float[Array, "T V"], top_p: Scalar) -> Float[Array, "T V"]:
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


def _rank(
  keys: Keys, prob: Float[Array, "B T"], done: Scalar, options: DecodeOptions
) -> Float[Array, "B T"]:
  """rank_t = w_conf p_t + w_causal (1 - t/T) + w_noise u_t; the highest are kept.

  `done` is k/N: Gumbel noise is annealed linearly to 0 with it. `log_prob` ranks by log p_t.
  """
  frames = prob.shape[1]
  noise_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, 1)
  if options.confidence == "prob":
    confidence = prob
  elif options.confidence == "log_prob":
    confidence = jnp.log(jnp.maximum(prob, 1e-20))
  else:
    raise ValueError(f"confidence must be 'prob' or 'log_prob'; got {options.confidence!r}.")
  if options.noise == "uniform":
    noise = jax.vmap(lambda key: jax.random.uniform(key, (frames,)))(noise_keys)
  elif options.noise == "gumbel":
    noise = (1 - done) * jax.vmap(lambda key: jax.random.gumbel(key, (frames,)))(noise_keys)
  else:
    raise ValueError(f"noise must be 'uniform' or 'gumbel'; got {options.noise!r}.")
  earliness = 1 - jnp.arange(frames)[None, :] / frames
  return options.w_conf * confidence + options.w_causal * earliness + options.w_noise * noise
