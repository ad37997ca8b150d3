# SPDX-License-Identifier: Apache-2.0
"""The demo codec: EnCodec's architecture, small, trained on the rendered demo music.

16 kHz mono, 4 levels of 1024 codes at 25 Hz (1 kbit/s). Reconstruction losses only.
Hardware: one CPU core with bfloat16, about 40 minutes. Expected: see the README.md beside the
bundle that ships, in stemgen_jax/codec/demo_bundle.

  python -m data_prep.demo --out runs/music --songs 60 --seed 0
  python -m data_prep.train_codec --config configs/codec_demo.py --workdir runs/codec
"""

from data_prep.codec_config import CodecConfig


def get_config() -> CodecConfig:
  """Returns the run's config: every default as it is."""
  return CodecConfig()
