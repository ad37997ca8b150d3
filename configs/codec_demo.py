# SPDX-License-Identifier: Apache-2.0
r"""The demo codec: EnCodec's architecture, small, on rendered chorales and Freedoom's songs.

16 kHz mono, not causal, 4 levels of 1024 codes at 50 Hz (2 kbit/s); reconstruction losses first,
then also a discriminator. Hardware: one CPU core with bfloat16 (AMX), about two hours. Expected:
see the README.md beside the bundle that ships, in stemgen_jax/codec/demo_bundle.

  python -m data_prep.demo --out runs/codec_music/band --songs 120 --seed 0
  python -m data_prep.demo --out runs/codec_music/doom --midi freedoom1.wad freedoom2.wad \
    --seconds 100
  python -m data_prep.train_codec --config configs/codec_demo.py --workdir runs/codec
"""

from data_prep.codec_config import (
  CodecConfig,
  DataConfig,
  DiscriminatorConfig,
  ModelConfig,
  TrainConfig,
)


def get_config() -> CodecConfig:
  """Returns the run's config."""
  return CodecConfig(
    model=ModelConfig(ratios=(8, 5, 4, 2), causal=False),
    data=DataConfig(roots=("runs/codec_music/band", "runs/codec_music/doom")),
    train=TrainConfig(steps=13_000, quantize_from_step=1000, init_vectors=65_536, eval_crops=32),
    discriminator=DiscriminatorConfig(from_step=9500),
  )
