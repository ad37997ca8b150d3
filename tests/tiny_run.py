# SPDX-License-Identifier: Apache-2.0
"""The config of a small training run as a file, for tests that start a process of its own."""

import os

from stemgen_jax.config import Config, DataConfig, ModelConfig, OptimConfig, SampleConfig


def get_config() -> Config:
  """Returns the config; the dataset is that of conftest's `tiny_dataset`."""
  return Config(
    name="tiny",
    model=ModelConfig(
      n_levels=4,
      n_codes=16,
      dim=32,
      n_layers=2,
      n_heads=2,
      mlp_dim=64,
      sources={"instrument": ("drums", "bass", "keys")},
      dropout=0.1,
    ),
    data=DataConfig(path=os.environ["TINY_DATASET"], crop_frames=20, batch_size=8),
    optim=OptimConfig(steps=60, warmup_steps=2, learning_rate=3e-3),
    sample=SampleConfig(steps=(4, 3, 2, 2)),
    log_every_steps=1,
    eval_batches=0,
    checkpoint_every_steps=7,
  )
