# SPDX-License-Identifier: Apache-2.0
"""The arithmetic that the model needs, by count: what speed is measured against."""

from stemgen_jax.config import ModelConfig

# What a chip multiplies at most, bfloat16 FLOP a second, by how JAX names it. TPUs: the Cloud TPU
# documentation's page of each version; GPUs: NVIDIA's data sheets, without sparsity.
PEAK_FLOPS = {
  "TPU v4": 275e12,
  "TPU v5 lite": 197e12,
  "TPU v5": 459e12,
  "TPU v6 lite": 918e12,
  "NVIDIA A100": 312e12,
  "NVIDIA H100 PCIe": 756e12,
  "NVIDIA H100": 989e12,
  "NVIDIA H200": 989e12,
  "NVIDIA L4": 121e12,
}


def peak_flops(kind: str) -> float | None:
  """Returns the peak of a device by its kind, the longest name that it begins with, or None."""
  names = [name for name in PEAK_FLOPS if kind.startswith(name)]
  return PEAK_FLOPS[max(names, key=len)] if names else None


def forward_flops(model: ModelConfig, frames: int) -> int:
  """Returns the FLOP of one forward pass over one window of `frames` frames, asked for one level.

  Matrix products of a frame: in each layer attention's four (4 D^2) and SwiGLU's three (3 D F), and
  the one head that is asked (D V), 2 FLOP a weight; scores and values take 4 L T^2 D.
  """
  d, f = model.dim, model.mlp_dim
  weights = model.n_layers * (4 * d**2 + 3 * d * f) + d * model.n_codes
  return 2 * weights * frames + 4 * model.n_layers * frames**2 * d


def train_flops(model: ModelConfig, frames: int) -> int:
  """Returns the FLOP of a training step over one window: backward is twice forward.

  What a program computes over again to save memory does not count.
  """
  return 3 * forward_flops(model, frames)
