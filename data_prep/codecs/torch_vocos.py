# SPDX-License-Identifier: Apache-2.0
"""A decoder of the Vocos kind in PyTorch: from codebook vectors straight to a short-time spectrum.

The counterpart of stemgen_jax/codec/vocos.py, to train it and to decode beside `encodec`.

Source: Vocos (arXiv:2306.00814) section 3; the sizes of our own are ours.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from stemgen_jax.codec.decoder import DecoderSpec
from stemgen_jax.codec.vocos import LEAST_WEIGHT


class VocosBlock(nn.Module):
  """x + scale * MLP(norm(depthwise convolution(x))).

  Source: ConvNeXt (arXiv:2201.03545), without its stages.
  """

  def __init__(self, spec: DecoderSpec):
    super().__init__()
    pad = spec.kernel_size // 2
    self.depthwise = nn.Conv1d(spec.dim, spec.dim, spec.kernel_size, padding=pad, groups=spec.dim)
    self.norm = nn.LayerNorm(spec.dim, spec.norm_eps)
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

  window: Tensor

  def __init__(self, spec: DecoderSpec):
    super().__init__()
    self.spec = spec
    pad = spec.kernel_size // 2
    self.conv_in = nn.Conv1d(spec.dimension, spec.dim, spec.kernel_size, padding=pad)
    self.norm_in = nn.LayerNorm(spec.dim, spec.norm_eps)
    self.blocks = nn.ModuleList(VocosBlock(spec) for _ in range(spec.n_layers))
    self.norm_out = nn.LayerNorm(spec.dim, spec.norm_eps)
    self.out = nn.Linear(spec.dim, 2 * spec.bins)
    nn.init.zeros_(self.out.bias)
    self.register_buffer("window", torch.hann_window(spec.n_fft), persistent=False)

  def forward(self, vectors: Float[Tensor, "B d T"]) -> Float[Tensor, "B samples"]:
    """Returns audio, T hops long, for the sum over levels of a frame's codebook vectors."""
    x = self.norm_in(self.conv_in(vectors).transpose(1, 2)).transpose(1, 2)
    for block in self.blocks:
      x = block(x)
    log_magnitude, phase = self.out(self.norm_out(x.transpose(1, 2))).float().chunk(2, dim=-1)
    magnitude = torch.exp(log_magnitude.clamp(max=math.log(self.spec.max_magnitude)))
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
    audio = overlap(frames) / weight.clamp(min=LEAST_WEIGHT)
    return audio[:, self.spec.margin_samples :][:, : count * hop]


def build_vocos(spec: DecoderSpec, weights: dict[str, np.ndarray]) -> Vocos:
  """Returns the decoder with a bundle's tensors."""
  model = Vocos(spec)
  model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
  return model
