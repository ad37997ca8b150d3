# SPDX-License-Identifier: Apache-2.0
"""Clips of held-out songs on which codecs are compared: full mixes, and single stems."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_prep.codec_training.audio import STEMS, find_songs
from data_prep.corpora.category_map import CategoryMap
from data_prep.corpora.slakh import category_of_entry, read_slakh_metadata
from data_prep.tokens.contexts import make_rng
from stemgen_jax.audio.files import Samples, convert_audio, read_audio
from stemgen_jax.errors import UserError

MIX, STEM = "mix", "stem"
LEADS = ("bass", "synth_lead")  # of which one is among the pairs to listen to
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
  instrument: str | None = None  # a stem's category, None if it is not known

  def convert(self, rate_hz: int, channels: int, seconds: float) -> Samples:
    """Returns exactly as many seconds, silent past the clip's end."""
    audio = convert_audio(self.samples, self.rate_hz, rate_hz, channels)
    length = round(seconds * rate_hz)
    return np.pad(audio[:, :length], ((0, 0), (0, max(length - audio.shape[1], 0))))


LeftOut = dict[Path, str]  # files that cannot be read -> why


def draw_clips(
  roots: list[str],
  split: str,
  seconds: float,
  per_song: int,
  max_songs: int,
  seed: int,
  left_out: LeftOut | None = None,
) -> list[Clip]:
  """Returns clips of every song: `per_song` of its mix and of as many stems, where they sound.

  The choice depends on the seed, the root's name and the song's, not on what else is there.

  Args:
    roots: folders that hold SPLIT/Track*/stems/*.flac; where there is no mix.flac beside stems,
      the mix is the stems' sum.
    split: as "test".
    seconds: of a clip.
    per_song: clips of each kind.
    max_songs: of each root, evenly spread; 0 for all.
    seed: of the choice.
    left_out: takes the files that cannot be read, without which the clips are drawn.

  Raises:
    UserError: if a root holds no songs.
  """
  clips, left_out = [], {} if left_out is None else left_out
  for root in roots:
    songs = find_songs([root], split)
    if max_songs and len(songs) > max_songs:
      songs = [songs[i] for i in np.linspace(0, len(songs) - 1, max_songs).round().astype(int)]
    for folder in songs:
      song = f"{Path(root).name}/{folder.name}"
      clips += _draw_song(folder, song, seconds, per_song, seed, left_out)
  return clips


def _draw_song(
  folder: Path, song: str, seconds: float, per_song: int, seed: int, left_out: LeftOut
) -> Iterator[Clip]:
  stems = sorted(folder.glob(STEMS))
  rng = make_rng(seed, f"{song}/{MIX}", 0)
  audio = _read_mix(folder, stems, left_out)
  if audio is not None:
    for _ in range(per_song):
      if clip := _draw(rng, Clip(MIX, song, "mix", 0.0, *audio), seconds):
        yield clip
  rng = make_rng(seed, f"{song}/{STEM}", 0)
  instruments, found = _read_instruments(folder, left_out), 0
  for path in (stems[i] for i in rng.permutation(len(stems))):
    if found < per_song and (audio := _read(path, left_out)):
      whole = Clip(STEM, song, path.stem, 0.0, *audio, instruments.get(path.stem))
      if clip := _draw(rng, whole, seconds):
        found += 1
        yield clip


def _read(path: Path, left_out: LeftOut) -> tuple[Samples, int] | None:
  try:
    return read_audio(path)
  except UserError as error:
    left_out[path] = str(error)
    return None


def _read_mix(folder: Path, stems: list[Path], left_out: LeftOut) -> tuple[Samples, int] | None:
  if (folder / "mix.flac").is_file():
    return _read(folder / "mix.flac", left_out)
  audio = [found for path in stems if (found := _read(path, left_out))]
  if not audio:
    return None
  rate_hz, channels = audio[0][1], len(audio[0][0])
  parts = [convert_audio(samples, rate, rate_hz, channels) for samples, rate in audio]
  mix = np.zeros((channels, max(part.shape[1] for part in parts)), np.float32)
  for part in parts:
    mix[:, : part.shape[1]] += part
  return mix / max(np.abs(mix).max(), 1.0), rate_hz


def _read_instruments(folder: Path, left_out: LeftOut) -> dict[str, str | None]:
  """Returns the category of each stem that the song's metadata, if there is any, tells of."""
  path, entries = folder / "metadata.yaml", {}
  try:
    entries = read_slakh_metadata(path)["stems"] if path.is_file() else {}
  except UserError as error:
    left_out[path] = str(error)
  categories = CategoryMap.load()
  return {
    name: category_of_entry(entry, categories)
    for name, entry in entries.items()
    if isinstance(entry, dict)
  }


def _draw(rng: np.random.Generator, whole: Clip, seconds: float) -> Clip | None:
  samples, rate_hz = whole.samples, whole.rate_hz
  length = round(seconds * rate_hz)
  for _ in range(_DRAWS):
    start = int(rng.integers(max(samples.shape[1] - length, 0) + 1))
    piece = samples[:, start : start + length]
    if np.sqrt(np.square(piece).mean()) > QUIET_RMS:
      return dataclasses.replace(whole, start_s=start / rate_hz, samples=piece.copy())
  return None


def choose_pairs(clips: list[Clip]) -> list[Clip]:
  """Returns three clips to listen to: a mix, a bass or lead, and drums.

  Where no stem is known to be one of these, another stem or mix stands in.
  """
  mixes, stems = ([clip for clip in clips if clip.kind == kind] for kind in (MIX, STEM))
  low = [clip for clip in stems if clip.instrument in LEADS] or stems
  drums = [clip for clip in stems if clip.instrument == "drums"] or mixes[::-1]
  return list({id(clip): clip for clip in (*mixes[:1], *low[:1], *drums[:1])}.values())
