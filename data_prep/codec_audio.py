# SPDX-License-Identifier: Apache-2.0
"""The codec's training music: stems of Slakh-layout songs, in memory at the codec's rate."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int16

from stemgen_jax.audio import convert_audio, read_audio
from stemgen_jax.errors import UserError

Song = Int16[np.ndarray, "S channels samples"]
AUDIBLE = 1e-3  # peak below which a crop counts as silence


def find_songs(root: str, split: str, max_songs: int = 0) -> list[Path]:
  """Returns the song folders `root/split/Track*` that hold stems, in order of name.

  Raises:
    UserError: if there is none.
  """
  folders = sorted(
    {path.parent.parent for path in Path(root, split).glob("Track*/stems/[!.]*.flac")}
  )
  if not folders:
    raise UserError(
      f"data.root must hold songs as SPLIT/Track*/stems/*.flac; got root={root} with none in"
      f" split={split}. Render some: python -m data_prep.demo --out {root} --songs 60 --seed 0."
    )
  return folders[: max_songs or None]


def read_song(folder: Path, rate_hz: int, channels: int) -> Song:
  """Returns the stems of a song as 16-bit samples, the shorter ones padded with silence."""
  stems = []
  for path in sorted(folder.glob("stems/[!.]*.flac")):
    samples = convert_audio(*read_audio(path), rate_hz, channels)
    stems.append(np.round(samples.clip(-1, 1) * 32767).astype(np.int16))
  song = np.zeros((len(stems), channels, max(stem.shape[1] for stem in stems)), np.int16)
  for stem, samples in zip(song, stems):
    stem[:, : samples.shape[1]] = samples
  return song


def draw_crops(
  songs: Iterable[Song], rng: np.random.Generator, count: int, samples: int, gain_db: float = 0.0
) -> Float[np.ndarray, "count channels samples"]:
  """Returns random crops of sums of random stems, from one stem to all of them.

  Args:
    songs: at least one.
    rng: decides everything.
    count: how many crops.
    samples: the length of each; a shorter song is followed by silence.
    gain_db: levels move by up to this much; a crop never exceeds full scale.
  """
  songs = list(songs)
  crops = np.zeros((count, songs[0].shape[1], samples), np.float32)
  for crop in crops:
    for _ in range(4):  # a silent crop is drawn again, but may stay: codecs meet silence too
      song = songs[rng.integers(len(songs))]
      start = rng.integers(max(song.shape[2] - samples, 0) + 1)
      stems = rng.permutation(len(song))[: rng.integers(1, len(song) + 1)]
      mix = song[stems, :, start : start + samples].astype(np.float32).sum(axis=0) / 32767
      crop[:, : mix.shape[1]] = mix
      crop[:, mix.shape[1] :] = 0
      if np.abs(crop).max() > AUDIBLE:
        break
    crop *= 10 ** (rng.uniform(-gain_db, gain_db) / 20)
    crop /= max(np.abs(crop).max(), 1.0)
  return crops
