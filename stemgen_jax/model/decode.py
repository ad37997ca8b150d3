# SPDX-License-Identifier: Apache-2.0
"""Iterative decoding with causal bias: level by level, N_q iterations each, one `lax.while_loop`.

The network comes in as a function; this file knows the algorithm and no model.

Source: StemGen (PAPER.md) section 2.1.1, eq. 1, Fig. 5.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from stemgen_jax.config import SampleConfig
from stemgen_jax.model.draw import sample
from stemgen_jax.model.masking import count_left_masked, lowest
from stemgen_jax.types import Array, Bool, Float, Int, Keys, Scalar

Network = Callable[[Int[Array, "B T Q"], Int[Array, ""]], Float[Array, "B T V"]]


@struct.dataclass
class DecodeOptions:
  """How to decode. Numbers are traced, so a new value does not recompile; strings are static."""

  steps: Int[Array, " Q"]  # iterations N_q of each level
  w_c: Scalar
  w_s: Scalar  # 0 gives plain MaskGIT order
  w_r: Scalar
  temperature: Scalar  # of the first level; 0 takes the likeliest token
  fine_temperature: Scalar  # of the others
  top_p: Scalar  # 1 keeps every token
  confidence: str = struct.field(pytree_node=False, default="prob")  # or "log_prob"
  noise: str = struct.field(pytree_node=False, default="uniform")  # or "gumbel"


def options_of(settings: SampleConfig) -> DecodeOptions:
  """Returns the options that settings hold."""
  numbers = ("w_c", "w_s", "w_r", "temperature", "fine_temperature", "top_p")
  return DecodeOptions(
    steps=jax.device_put(np.array(settings.steps, np.int32)),
    **{name: jax.device_put(np.float32(getattr(settings, name))) for name in numbers},
    confidence=settings.confidence,
    noise=settings.noise,
  )


@struct.dataclass
class Carry:
  """The loop's state: `hidden` is True where a token is still masked."""

  iteration: Int[Array, ""]  # over all levels, from 0
  tokens: Int[Array, "B T Q"]
  hidden: Bool[Array, "B T Q"]


def decode(
  network: Network,
  given: Int[Array, "B T Q"],
  known: Bool[Array, "B T Q"],
  keys: Keys,
  options: DecodeOptions,
  n_codes: int,
) -> Int[Array, "B T Q"]:
  """Returns tokens in [0, V): `given` where `known`, decoded elsewhere.

  Args:
    network: `network(tokens, level)` gives the (guided) logits of that level; hidden tokens are V.
    given: tokens to keep; read only where `known`.
    known: True where a token is given and must never change.
    keys: one JAX key an example ' B', so an example's result does not depend on its neighbours.
    options: see `DecodeOptions`.
    n_codes: V, also the MASK token.

  While a level is written the network sees no finer one, in any frame, given ones included: so it
  was trained (Fig. 4).
  """
  starts = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(options.steps)])
  total_hidden = jnp.sum(~known, axis=1)  # B Q
  q = jnp.arange(given.shape[2])[None, None, :]

  def iterate(carry: Carry) -> Carry:
    level = jnp.searchsorted(starts, carry.iteration, side="right") - 1
    k, n = carry.iteration - starts[level] + 1, options.steps[level]
    step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, carry.iteration)
    logits = network(jnp.where(carry.hidden | (q > level), n_codes, carry.tokens), level)
    temperature = jnp.where(level == 0, options.temperature, options.fine_temperature)
    sampled, confidence = jax.vmap(sample, (0, 0, None, None))(
      step_keys, logits, temperature, options.top_p
    )
    hidden = jnp.take(carry.hidden, level, axis=2)
    tokens = jnp.where(hidden, sampled, jnp.take(carry.tokens, level, axis=2))
    rank = jnp.where(hidden, _rank(step_keys, confidence, k / n, options), jnp.inf)
    left = count_left_masked(k, n, jnp.take(total_hidden, level, axis=1))
    return Carry(
      iteration=carry.iteration + 1,
      tokens=carry.tokens.at[:, :, level].set(tokens),
      hidden=carry.hidden.at[:, :, level].set(hidden & lowest(rank, left)),
    )

  tokens = jnp.where(known, given, n_codes).astype(jnp.int32)
  start = Carry(jnp.int32(0), tokens, ~known)
  return jax.lax.while_loop(lambda c: c.iteration < starts[-1], iterate, start).tokens


def _rank(
  keys: Keys, prob: Float[Array, "B T"], done: Scalar, options: DecodeOptions
) -> Float[Array, "B T"]:
  """rho(x_t) = w_c c(x_t) + w_s (1 - t/T) + w_r X, X ~ U(0, 1); the highest are kept (eq. 1).

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
  return options.w_c * confidence + options.w_s * earliness + options.w_r * noise
