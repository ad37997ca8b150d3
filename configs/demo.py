# SPDX-License-Identifier: Apache-2.0
"""The small model of `make demo`: a band of six, 5 s windows, minutes on two CPU cores.

Reproduces: the method at toy size, on rendered chorales and the shipped 16 kHz demo codec.
Hardware:   2 CPU cores, about 2 GB.
Command:    python -m stemgen_jax.train --config configs/demo.py --workdir runs/demo/model
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
  """Returns the demo's settings."""
  return Config(
    name="demo",
    model=ModelConfig(
      n_levels=4,
      n_codes=1024,
      dim=128,
      n_layers=4,
      n_heads=2,
      mlp_dim=384,
      sources={"instrument": CATEGORIES},
      dropout=0.1,
    ),
    data=DataConfig(
      path="runs/demo/tokens",
      codec=str(DEMO_BUNDLE),
      crop_frames=250,
      batch_size=24,
      silence_prob=0.05,
    ),
    masking=MaskingConfig(context_dropout=0.1, condition_dropout=0.1),
    optim=OptimConfig(
      steps=450, learning_rate=1e-3, warmup_steps=40, final_lr_ratio=0.05, ema_decay=0.98
    ),
    sample=SampleConfig(
      # Chosen by a sweep of configs/ablations.jsonl. The more steps, and the more weight on
      # confidence, the more a model this small keeps its surest token, silence.
      steps=(6, 3, 2, 2),
      w_conf=0.1,
      w_causal=3.0,
      w_noise=1.0,
      guidance_mode="nested",
      guidance={"context": 2.0, "instrument": 1.5},
    ),
    log_every_steps=10,
    eval_every_steps=150,
    eval_batches=16,
    checkpoint_every_steps=150,
  )
