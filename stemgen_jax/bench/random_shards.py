# SPDX-License-Identifier: Apache-2.0
"""Datasets of random codes, as large as one likes: for measuring the pipeline, not for learning."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stemgen_jax.categories import CATEGORIES
from stemgen_jax.data.clips import ABSENT_DB, Clip, Metadata
from stemgen_jax.data.records import write_dataset

STEMS, MIXES = 8, 8
SHARD_SONGS = 100
METADATA = Metadata(  # the paper's size: EnCodec at 32 kHz
  codec_fingerprint="random codes",
  n_levels=4,
  n_codes=2048,
  frame_rate_hz=50.0,
  sample_rate_hz=32_000,
  channels=1,
  sources={"instrument": CATEGORIES},
  level_frames=25,
  clip_s=60.0,
)


def write_random(
  root: Path, songs: int, *, song_s: float = 60.0, stems: int = STEMS, mixes: int = MIXES
) -> Path:
  """Writes a dataset of one split, `train`, and returns its folder.

  A third of the stems rest throughout, so that, as in music, the first stem looked at does not
  always sound.
  """
  shards = [
    _draw_songs(range(first, min(first + SHARD_SONGS, songs)), song_s, stems, mixes)
    for first in range(0, songs, SHARD_SONGS)
  ]
  return write_dataset(root, "random", METADATA, {"train": shards})


def _draw_songs(songs: range, song_s: float, stems: int, mixes: int) -> Iterator[Clip]:
  """Yields one clip after the other, the songs cut as the tokeniser cuts them."""
  rng = np.random.default_rng(songs.start)
  parts = -(-song_s // METADATA.clip_s)
  frames = int(song_s / parts * METADATA.frame_rate_hz)
  shape = (frames, METADATA.n_levels)
  cells = -(-frames // METADATA.level_frames)
  for song in songs:
    for part in range(int(parts)):
      level_db = rng.uniform(-45, -15, (stems, cells))
      level_db[rng.random(stems) < 1 / 3] = -120.0
      level_db[0] = -20.0
      members = rng.random((mixes, stems)) < 0.5
      members[0] = False
      yield Clip(
        song=f"song {song}",
        clip=part,
        start_frame=part * frames,
        stem_codes=rng.integers(0, METADATA.n_codes, (stems, *shape), np.uint16),
        stem_conditions=rng.integers(0, len(CATEGORIES), (stems, 1), np.int32),
        stem_level_db=level_db.astype(np.float16),
        mix_codes=rng.integers(0, METADATA.n_codes, (mixes, *shape), np.uint16),
        mix_gain_db=np.where(members, 0.0, ABSENT_DB).astype(np.float16),
        mix_lufs=np.where(members.any(1), -16.0, ABSENT_DB).astype(np.float16),
      )
