# SPDX-License-Identifier: Apache-2.0
"""What a decoder of the Vocos kind is: its description, and the name and shape of every tensor.

Such a decoder takes the place of EnCodec's own for the same tokens: encoder and codebooks stay.
Tensor names are those of the PyTorch module in data_prep/codecs/torch_vocos.py. Knows nothing of
files or arrays.
"""

import dataclasses
import math

from stemgen_jax.errors import find_broken


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderSpec:
  """A decoder from codebook vectors to a short-time spectrum, all at the codec's frame rate.

  Attributes:
    sample_rate: of the audio that it gives, in Hz; may be higher than the codec's.
    hop_samples: samples of a frame at that rate.
    n_fft: samples of the inverse STFT's Hann window, a whole number of hops.
    dimension: of a codebook vector.
    dim: width of the network.
    mlp_dim: width inside a block.
    n_layers: blocks.
    kernel_size: frames that a block's convolution sees, odd.
    max_magnitude: of a bin, so that a wild frame cannot overflow.
    norm_eps: what a layer norm adds to the variance.
    licence: of the weights.
    source: who made them.
  """

  sample_rate: int = 32_000
  hop_samples: int = 640
  n_fft: int = 2560
  dimension: int = 128
  dim: int = 256
  mlp_dim: int = 768
  n_layers: int = 8
  kernel_size: int = 7
  max_magnitude: float = 400.0
  norm_eps: float = 1e-5
  licence: str = ""
  source: str = ""

  @property
  def bins(self) -> int:
    """Frequencies of the spectrum."""
    return self.n_fft // 2 + 1

  @property
  def margin_samples(self) -> int:
    """Samples by which a frame's window begins before the frame."""
    return (self.n_fft - self.hop_samples) // 2

  @property
  def look_frames(self) -> int:
    """Frames on either side of a frame that its audio depends on, at most."""
    convolutions = (self.n_layers + 1) * (self.kernel_size // 2)
    return convolutions + math.ceil(self.margin_samples / self.hop_samples)

  def problems(self) -> list[str]:
    """Returns every rule that the spec breaks, one phrase each."""
    sizes = ("sample_rate", "hop_samples", "n_fft", "dimension", "dim", "mlp_dim", "n_layers")
    rules = {name: (getattr(self, name) >= 1, "be at least 1") for name in sizes}
    hops = self.n_fft / max(self.hop_samples, 1)
    rules["n_fft"] = (hops == int(hops) >= 2, "be a whole number of hops, at least 2")
    rules["kernel_size"] = (self.kernel_size % 2 == 1, "be odd")
    for name in ("max_magnitude", "norm_eps"):
      rules[name] = (getattr(self, name) > 0, "be positive")
    return find_broken(
      (kept, f"{name} must {rule}", getattr(self, name)) for name, (kept, rule) in rules.items()
    )


def tensor_shapes(spec: DecoderSpec) -> dict[str, tuple[int, ...]]:
  """Returns the name and shape of every tensor of a decoder."""
  shapes: dict[str, tuple[int, ...]] = {
    "conv_in.weight": (spec.dim, spec.dimension, spec.kernel_size),
    "conv_in.bias": (spec.dim,),
    "norm_in.weight": (spec.dim,),
    "norm_in.bias": (spec.dim,),
    "norm_out.weight": (spec.dim,),
    "norm_out.bias": (spec.dim,),
    "out.weight": (2 * spec.bins, spec.dim),
    "out.bias": (2 * spec.bins,),
  }
  block = {
    "depthwise.weight": (spec.dim, 1, spec.kernel_size),
    "depthwise.bias": (spec.dim,),
    "norm.weight": (spec.dim,),
    "norm.bias": (spec.dim,),
    "up.weight": (spec.mlp_dim, spec.dim),
    "up.bias": (spec.mlp_dim,),
    "down.weight": (spec.dim, spec.mlp_dim),
    "down.bias": (spec.dim,),
    "scale": (spec.dim,),
  }
  for layer in range(spec.n_layers):
    shapes |= {f"blocks.{layer}.{name}": shape for name, shape in block.items()}
  return shapes
