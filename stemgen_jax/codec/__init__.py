# SPDX-License-Identifier: Apache-2.0
"""The codec in JAX: audio to EnCodec codes and back, from a bundle.

`load(path)` gives a `Codec`. Arrays are [B, channels, samples] and [B, T, Q] here and nowhere
inside. PyTorch runs the same bundle in data_prep/torch_codec.py.
"""

import dataclasses
import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from stemgen_jax.codec import rvq, seanet
from stemgen_jax.codec.architecture import CODEBOOK, CodecSpec
from stemgen_jax.codec.bundle import DEMO_BUNDLE, Bundle, load_bundle, save_bundle
from stemgen_jax.errors import UserError
from stemgen_jax.types import Params

__all__ = ["DEMO_BUNDLE", "Bundle", "Codec", "CodecSpec", "load", "load_bundle", "save_bundle"]


def load(path: str | os.PathLike = DEMO_BUNDLE) -> "Codec":
  """Returns the codec of a bundle's folder.

  Raises:
    UserError: if the bundle is missing, damaged or does not fit its description.
  """
  bundle = load_bundle(path)
  return Codec(bundle.spec, bundle.fingerprint, fold(bundle))


def fold(bundle: Bundle) -> Params:
  """Returns a bundle's weights as the parameters of `encode` and `decode`."""
  spec, weights = bundle.spec, bundle.weights
  params = {side: seanet.fold(side, weights, spec) for side in ("encoder", "decoder")}
  params["codebooks"] = np.stack([weights[CODEBOOK.format(q)] for q in range(spec.n_levels)])
  return jax.tree.map(jnp.asarray, params)


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
  latents, _ = seanet.run("encoder", params["encoder"], spec, audio.transpose(0, 2, 1), length)
  return rvq.quantize(latents, params["codebooks"])


@functools.partial(jax.jit, static_argnames="spec")
def decode(
  params: Params, spec: CodecSpec, codes: Int[Array, "B T Q"], length: Int[Array, ""] | int
) -> Float[Array, "B channels samples"]:
  """Returns audio, of which the first length * hop samples are those of codes[:, :length]."""
  latents = rvq.dequantize(codes, params["codebooks"])
  audio, _ = seanet.run("decoder", params["decoder"], spec, latents, length)
  return audio.transpose(0, 2, 1)


@dataclasses.dataclass(frozen=True)
class Codec:
  """A codec ready to run; arrays are padded to a few set lengths, so that it compiles seldom."""

  spec: CodecSpec
  fingerprint: str
  params: Params = dataclasses.field(repr=False)

  def encode(self, audio: Float[Array | np.ndarray, "B channels samples"]) -> Int[Array, "B T Q"]:
    """Returns the int32 codes of audio at the codec's rate, T = ceil(samples / hop).

    Raises:
      UserError: if the audio has another channel count or no samples.
    """
    audio, length = jnp.asarray(audio, jnp.float32), audio.shape[-1]
    if audio.shape[1] != self.spec.channels or not length:
      raise UserError(
        f"audio must have {self.spec.channels} channels and at least one sample for this codec;"
        f" got shape={audio.shape}. Convert it first."
      )
    frames = self.spec.frames(length)
    room = round_up(frames) * self.spec.hop_samples - length
    padded = jnp.pad(audio, ((0, 0), (0, 0), (0, room)))
    return encode(self.params, self.spec, padded, length)[:, :frames]

  def decode(self, codes: Int[Array | np.ndarray, "B T Q"]) -> Float[Array, "B channels samples"]:
    """Returns float32 audio of T * hop samples; codes may hold only the first levels.

    Raises:
      UserError: if there are no frames, too many levels, or codes outside the codebooks.
    """
    codes, spec = np.asarray(codes), self.spec
    _, frames, levels = codes.shape
    if not frames or not 1 <= levels <= spec.n_levels:
      raise UserError(
        f"codes must have frames and 1 to {spec.n_levels} levels for this codec;"
        f" got shape={codes.shape}. Check which codec made them."
      )
    if codes.min() < 0 or codes.max() >= spec.n_codes:
      raise UserError(
        f"codes must be 0 to {spec.n_codes - 1} for this codec; got {codes.min()} to {codes.max()}."
        " Check which codec made them."
      )
    room = round_up(frames) - frames
    padded = jnp.asarray(np.pad(codes.astype(np.int32), ((0, 0), (0, room), (0, 0))))
    return decode(self.params, spec, padded, frames)[..., : frames * spec.hop_samples]


def round_up(frames: int) -> int:
  """Returns the next length that is compiled for: a multiple of 8, at most a quarter longer."""
  step = max(2 ** (frames.bit_length() - 3), 8)
  return -(-frames // step) * step
