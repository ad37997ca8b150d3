# SPDX-License-Identifier: Apache-2.0
"""What `make demo` trains: the shipped model, some minutes more, on songs rendered on the spot.

Reproduces: the method at small size, on rendered chorales and the shipped 16 kHz demo codec.
Hardware:   2 CPU cores, about 2 GB, minutes.
Command:    python -m stemgen_jax.train --config configs/demo.py --workdir runs/demo/model \
              --init_from stemgen_jax/shipped
"""

import dataclasses

from configs.shipped import get_config as get_shipped
from stemgen_jax.config import Config, OptimConfig


def get_config() -> Config:
  """Returns the demo's settings; without --init_from it learns from nothing, which takes longer."""
  shipped = get_shipped()
  return dataclasses.replace(
    shipped,
    name="demo",
    data=dataclasses.replace(shipped.data, path="runs/demo/tokens", batch_size=12),
    optim=OptimConfig(
      steps=20, learning_rate=3e-5, warmup_steps=5, final_lr_ratio=0.05, ema_decay=0.9
    ),
    log_every_steps=5,
    eval_every_steps=10,
    checkpoint_every_steps=10,
  )
