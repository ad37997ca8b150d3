# SPDX-License-Identifier: Apache-2.0
"""StemGen's `slakh` model: 252M parameters, 20 s windows of 32 kHz EnCodec at 50 Hz.

Reproduces: StemGen (arXiv:2312.08723), trained on Slakh2100 (redux split). Width as in public
            re-implementations; depth and MLP width chosen for "about 250M parameters". 8 heads, not
            their 16: a head 128 wide fills a TPU's matrix unit, one of 64 half of it.
Hardware:   16 chips of TPU v5e or a multiple, 24 windows each, by the compiler's figures in
            README.md; not yet run at this size. For others look there, set --config.mesh.fsdp and
            --config.data.batch_size; --config.optim.accumulate makes up for fewer chips.
Expects:    shards of `python -m data_prep.tokenize --corpus slakh` made with the 32 kHz EnCodec
            (4 levels of 2048 codes; its weights are CC BY-NC 4.0).
Command:    python -m stemgen_jax.train --config configs/slakh.py --workdir DIR
"""

from stemgen_jax.categories import CATEGORIES
from stemgen_jax.config import Config, DataConfig, MeshConfig, ModelConfig


def get_config() -> Config:
  """Returns the paper-size settings: spelled out, and how 16 chips share them."""
  return Config(
    name="slakh",
    model=ModelConfig(
      n_levels=4,
      n_codes=2048,
      dim=1024,
      n_layers=20,
      n_heads=8,
      mlp_dim=2432,
      sources={"instrument": CATEGORIES},
      compute_dtype="bfloat16",
      unroll=20,
      remat="none",
    ),
    data=DataConfig(path="data/slakh", crop_frames=1000, batch_size=384),
    mesh=MeshConfig(data=-1, fsdp=16),
  )
