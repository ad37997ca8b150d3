# SPDX-License-Identifier: Apache-2.0
"""A decoder of the Vocos kind in PyTorch: from codebook vectors straight to a short-time spectrum.

All layers run at the codec's frame rate; an inverse STFT does the rest. So it decodes at any rate
that is a whole number of samples a frame, and costs a fraction of transposed convolutions.

Source: Vocos (arXiv:2306.00814) section 3; sizes are ours.
"""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

MOST_LOG = 6.0  # of a magnitude: so that a wild frame cannot overflow


@dataclasses.dataclass(frozen=True, kw_only=True)
class VocosSpec:
  """The sizes of a decoder; `hop_samples` is a frame of the codec at `sample_rate`."""

  sample_rate: int = 32_000
  hop_samples: int = 640
  n_fft: int = 2560
  dimension: int = 128  # of a codebook vector
  dim: int = 256
  mlp_dim: int = 768
  n_layers: int = 8
  kernel_size: int = 7


class VocosBlock(nn.Module):
  """x + scale * MLP(norm(depthwise convolution(x))).

  Source: ConvNeXt (arXiv:2201.03545), without its stages.
  """

  def __init__(self, spec: VocosSpec):
    super().__init__()
    pad = spec.kernel_size // 2
    self.depthwise = nn.Conv1d(spec.dim, spec.dim, spec.kernel_size, padding=pad, groups=spec.dim)
    self.norm = nn.LayerNorm(spec.dim)
    self.up = nn.Linear(spec.dim, spec.mlp_dim)
    self.down = nn.Linear(spec.mlp_dim, spec.dim)
    self.scale = nn.Parameter(torch.full((spec.dim,), 1.0 / spec.n_layers))

  def forward(self, x: Float[Tensor, "B D T"]) -> Float[Tensor, "B D T"]:
    """Applies the block."""
    y = self.norm(self.depthwise(x).transpose(1, 2))
    y = self.down(functional.gelu(self.up(y))) * self.scale
    return x + y.transpose(1, 2)


class Vocos(nn.Module):
  """The decoder."""

  def __init__(self, spec: VocosSpec):
    super().__init__()
    self.spec = spec
    pad = spec.kernel_size // 2
    self.conv_in = nn.Conv1d(spec.dimension, spec.dim, spec.kernel_size, padding=pad)
    self.norm_in = nn.LayerNorm(spec.dim)
    self.blocks = nn.ModuleList(VocosBlock(spec) for _ in range(spec.n_layers))
    self.norm_out = nn.LayerNorm(spec.dim)
    self.out = nn.Linear(spec.dim, spec.n_fft + 2)
    nn.init.zeros_(self.out.bias)
    self.register_buffer("window", torch.hann_window(spec.n_fft), persistent=False)

  def forward(self, vectors: Float[Tensor, "B d T"]) -> Float[Tensor, "B samples"]:
    """Returns audio, T hops long, for the sum over levels of a frame's codebook vectors."""
    x = self.norm_in(self.conv_in(vectors).transpose(1, 2)).transpose(1, 2)
    for block in self.blocks:
      x = block(x)
    log_magnitude, phase = self.out(self.norm_out(x.transpose(1, 2))).float().chunk(2, dim=-1)
    magnitude = torch.exp(log_magnitude.clamp(max=MOST_LOG))
    spectrum = torch.complex(magnitude * torch.cos(phase), magnitude * torch.sin(phase))
    return self._invert(torch.fft.irfft(spectrum, n=self.spec.n_fft) * self.window)

  def _invert(self, frames: Float[Tensor, "B T n"]) -> Float[Tensor, "B samples"]:
    """Adds up windowed frames, and divides by what the windows add up to."""
    size, hop, count = self.spec.n_fft, self.spec.hop_samples, frames.shape[1]
    length = (count - 1) * hop + size

    def overlap(x: Tensor) -> Tensor:
      folded = functional.fold(x.transpose(1, 2), (1, length), (1, size), stride=(1, hop))
      return folded[:, 0, 0]

    weight = overlap(self.window.square().expand(1, count, size))
    audio = overlap(frames) / weight.clamp(min=1e-3)
    start = (size - hop) // 2
    return audio[:, start : start + count * hop]
