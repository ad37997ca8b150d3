# SPDX-License-Identifier: Apache-2.0
"""StemGen's `mingus` model: 48 kHz stereo EnCodec, conditioned on genre and role.

Reproduces: the demo page's `mingus` model in kind: stereo, with a genre (Electronic ...) and a role
            (Melodic, Harmonic, Percussive) for each stem. Its data is not public; the genres here
            are a common list, to be replaced by your corpus's. A codec's levels, stereo or not, are
            just levels: 8 of 1024 codes at 150 Hz (12 kbit/s).
Hardware:   not yet run.
Command:    python -m stemgen_jax.train --config configs/mingus.py --workdir DIR
"""

from stemgen_jax.config import Config, DataConfig, ModelConfig, SampleConfig

GENRES = (
  "blues", "classical", "country", "electronic", "folk", "hip_hop", "jazz", "metal", "pop",
  "reggae", "rnb", "rock",
)  # fmt: skip
ROLES = ("melodic", "harmonic", "percussive")


def get_config() -> Config:
  """Returns the settings: 10 s windows of 1500 frames."""
  return Config(
    name="mingus",
    model=ModelConfig(
      n_levels=8,
      n_codes=1024,
      dim=1024,
      n_layers=20,
      n_heads=16,
      mlp_dim=2432,
      sources={"genre": GENRES, "role": ROLES},
      compute_dtype="bfloat16",
    ),
    data=DataConfig(path="data/mingus", crop_frames=1500, batch_size=32),
    sample=SampleConfig(
      steps=(128, 64, 32, 32, 16, 16, 16, 16),
      guidance={"context": 2.0, "genre": 1.5, "role": 1.5},
      guided_levels=8,
    ),
  )
