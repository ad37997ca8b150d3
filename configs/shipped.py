# SPDX-License-Identifier: Apache-2.0
"""The model inside the package, `stemgen_jax/shipped`: chorales arranged for a band of six.

Reproduces: the method at small size, on the shipped 16 kHz demo codec.
Hardware:   one GPU, minutes, or 2 CPU cores, days; how it was made: stemgen_jax/shipped/README.md.
Command:    python -m stemgen_jax.train --config configs/shipped.py --workdir runs/shipped \
              --config.data.path=runs/tokens/shipped
"""

from stemgen_jax.categories import ACTIVITY, ACTIVITY_VALUES, CATEGORIES
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
      dim=256,
      n_layers=6,
      n_heads=4,
      mlp_dim=704,
      sources={"instrument": CATEGORIES, ACTIVITY: ACTIVITY_VALUES},
      dropout=0.1,
      compute_dtype="auto",
      remat="none",
      unroll=6,
    ),
    data=DataConfig(
      path="runs/tokens/shipped",
      codec=str(DEMO_BUNDLE),
      crop_frames=500,
      batch_size=192,
      silence_prob=0.05,
    ),
    masking=MaskingConfig(
      levels=(1, 1, 2, 1, 1, 3, 1, 1, 4, 1, 1, 1),  # level 1 is where learning goes
      full_prob=0.5,  # a level begins with nothing: only the context tells what to write
      span_prob=0.2,
      branch_share=0.2,
      context_dropout=0.0,
      condition_dropout=0.1,
    ),
    optim=OptimConfig(
      steps=6500, learning_rate=1e-3, warmup_steps=200, final_lr_ratio=0.02, ema_decay=0.998
    ),
    sample=SampleConfig(
      steps=(12, 1, 1, 1),  # 24 are farther from real stems (configs/README.md)
      fine_temperature=0.5,  # fewer stems without pitch
      w_s=1.0,  # ten times the paper's: half the distance to real stems (configs/README.md)
      guidance_mode="nested",
      guidance={"instrument": 2.0, "context": 2.0},  # more writes haze (configs/README.md)
      guided_levels=1,
      assumed={ACTIVITY: "full"},  # left open, level 1 often falls silent and stays so
    ),
    log_every_steps=50,
    eval_every_steps=1000,
    eval_batches=4,
    checkpoint_every_steps=1000,
  )
