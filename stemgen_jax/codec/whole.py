# SPDX-License-Identifier: Apache-2.0
"""A piece of audio through the codec at once, compiled: the parameters, `encode` and `decode`."""

import functools

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from stemgen_jax.codec import rvq, seanet, vocos
from stemgen_jax.codec.architecture import CODEBOOK, CodecSpec
from stemgen_jax.codec.bundle import Bundle
from stemgen_jax.codec.decoder import DecoderSpec
from stemgen_jax.codec.folding import fold_side
from stemgen_jax.types import Params


def fold(bundle: Bundle) -> Params:
  """Returns a bundle's weights as the parameters of `encode` and `decode`."""
  spec, weights = bundle.spec, bundle.weights
  own = bundle.decoder
  params = {
    "encoder": fold_side("encoder", weights, spec),
    "codebooks": np.stack([weights[CODEBOOK.format(q)] for q in range(spec.n_levels)]),
    "decoder": vocos.fold(own.weights, own.spec) if own else fold_side("decoder", weights, spec),
  }
  return jax.device_put(params)  # jnp.asarray would compile a copy for every shape


@functools.partial(jax.jit, static_argnames="spec")
def encode(
  params: Params,
  spec: CodecSpec,
  audio: Float[Array, "B channels samples"],
  length: Int[Array, ""] | int,
) -> Int[Array, "B T Q"]:
  """Returns codes, of which the first ceil(length / hop) frames are those of audio[..., :length].

  `length` is traced: one compilation serves every length up to that of the array, exactly.
  """
  return rvq.quantize(latents(params, spec, audio, length), params["codebooks"])


@functools.partial(jax.jit, static_argnames="spec")
def latents(
  params: Params,
  spec: CodecSpec,
  audio: Float[Array, "B channels samples"],
  length: Int[Array, ""] | int,
) -> Float[Array, "B T D"]:
  """Returns what `encode` quantises."""
  return seanet.run("encoder", params["encoder"], spec, audio.transpose(0, 2, 1), length)[0]


@functools.partial(jax.jit, static_argnames=("spec", "decoder"))
def decode(
  params: Params,
  spec: CodecSpec,
  codes: Int[Array, "B T Q"],
  length: Int[Array, ""] | int,
  decoder: DecoderSpec | None = None,
) -> Float[Array, "B channels samples"]:
  """Returns audio, of which the first length * hop samples are those of codes[:, :length].

  Without a `decoder` the codec's own is run.
  """
  quantised = rvq.dequantize(codes, params["codebooks"])
  if decoder is not None:
    return vocos.run(params["decoder"], decoder, quantised, length)
  audio, _ = seanet.run("decoder", params["decoder"], spec, quantised, length)
  return audio.transpose(0, 2, 1)
