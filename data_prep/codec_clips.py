# SPDX-License-Identifier: Apache-2.0
"""Clips of held-out songs on which codecs are compared: full mixes, and single stems."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_prep.codec_audio import STEMS, find_songs
from data_prep.contexts import make_rng
from stemgen_jax.audio import Samples, convert_audio, read_audio

MIX, STEM = "mix", "stem"
QUIET_RMS = 10 ** (-50 / 20)  # a clip below it says nothing about a codec
_DRAWS = 8  # of a start, before the file counts as silent


@dataclasses.dataclass(frozen=True)
class Clip:
  """A piece of a file, at the file's own rate."""

  kind: str
  song: str  # "root/Track00001"
  file: str  # "mix", "S03"
  start_s: float
  samples: Samples
  rate_hz: int

  def convert(self, rate_hz: int, channels: int, seconds: float) -> Samples:
    """Returns exactly so many seconds, silent past the clip's end."""
    audio = convert_audio(self.samples, self.rate_hz, rate_hz, channels)
    length = round(seconds * rate_hz)
    return np.pad(audio[:, :length], ((0, 0), (0, max(length - audio.shape[1], 0))))


def draw_clips(
  roots: list[str], split: str, seconds: float, per_song: int, max_songs: int, seed: int
) -> list[Clip]:
  """Returns clips of every song: `per_song` of its mix and of as many stems, where they sound.

  The choice depends on the seed, the root's name and the song's, not on what else is there.

  Args:
    roots: folders that hold SPLIT/Track*/{mix.flac, stems/*.flac}.
    split: as "test".
    seconds: of a clip.
    per_song: clips of each kind.
    max_songs: of each root, evenly spread; 0 for all.
    seed: of the choice.

  Raises:
    UserError: if a root holds no songs, or a file is missing or damaged.
  """
  clips = []
  for root in roots:
    songs = find_songs([root], split)
    if max_songs and len(songs) > max_songs:
      songs = [songs[i] for i in np.linspace(0, len(songs) - 1, max_songs).round().astype(int)]
    for folder in songs:
      clips += _draw_song(folder, f"{Path(root).name}/{folder.name}", seconds, per_song, seed)
  return clips


def _draw_song(folder: Path, song: str, seconds: float, per_song: int, seed: int) -> Iterator[Clip]:
  for kind in (MIX, STEM):
    rng = make_rng(seed, f"{song}/{kind}", 0)
    paths = [folder / "mix.flac"] * per_song
    if kind == STEM:
      stems = sorted(folder.glob(STEMS))
      paths = [stems[i] for i in rng.permutation(len(stems))]
    found = 0
    for path in paths:
      if found < per_song and (clip := _draw(rng, kind, song, path, seconds)):
        found += 1
        yield clip


def _draw(
  rng: np.random.Generator, kind: str, song: str, path: Path, seconds: float
) -> Clip | None:
  samples, rate_hz = read_audio(path)
  length = round(seconds * rate_hz)
  for _ in range(_DRAWS):
    start = int(rng.integers(max(samples.shape[1] - length, 0) + 1))
    piece = samples[:, start : start + length]
    if np.sqrt(np.square(piece).mean()) > QUIET_RMS:
      return Clip(kind, song, path.stem, start / rate_hz, piece.copy(), rate_hz)
  return None
