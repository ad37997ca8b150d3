# SPDX-License-Identifier: Apache-2.0
"""The model inside the package, `stemgen_jax/shipped`: a band of six, and the songs of a game.

Reproduces: the method at small size, on the shipped 16 kHz demo codec.
Hardware:   2 CPU cores, about 2 GB, hours; how it was made: stemgen_jax/shipped/README.md.
Command:    python -m stemgen_jax.train --config configs/shipped.py --workdir runs/shipped \
              --config.data.path=runs/tokens/shipped
"""

from stemgen_jax.categories import CATEGORIES
from stemgen_jax.codec.bundle import DEMO_BUNDLE
from stemgen_jax.config import (
  Config,
  DataConfig,
  MaskingConfig,
  ModelConfig,
  OptimConfig,
  SampleConfig,
)


def get_config() -> Config:
  """Returns the settings of its training, and how it samples."""
  return Config(
    name="shipped",
    model=ModelConfig(
      n_levels=4,
      n_codes=1024,
      dim=128,
      n_layers=4,
      n_heads=2,
      mlp_dim=384,
      combiner="project",
      sources={"instrument": CATEGORIES},
      dropout=0.1,
      remat="none",
      unroll=4,
    ),
    data=DataConfig(
      path="runs/tokens/shipped",
      codec=str(DEMO_BUNDLE),
      crop_frames=250,
      batch_size=24,
      silence_prob=0.05,
    ),
    masking=MaskingConfig(
      levels=(1, 2, 1, 3, 1, 4),  # level 1 is where the context is worth most
      full_prob=0.5,  # a level begins with nothing: only the context tells what to write
      context_dropout=0.1,
      condition_dropout=0.1,
    ),
    optim=OptimConfig(
      steps=2400, learning_rate=1e-3, warmup_steps=60, final_lr_ratio=0.05, ema_decay=0.99
    ),
    sample=SampleConfig(
      steps=(6, 3, 2, 2),
      w_conf=0.1,
      w_causal=0.0,  # what each of 28 settings does: see the README
      w_noise=1.0,
      temperature=0.9,
      guidance_mode="nested",
      guidance={"context": 4.0, "instrument": 1.5},
    ),
    log_every_steps=20,
    eval_every_steps=200,
    eval_batches=16,
    checkpoint_every_steps=100,
  )
