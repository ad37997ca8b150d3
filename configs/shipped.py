# SPDX-License-Identifier: Apache-2.0
"""A larger model on the demo codec: a band of six and the songs of a game; none is shipped yet.

Reproduces: the method at small size, on the shipped 16 kHz demo codec.
Hardware:   2 CPU cores, about 2 GB, hours.
Command:    python -m stemgen_jax.train --config configs/shipped.py --workdir runs/shipped \
              --config.data.path=runs/tokens/shipped
"""

import dataclasses

from configs.demo import get_config as get_demo
from stemgen_jax.config import Config, OptimConfig


def get_config() -> Config:
  """Returns the demo's settings for a wider, deeper model and a longer run."""
  demo = get_demo()
  return dataclasses.replace(
    demo,
    name="shipped",
    model=dataclasses.replace(
      demo.model, dim=192, n_layers=6, n_heads=3, mlp_dim=512, remat="none", unroll=6
    ),
    optim=OptimConfig(
      steps=2400, learning_rate=1e-3, warmup_steps=100, final_lr_ratio=0.05, ema_decay=0.99
    ),
    log_every_steps=20,
    eval_every_steps=200,
    checkpoint_every_steps=200,
  )
