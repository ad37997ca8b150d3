# SPDX-License-Identifier: Apache-2.0
"""Folders of one's own: a song is a folder of audio files named after instruments."""

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_prep.corpora.category_map import split_words
from data_prep.corpora.layout import (
  AUDIO_SUFFIXES,
  Reader,
  drop_repeats,
  hash_split,
  list_folder,
  list_folders,
  require_songs,
)
from data_prep.corpora.types import INSTRUMENT, SPLITS, AudioFile, Stem, Track

_SPLIT_NAMES = {split: split for split in SPLITS} | {"valid": "validation", "val": "validation"}
# Microphones or lines of one player: apart, one would be the other's context.
_SUMMED = ("drums", "bass")
_MIX_WORDS = {
  *("mix", "mixed", "mixture", "mixdown", "fullmix", "full", "bounce", "master", "mastered"),
  *("premaster", "instrumental", "karaoke", "accompaniment"),
}
_MIX_PAIRS = {("2", "track"), ("2", "trk"), ("two", "track")}


class Folder(Reader):
  """A tree of any depth in which each folder with audio files is a song, and each file a stem.

  A file's category is told by the words of its name, less those of the song's own; files of drums
  are summed, and so are those of bass. A file that seems to be the whole mix is left out. If there
  are folders train, validation (or valid, val) and test at the top, they are the splits, else a
  song's is a hash of its path: 80 % train, 10 % validation, 10 % test, but train is never empty.
  """

  name = "folder"
  layout = "folders of audio files named after instruments, as SONG/{bass.wav, kick.flac, ...}"

  @staticmethod
  def recognises(root: Path) -> bool:
    """Returns whether there is any audio file in a folder."""
    return next(_find_songs(root), None) is not None

  def tracks(self) -> list[Track]:
    """Returns the songs, sorted by split and id, which is the folder's path with `__` for `/`.

    Raises:
      UserError: if the root holds no song that can be used.
    """
    self._begin()
    tracks = []
    has_splits = any(_is_split(path) for path in list_folders(self._root))
    for folder, files in _find_songs(self._root):
      parts = folder.relative_to(self._root).parts
      split = _SPLIT_NAMES.get(parts[0].lower()) if has_splits and parts else None
      if has_splits and split is None:
        self._report(folder, "outside the splits: there are folders for them, left out")
        continue
      parts = parts[1:] if has_splits else parts
      name = "__".join(parts or (folder.resolve().name,))
      if stems := self._read_stems(folder, files):
        tracks.append(Track(name, split or hash_split(name), stems))
      else:
        self._report(folder, "no stems: the song is left out")
    if not has_splits and tracks and all(track.split != "train" for track in tracks):
      first = min(range(len(tracks)), key=lambda i: tracks[i].id)
      tracks[first] = Track(tracks[first].id, "train", tracks[first].stems)
    self._warn_of_instrument_folders(tracks)
    tracks = drop_repeats(tracks, {}, self.problems)
    require_songs(tracks, self.name, self.layout, self._root, self.problems)
    return tracks

  def _read_stems(self, folder: Path, files: Sequence[Path]) -> tuple[Stem, ...]:
    """Returns a song's stems by name; notes mixes, doubles and unknown instruments."""
    paths = self._drop_doubles(files)
    titles = [split_words(folder.resolve().name), self._find_title(paths)]
    stems, summed = [], {}
    for path in paths:
      words = split_words(path.stem)
      for title in titles:
        words = words[len(title) :] if words[: len(title)] == title else words
      alone = not words and self._map.is_phrase(path.stem)  # a song called Piano, of a piano
      category = self._map.of_words(path.stem if alone else " ".join(words))
      file = AudioFile(path)
      if category is None and (not words or _is_mix(words)):
        self._report(path, "a mix of all, by its name: left out")
      elif category is None:
        self._report(path, f"unknown instrument: {path.stem!r}, kept without a category")
        stems.append(Stem(path.stem, (file,), {}))
      elif category in _SUMMED:
        summed.setdefault(category, []).append(file)
      else:
        stems.append(Stem(path.stem, (file,), {INSTRUMENT: category}))
    for category, parts in summed.items():
      name = category if len(parts) > 1 else parts[0].path.stem
      stems.append(Stem(name, tuple(parts), {INSTRUMENT: category}))
    return tuple(sorted(stems, key=lambda stem: stem.name))

  def _find_title(self, paths: Sequence[Path]) -> list[str]:
    """Returns the words that all files' names begin with, if what is left tells instruments."""
    names = [split_words(path.stem) for path in paths]
    if len(names) < 2:
      return []
    first, last = min(names), max(names)
    shared = [
      a
      for a, _ in itertools.takewhile(
        lambda pair: pair[0] == pair[1], zip(first, last, strict=False)
      )
    ]
    told = [self._map.of_words(" ".join(words[len(shared) :])) for words in names]
    return shared if 2 * sum(map(bool, told)) >= len(names) else []

  def _drop_doubles(self, files: Sequence[Path]) -> list[Path]:
    """Returns files by name, without those of another's name and a later suffix."""
    kept: dict[str, Path] = {}
    for path in sorted(files, key=lambda path: AUDIO_SUFFIXES.index(path.suffix.lower())):
      first = kept.setdefault(path.stem, path)
      if first is not path:
        self._report(path, f"the same stem twice: it is {first.name} too, left out")
    return sorted(kept.values(), key=lambda path: path.name)

  def _warn_of_instrument_folders(self, tracks: Sequence[Track]) -> None:
    """Notes songs whose folders lie side by side and have just instruments' names."""
    named: dict[Path, list[str]] = {}
    for track in tracks:
      folder = track.stems[0].files[0].path.parent
      if self._map.is_phrase(folder.name):
        named.setdefault(folder.parent, []).append(folder.name)
    for parent, names in named.items():
      if len(names) > 1:
        told = f"{', '.join(sorted(names))} are read as songs, put a song's files in one folder"
        self._report(parent, f"folders of instruments: {told}")


def _is_split(folder: Path) -> bool:
  """Returns whether a folder is a split: named so, and without audio of its own, as a song has."""
  own = (path.suffix.lower() in AUDIO_SUFFIXES for path in list_folder(folder))
  return folder.name.lower() in _SPLIT_NAMES and not any(own)


def _is_mix(words: Sequence[str]) -> bool:
  return not _MIX_WORDS.isdisjoint(words) or not _MIX_PAIRS.isdisjoint(itertools.pairwise(words))


def _find_songs(folder: Path, seen: set[Path] | None = None) -> Iterator[tuple[Path, list[Path]]]:
  """Yields the folders that hold audio files, and these; a folder with two links once."""
  seen = set() if seen is None else seen
  if folder.resolve() in seen:
    return
  seen.add(folder.resolve())
  entries = list_folder(folder)
  files = [
    path for path in entries if path.suffix.lower() in AUDIO_SUFFIXES and os.path.isfile(path)
  ]
  if files:
    yield folder, files
  for path in entries:
    if os.path.isdir(path):
      yield from _find_songs(path, seen)
