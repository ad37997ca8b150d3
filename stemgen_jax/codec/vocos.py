# SPDX-License-Identifier: Apache-2.0
"""A decoder of the Vocos kind in JAX: from codebook vectors straight to a short-time spectrum.

All layers run at the codec's frame rate; an inverse STFT does the rest. So it costs a fraction of
transposed convolutions, and gives any rate that is a whole number of samples a frame. As in
`seanet`, a length is a traced number beside a longer array: what lies behind it is never read.

Source: Vocos (arXiv:2306.00814) section 3; the sizes of our own are ours.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Complex, Float, Int

from stemgen_jax.codec.decoder import DecoderSpec
from stemgen_jax.types import Params

LEAST_WEIGHT = 1e-3  # of the squared windows over a sample, which the sum is divided by


def fold(weights: dict[str, np.ndarray], spec: DecoderSpec) -> Params:
  """Returns a decoder's tensors as the parameters of `run`, those of all blocks stacked."""
  names = [name.removeprefix("blocks.0.") for name in weights if name.startswith("blocks.0.")]
  once = {name: array for name, array in weights.items() if not name.startswith("blocks.")}
  blocks = {
    name: np.stack([weights[f"blocks.{i}.{name}"] for i in range(spec.n_layers)]) for name in names
  }
  return {**once, "blocks": blocks}


def run(
  params: Params,
  spec: DecoderSpec,
  vectors: Float[Array, "B T d"],
  length: Int[Array, ""] | int,
) -> Float[Array, "B 1 samples"]:
  """Returns audio, of which the first length * hop samples are those of vectors[:, :length].

  A block is x + scale * MLP(LayerNorm(depthwise convolution(x))). Source: ConvNeXt
  (arXiv:2201.03545), without its stages.

  Args:
    params: from `fold`.
    spec: the sizes.
    vectors: the sum over levels of a frame's codebook vectors.
    length: how many of the frames are real.
  """
  real = (jnp.arange(vectors.shape[1]) < length)[None, :, None]
  x = jnp.where(real, vectors, 0)
  x = _conv_in(x, params["conv_in.weight"]) + params["conv_in.bias"][None, None]
  x = _normalise(x, params["norm_in.weight"], params["norm_in.bias"], spec.norm_eps)

  def block(x: Float[Array, "B T D"], layer: Params) -> tuple[Float[Array, "B T D"], None]:
    y = _depthwise(jnp.where(real, x, 0), layer["depthwise.weight"])
    y = y + layer["depthwise.bias"][None, None]
    y = _normalise(y, layer["norm.weight"], layer["norm.bias"], spec.norm_eps)
    y = jax.nn.gelu(_linear(y, layer["up.weight"], layer["up.bias"]), approximate=False)
    y = _linear(y, layer["down.weight"], layer["down.bias"])
    return x + layer["scale"][None, None] * y, None

  x, _ = lax.scan(block, x, params["blocks"])
  x = _normalise(x, params["norm_out.weight"], params["norm_out.bias"], spec.norm_eps)
  log_magnitude, phase = jnp.split(_linear(x, params["out.weight"], params["out.bias"]), 2, axis=-1)
  magnitude = jnp.exp(jnp.minimum(log_magnitude, math.log(spec.max_magnitude)))
  spectrum = lax.complex(magnitude * jnp.cos(phase), magnitude * jnp.sin(phase))
  return invert(jnp.where(real, spectrum, 0), spec, real[0, :, 0])[:, None]


def invert(
  spectrum: Complex[Array, "B T bins"], spec: DecoderSpec, real: Bool[Array, " T"]
) -> Float[Array, "B samples"]:
  """Returns the inverse STFT, T hops long: y = sum_t w x_t / sum_t w^2, over the real frames t.

  Frame t's window w, a periodic Hann, is centred on the samples t * hop to (t + 1) * hop.
  """
  window = jnp.asarray(np.hanning(spec.n_fft + 1)[:-1], jnp.float32)
  frames = jnp.fft.irfft(spectrum, n=spec.n_fft) * window[None, None]
  weights = jnp.where(real[:, None], jnp.square(window)[None], 0)
  audio = _overlap(frames, spec) / jnp.maximum(_overlap(weights[None], spec), LEAST_WEIGHT)
  return audio[:, spec.margin_samples :][:, : spectrum.shape[1] * spec.hop_samples]


def _overlap(frames: Float[Array, "B T n"], spec: DecoderSpec) -> Float[Array, "B samples"]:
  """Returns the sum of frames that each begin a hop after the one before."""
  batch, count, _ = frames.shape
  hops = spec.n_fft // spec.hop_samples
  parts = frames.reshape(batch, count, hops, spec.hop_samples)
  total = jnp.zeros((batch, count + hops - 1, spec.hop_samples), frames.dtype)
  for i in range(hops):
    total += jnp.pad(parts[:, :, i], ((0, 0), (i, hops - 1 - i), (0, 0)))
  return total.reshape(batch, -1)


def _conv_in(x: Float[Array, "B T d"], weight: Float[Array, "D d taps"]) -> Float[Array, "B T D"]:
  return lax.conv_general_dilated(x, weight, (1,), "SAME", dimension_numbers=("NHC", "OIH", "NHC"))


def _depthwise(x: Float[Array, "B T D"], weight: Float[Array, "D 1 taps"]) -> Float[Array, "B T D"]:
  """Convolves each channel with its own taps, as a sum of shifts: XLA groups slowly on the CPU."""
  taps, frames = weight.shape[-1], x.shape[1]
  padded = jnp.pad(x, ((0, 0), (taps // 2, taps // 2), (0, 0)))
  return sum(
    (padded[:, i : i + frames] * weight[None, None, :, 0, i] for i in range(1, taps)),
    start=padded[:, :frames] * weight[None, None, :, 0, 0],
  )


def _linear(
  x: Float[Array, "B T _in"], weight: Float[Array, "out _in"], bias: Float[Array, " out"]
) -> Float[Array, "B T out"]:
  return jnp.einsum("bti,oi->bto", x, weight) + bias[None, None]


def _normalise(
  x: Float[Array, "B T D"], weight: Float[Array, " D"], bias: Float[Array, " D"], eps: float
) -> Float[Array, "B T D"]:
  """Applies a layer norm."""
  x = x - x.mean(axis=-1, keepdims=True)
  x = x * lax.rsqrt(jnp.square(x).mean(axis=-1, keepdims=True) + eps)
  return x * weight[None, None] + bias[None, None]
