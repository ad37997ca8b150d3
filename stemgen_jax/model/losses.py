# SPDX-License-Identifier: Apache-2.0
"""Cross-entropy over hidden tokens, and the numbers reported beside it."""

import jax
import jax.numpy as jnp

from stemgen_jax.types import Array, Bool, Float, Int


def loss_weight(
  mask: Bool[Array, "B T Q"], level: Int[Array, " B"], which: str
) -> Float[Array, "B T Q"]:
  """Weight 1 on the hidden tokens that count: of level q (`level`), or of all (`all_masked`)."""
  if which == "level":
    asked = jnp.arange(mask.shape[-1])[None, None, :] == level[:, None, None]
    return (mask & asked).astype(jnp.float32)
  if which == "all_masked":
    return mask.astype(jnp.float32)
  raise ValueError(f"which must be 'level' or 'all_masked'; got {which!r}.")


def token_nll(
  logits: Float[Array, "*shape V"], codes: Int[Array, "*shape"]
) -> Float[Array, "*shape"]:
  """-log softmax(logits)[code] in nats, computed in float32."""
  logits = logits.astype(jnp.float32)
  # Not by indexing: the gradient of that is a scatter, slow on TPU.
  is_code = jax.nn.one_hot(codes, logits.shape[-1], dtype=bool)
  return jax.nn.logsumexp(logits, axis=-1) - jnp.sum(jnp.where(is_code, logits, 0), axis=-1)
