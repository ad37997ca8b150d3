# SPDX-License-Identifier: Apache-2.0
"""Our recipe for Slakh on a pod: the paper's model, trained and sampled as our own trials taught.

Reproduces: the model of slakh.py with 8 heads (one 128 wide fills a TPU's matrix unit, one of 64
            half of it); level 1 in half of the examples, often wholly hidden, some as spans;
            sources dropped as nested guidance sums them; "how busy" as a condition; guidance and
            most steps on level 1. Slakh bears about 30k steps of 384 windows: 11.5
            million, 70 epochs of every stem, with dropout and two augmented versions of each song.
Hardware:   16 chips of TPU v5e or a multiple, 24 windows each, by the compiler's figures in
            configs/README.md; not yet run at this size. For others look there, set
            --config.mesh.fsdp and --config.data.batch_size; --config.optim.accumulate makes up for
            fewer chips.
Expects:    shards of `python -m data_prep.tokenize --corpus slakh --augment 2 --mixes 24` made with
            the 32 kHz EnCodec (4 levels of 2048 codes; its weights are CC BY-NC 4.0).
Command:    python -m stemgen_jax.train --config configs/slakh_pod.py --workdir DIR
"""

import dataclasses

from configs.slakh import get_config as get_paper
from stemgen_jax.categories import ACTIVITY, ACTIVITY_VALUES, CATEGORIES
from stemgen_jax.config import Config, MaskingConfig, MeshConfig, OptimConfig, SampleConfig


def get_config() -> Config:
  """Returns the paper's settings with ours in their place, and how 16 chips share them."""
  paper = get_paper()
  return dataclasses.replace(
    paper,
    name="slakh_pod",
    model=dataclasses.replace(
      paper.model,
      n_heads=8,
      sources={"instrument": CATEGORIES, ACTIVITY: ACTIVITY_VALUES},
      dropout=0.1,
      unroll=20,
      remat="none",
    ),
    data=dataclasses.replace(paper.data, batch_size=384, silence_prob=0.05),
    masking=MaskingConfig(
      levels=(1, 2, 1, 3, 1, 4),
      full_prob=0.5,
      span_prob=0.2,
      branch_share=0.2,
      context_dropout=0.0,
      condition_dropout=0.1,
    ),
    optim=OptimConfig(steps=30_000, learning_rate=5e-4, warmup_steps=1000, final_lr_ratio=0.05),
    mesh=MeshConfig(data=-1, fsdp=16),
    sample=SampleConfig(
      steps=(64, 1, 1, 1),
      guidance_mode="nested",
      guidance={"instrument": 2.0, "context": 2.0},
      guided_levels=1,
    ),
  )
