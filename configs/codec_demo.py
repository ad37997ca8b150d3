# SPDX-License-Identifier: Apache-2.0
r"""The demo codec: EnCodec's architecture, small, on rendered chorales and Freedoom's songs.

16 kHz mono, not causal, 4 levels of 1024 codes at 50 Hz (2 kbit/s); reconstruction losses only.
Hardware: one CPU core with bfloat16 (AMX), under two hours. Expected: see the README.md beside the
bundle that ships, in stemgen_jax/codec/demo_bundle. A discriminator that joins at the end is
`--config.train.steps=16500 --config.discriminator.from_step=13000`.

  python -m data_prep.demo --out runs/codec_music/band --songs 120 --seed 0
  python -m data_prep.demo --out runs/codec_music/doom --midi freedoom1.wad freedoom2.wad \
    --seconds 100
  python -m data_prep.train_codec --config configs/codec_demo.py --workdir runs/codec
"""

from data_prep.codec_training.config import CodecConfig, DataConfig, ModelConfig, TrainConfig


def get_config() -> CodecConfig:
  """Returns the run's config."""
  return CodecConfig(
    model=ModelConfig(ratios=(8, 5, 4, 2), causal=False),
    data=DataConfig(roots=("runs/codec_music/band", "runs/codec_music/doom"), stem_gain_db=0.0),
    train=TrainConfig(steps=13_000, quantize_from_step=1000, init_vectors=65_536),
  )
