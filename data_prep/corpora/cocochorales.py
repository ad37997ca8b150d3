# SPDX-License-Identifier: Apache-2.0
"""CocoChorales: synthesised chorales of four voices."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from data_prep.corpora.layout import (
  AUDIO_SUFFIXES,
  Reader,
  drop_repeats,
  list_folder,
  list_folders,
  require_songs,
)
from data_prep.corpora.types import INSTRUMENT, AudioFile, Stem, Track

_TRACK = re.compile(r"(?:string|brass|woodwind|random)_track(\d{6})")
_STEM = re.compile(r"(\d)_(.+)")
_LAST = {"train": 192_000, "validation": 216_000, "test": 240_000}  # number of a split's last track
_VOICES = 4
_DEPTH = 4  # main_dataset/train/1/TRACK at most


class CocoChorales(Reader):
  """CocoChorales: `ENSEMBLE_trackNNNNNN/{metadata.yaml, stems_audio/N_INSTRUMENT.wav}`.

  The tracks may lie in any folders up to three below the root, as the archives are unpacked: a
  track's number tells its split. A file's name tells its category; metadata.yaml, of some hundred
  lines for each of up to 240,000 songs, is read only where it does not.

  Source: CocoChorales (Wu et al. 2022), github.com/lukewys/chamber-ensemble-generator,
  data_format.md, for layout, metadata and the numbers of the splits;
  magenta.tensorflow.org/datasets/cocochorales for ensembles and instruments.
  """

  name = "cocochorales"
  layout = "folders of {string,brass,woodwind,random}_trackNNNNNN/stems_audio/N_INSTRUMENT.wav"

  @staticmethod
  def recognises(root: Path) -> bool:
    """Returns whether a folder is laid out so."""
    return next(_find_songs(root), None) is not None

  def tracks(self) -> list[Track]:
    """Returns the songs, sorted by split and id.

    Raises:
      UserError: if the root holds no song that can be used.
    """
    self._begin()
    tracks = []
    for folder, number in _find_songs(self._root):
      split = next((split for split, last in _LAST.items() if number <= last), None)
      if split is None:
        self._report(folder, "unknown split: its number is above 240000, left out")
      elif stems := self._read_stems(folder):
        tracks.append(Track(folder.name, split, stems))
      else:
        self._report(folder, "no stems: the song is left out")
    tracks = drop_repeats(tracks, {}, self.problems)
    require_songs(tracks, self.name, self.layout, self._root, self.problems)
    return tracks

  def _read_stems(self, folder: Path) -> tuple[Stem, ...]:
    stems = []
    for path in list_folder(folder / "stems_audio"):
      match = _STEM.fullmatch(path.stem)
      if not match or path.suffix.lower() not in AUDIO_SUFFIXES:
        continue
      category = self._map.of_name(self.name, match[2]) or self._map.of_program(
        _read_program(folder / "metadata.yaml", int(match[1]))
      )
      if category is None:
        self._report(path, f"unknown instrument: {match[2]}, kept without a category")
      known = {} if category is None else {INSTRUMENT: category}
      stems.append(Stem(path.stem, (AudioFile(path),), known))
    if 0 < len(stems) < _VOICES:
      self._report(folder, f"no audio: {_VOICES - len(stems)} of {_VOICES} voices have no file")
    return tuple(stems)


def _read_program(path: Path, voice: int) -> int | None:
  """Returns a voice's General MIDI program, None if the file does not tell it."""
  try:
    content = yaml.load(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
  except (OSError, yaml.YAMLError):
    return None
  programs = content.get("midi_program_number") if isinstance(content, dict) else None
  program = programs.get(voice) if isinstance(programs, dict) else None
  return program if isinstance(program, int) else None


def _find_songs(folder: Path, depth: int = _DEPTH) -> Iterator[tuple[Path, int]]:
  """Yields the folders of tracks, and their numbers."""
  for child in list_folders(folder):
    if match := _TRACK.fullmatch(child.name):
      if os.path.isdir(child / "stems_audio"):
        yield child, int(match[1])
    elif depth > 1:
      yield from _find_songs(child, depth - 1)
