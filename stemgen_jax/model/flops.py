# SPDX-License-Identifier: Apache-2.0
"""The arithmetic that the model needs, by count: what speed is measured against."""

from stemgen_jax.config import ModelConfig


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
