# SPDX-License-Identifier: Apache-2.0
"""MUSDB18, as mp4 files of five streams, and MUSDB18-HQ, as folders of WAV files."""

import os
from collections.abc import Iterator
from pathlib import Path

import yaml

from data_prep.corpora.category_map import CategoryMap
from data_prep.corpora.layout import Reader, drop_repeats, find_audio, list_folder, require_songs
from data_prep.corpora.types import INSTRUMENT, AudioFile, Problem, Stem, Track

_VALIDATION = Path(__file__).with_name("musdb18_validation.yaml")
_SUFFIX = ".stem.mp4"
_STREAMS = {"drums": 1, "bass": 2, "other": 3, "vocals": 4}  # stream 0 is the mixture


class Musdb18(Reader):
  """MUSDB18: `train|test/SONG.stem.mp4`, or HQ: `train|test/SONG/{drums,bass,other,vocals}.wav`.

  A song that is there in both forms is read from its folder. `other` is the sum of all the rest,
  so of no known instrument. Validation is 14 songs of the train folder, as the `musdb` package has
  it.

  Source: github.com/sigsep/sigsep-mus-db (Rafii et al. 2017), musdb/configs/mus.yaml for the
  streams, the file names and the validation songs, musdb/__init__.py for the layout.
  """

  name = "musdb18"
  layout = "train and test folders of SONG.stem.mp4, or of SONG/{drums,bass,other,vocals}.wav"

  def __init__(self, root: str | os.PathLike, categories: CategoryMap | None = None):
    super().__init__(root, categories)
    self._validation = set(yaml.safe_load(_VALIDATION.read_text(encoding="utf-8")))

  @staticmethod
  def recognises(root: Path) -> bool:
    """Returns whether a folder is laid out so."""
    entries = [path for folder in ("train", "test") for path in list_folder(root / folder)]
    names = ("mixture", *_STREAMS)
    return any(
      path.name.endswith(_SUFFIX) or all(find_audio(path, name) for name in names)
      for path in entries
    )

  def tracks(self) -> list[Track]:
    """Returns the songs, sorted by split and id, which is the song's name.

    Raises:
      UserError: if the root holds no song that can be used.
    """
    self._begin()
    tracks = []
    for folder in ("train", "test"):
      for name, files in self._find_songs(self._root / folder):
        stems = tuple(self._describe(stem, file) for stem, file in files.items())
        split = "validation" if name in self._validation else folder
        if stems:
          tracks.append(Track(name, split, stems))
        else:
          self.problems.append(Problem(f"{folder}/{name}", "no stems: the song is left out"))
    tracks = drop_repeats(tracks, {}, self.problems)
    require_songs(tracks, self.name, self.layout, self._root, self.problems)
    return tracks

  def _find_songs(self, folder: Path) -> Iterator[tuple[str, dict[str, AudioFile]]]:
    """Yields the songs of a folder and their stems' files; notes stems without a file."""
    entries = list_folder(folder)
    names = {path.name for path in entries if os.path.isdir(path)}
    for path in entries:
      if os.path.isdir(path):
        found = {stem: find_audio(path, stem) for stem in _STREAMS}
        for stem in (stem for stem, file in found.items() if file is None):
          where = (path / stem).relative_to(self._root).as_posix()
          self.problems.append(Problem(where, "no audio: has no file, left out"))
        yield path.name, {stem: AudioFile(file) for stem, file in found.items() if file}
      elif path.name.endswith(_SUFFIX) and (name := path.name.removesuffix(_SUFFIX)) not in names:
        yield name, {stem: AudioFile(path, stream) for stem, stream in _STREAMS.items()}

  def _describe(self, name: str, file: AudioFile) -> Stem:
    category = self._map.of_name(self.name, name)
    return Stem(name, (file,), {} if category is None else {INSTRUMENT: category})
