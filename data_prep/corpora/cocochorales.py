# SPDX-License-Identifier: Apache-2.0
"""CocoChorales: synthesised chorales of four voices."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from data_prep.category_map import CategoryMap
from data_prep.corpora.layout import (
  AUDIO_SUFFIXES,
  drop_repeats,
  list_folder,
  list_folders,
  require_songs,
)
from data_prep.corpora.types import INSTRUMENT, AudioFile, Problem, Stem, Track

_TRACK = re.compile(r"(?:string|brass|woodwind|random)_track(\d{6})")
_STEM = re.compile(r"(\d)_(.+)")
_LAST = {"train": 192_000, "validation": 216_000, "test": 240_000}  # number of a split's last track
_DEPTH = 4  # main_dataset/train/1/TRACK at most


class CocoChorales:
  """CocoChorales: `ENSEMBLE_trackNNNNNN/{metadata.yaml, stems_audio/N_INSTRUMENT.wav}`.

  The tracks may lie in any folders up to three below the root, as the archives are unpacked: a
  track's number tells its split. A voice's General MIDI program, in metadata.yaml, tells its
  category, else its instrument's name.

  Source: CocoChorales (Wu et al. 2022), github.com/lukewys/chamber-ensemble-generator,
  data_format.md, for layout, metadata and the numbers of the splits;
  magenta.tensorflow.org/datasets/cocochorales for ensembles and instruments.
  """

  name = "cocochorales"
  layout = "folders of {string,brass,woodwind,random}_trackNNNNNN/stems_audio/N_INSTRUMENT.wav"

  def __init__(self, root: str | os.PathLike, categories: CategoryMap | None = None):
    self._root = Path(root)
    self._map = categories or CategoryMap.load()
    self.sources = {INSTRUMENT: self._map.categories}
    self.problems: list[Problem] = []

  @staticmethod
  def recognises(root: Path) -> bool:
    """Returns whether a folder is laid out so."""
    return next(_find_songs(root), None) is not None

  def tracks(self) -> list[Track]:
    """Returns the songs, sorted by split and id.

    Raises:
      UserError: if the root holds no song that can be used.
    """
    self.problems = []
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
    programs, stems = self._read_programs(folder / "metadata.yaml"), []
    for path in list_folder(folder / "stems_audio"):
      match = _STEM.fullmatch(path.stem)
      if not match or path.suffix.lower() not in AUDIO_SUFFIXES:
        continue
      program = programs.get(int(match[1]))
      number = program if isinstance(program, int) else None
      category = self._map.of_program(number) or self._map.of_name(self.name, match[2])
      if category is None:
        told = f"{match[2]} (program {program}), kept without a category"
        self._report(path, f"unknown instrument: {told}")
      known = {} if category is None else {INSTRUMENT: category}
      stems.append(Stem(path.stem, (AudioFile(path),), known))
    for voice in sorted(set(programs) - {int(stem.name[0]) for stem in stems}, key=str):
      self._report(folder / "stems_audio" / str(voice), "no audio: listed, but has no file")
    return tuple(stems)

  def _read_programs(self, path: Path) -> dict[Any, Any]:
    """Returns each voice's program; none, and a problem, if the file cannot be read."""
    try:
      content = yaml.load(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, yaml.YAMLError):
      content = None
    programs = content.get("midi_program_number") if isinstance(content, dict) else None
    if isinstance(programs, dict):
      return programs
    self._report(path, "metadata cannot be read: the stems' names are taken instead")
    return {}

  def _report(self, path: Path, what: str) -> None:
    self.problems.append(Problem(path.relative_to(self._root).as_posix(), what))


def _find_songs(folder: Path, depth: int = _DEPTH) -> Iterator[tuple[Path, int]]:
  """Yields the folders of tracks, and their numbers."""
  for child in list_folders(folder):
    if match := _TRACK.fullmatch(child.name):
      if (child / "stems_audio").is_dir():
        yield child, int(match[1])
    elif depth > 1:
      yield from _find_songs(child, depth - 1)
