# SPDX-License-Identifier: Apache-2.0
"""MoisesDB: songs of recorded tracks in a taxonomy of two levels, with a genre each."""

import functools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.corpora.category_map import normalise
from data_prep.corpora.layout import Reader, drop_repeats, hash_split, list_folders, require_songs
from data_prep.corpora.types import INSTRUMENT, AudioFile, Problem, Stem, Track
from stemgen_jax.errors import UserError
from stemgen_jax.shell.folders import is_file_name

GENRE = "genre"
_DEPTH = 3  # root/moisesdb/moisesdb_v0.1/UUID at most
_PARTS = ("id", "extension")  # of the name of a track's file
_CLICK = "click_track"  # no part of the music


class MoisesDB(Reader):
  """MoisesDB: `UUID/data.json` and `UUID/STEM/TRACK_ID.wav`, in the root or some folders below it.

  A song's tracks of one stem and category are one Stem: they are microphones and takes of one
  part. Click tracks are left out. The genres are those that the songs have. There is no official
  split, so a song's is a hash of its id: 80 % train, 10 % validation, 10 % test.

  Source: github.com/moises-ai/moises-db (Pereira et al. 2023), README.md for the folders,
  moisesdb/track.py for data.json, moisesdb/defaults.py for the taxonomy.
  """

  name = "moisesdb"
  layout = "folders of UUID/{data.json, STEM/TRACK_ID.wav}"

  @staticmethod
  def recognises(root: Path) -> bool:
    """Returns whether a folder is laid out so."""
    return next(_find_songs(root), None) is not None

  @property
  def sources(self) -> dict[str, tuple[str, ...]]:
    """Returns the instruments, and the genres of all songs by name."""
    return {INSTRUMENT: self._map.categories} | ({GENRE: self._genres} if self._genres else {})

  @functools.cached_property
  def _genres(self) -> tuple[str, ...]:
    contents = (content for _, content in self._read_songs([]))
    genres = {genre for content in contents if (genre := normalise(content.get("genre") or ""))}
    return tuple(sorted(genres))

  def tracks(self) -> list[Track]:
    """Returns the songs, sorted by split and id.

    Raises:
      UserError: if the root holds no song that can be used.
    """
    self._begin()
    tracks = []
    for folder, content in self._read_songs(self.problems):
      if stems := self._read_stems(folder, content):
        genre = normalise(content.get("genre") or "")
        if not genre:
          self._report(folder, "unknown genre: none is given")
        known = {GENRE: genre} if genre else {}
        tracks.append(Track(folder.name, hash_split(folder.name), stems, known))
      else:
        self._report(folder, "no stems: the song is left out")
    tracks = drop_repeats(tracks, {}, self.problems)
    require_songs(tracks, self.name, self.layout, self._root, self.problems)
    return tracks

  def _read_songs(self, problems: list[Problem]) -> Iterator[tuple[Path, dict[str, Any]]]:
    for folder in _find_songs(self._root):
      try:
        yield folder, _read_metadata(folder / "data.json")
      except UserError as error:
        where = folder.relative_to(self._root).as_posix()
        what = f"metadata cannot be read: {error} The song is left out."
        problems.append(Problem(where, what))

  def _read_stems(self, folder: Path, content: dict[str, Any]) -> tuple[Stem, ...]:
    """Returns a song's stems by name; notes tracks without audio and unknown types."""
    groups: dict[tuple[str, str], list[AudioFile]] = {}
    for stem in content["stems"]:
      stem_name = str(stem.get("stemName"))
      for track in stem.get("tracks") or []:
        kind, extension = str(track.get("trackType")), track.get("extension") or "wav"
        path = folder / stem_name / f"{track.get('id')}.{extension}"
        if normalise(kind) == _CLICK:
          self._report(path, "click track: left out")
          continue
        if not os.path.isfile(path):
          self._report(path, "no audio: listed, but has no file, left out")
          continue
        category = self._map.of_name(self.name, kind) or self._map.of_name(self.name, stem_name)
        if category is None:
          told = f"{stem_name} / {kind}, kept without a category"
          self._report(path, f"unknown instrument: {told}")
        groups.setdefault((stem_name, category or ""), []).append(AudioFile(path))
    stems = []
    for (stem_name, category), files in sorted(groups.items()):
      name = f"{stem_name}-{category or 'unknown'}"
      known = {INSTRUMENT: category} if category else {}
      stems.append(Stem(name, tuple(sorted(files, key=lambda file: file.path.name)), known))
    return tuple(stems)


def _find_songs(folder: Path, depth: int = _DEPTH) -> Iterator[Path]:
  """Yields the folders that hold a data.json, by path."""
  for child in list_folders(folder):
    if os.path.isfile(child / "data.json"):
      yield child
    elif depth > 1:
      yield from _find_songs(child, depth - 1)


def _read_metadata(path: Path) -> dict[str, Any]:
  try:
    content = json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError) as error:
    raise UserError(f"data.json must be readable JSON; got {path} ({error}).") from error
  stems = content.get("stems") if isinstance(content, dict) else None
  if not isinstance(stems, list) or not all(isinstance(stem, dict) for stem in stems):
    raise UserError(f"data.json must list `stems`; got {path}. Copy the song again.")
  for stem in stems:
    tracks = stem.get("tracks") or []
    listed = isinstance(tracks, list) and all(isinstance(track, dict) for track in tracks)
    words = (
      [stem.get("stemName"), *(t.get(k, "") for t in tracks for k in _PARTS)] if listed else []
    )
    if not listed or not all(is_file_name(f"{word}-") for word in words):
      raise UserError(
        f"data.json must list `tracks` whose names can be files'; got {path}. Copy the song again."
      )
  return content
