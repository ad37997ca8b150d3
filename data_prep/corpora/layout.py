# SPDX-License-Identifier: Apache-2.0
"""What the readers of corpora share: looking into folders, fixed splits, songs in two splits."""

import dataclasses
import hashlib
import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from data_prep.corpora.category_map import CategoryMap
from data_prep.corpora.types import INSTRUMENT, SPLITS, Problem, Track
from stemgen_jax.errors import UserError
from stemgen_jax.shell.folders import spell

AUDIO_SUFFIXES = (
  *(".wav", ".flac", ".aif", ".aiff", ".caf", ".au", ".ogg", ".opus", ".mp3", ".m4a"),
  *(".aac", ".m4b", ".wma", ".webm", ".mka"),
)


class Reader:
  """A corpus in a folder: what all readers have. `problems` are those of the last `tracks`."""

  def __init__(self, root: str | os.PathLike, categories: CategoryMap | None = None):
    self._root = Path(root)
    self._map = categories or CategoryMap.load()
    self.problems: list[Problem] = []

  @property
  def sources(self) -> Mapping[str, tuple[str, ...]]:
    """Returns the conditions and their values."""
    return {INSTRUMENT: self._map.categories}

  def _begin(self) -> None:
    """Begins the list of problems with what of the root cannot be read."""
    self.problems = []
    for path, what in find_broken(self._root):
      self._report(path, what)

  def _report(self, path: Path, what: str) -> None:
    self.problems.append(Problem(path.relative_to(self._root).as_posix(), what))


def list_folder(folder: Path) -> list[Path]:
  """Returns a folder's visible entries by name, none if it is no folder.

  Left out are hidden files, so macOS' `._*` twins of audio files, and its `__MACOSX` folders. One
  that cannot be looked into has none either: `find_broken` names it.
  """
  try:
    names = [name for name in os.listdir(folder) if not name.startswith((".", "__MACOSX"))]
  except OSError:
    return []
  return [folder / name for name in sorted(names)]


def find_broken(root: Path) -> Iterator[tuple[Path, str]]:
  """Yields the links of a folder that lead nowhere, and the folders in it that cannot be read."""
  refused: list[OSError] = []
  for folder, folders, files in os.walk(root, onerror=refused.append):
    for name in sorted([*folders, *files]):
      path = Path(folder, name)
      if path.is_symlink() and not os.path.exists(path):
        yield path, f"dangling link: it leads to {os.readlink(path)}, left out"
  for error in refused:
    yield Path(error.filename), f"cannot be read: {error.strerror}, left out"


def list_folders(folder: Path) -> list[Path]:
  """Returns the visible folders in a folder, by name."""
  return [path for path in list_folder(folder) if os.path.isdir(path)]


def find_audio(folder: Path, name: str) -> Path | None:
  """Returns the audio file `name` of a folder, with the first suffix that is there."""
  paths = (folder / f"{name}{suffix}" for suffix in AUDIO_SUFFIXES)
  return next((path for path in paths if os.path.isfile(path)), None)


def hash_split(key: str) -> str:
  """Returns the split of a song by a hash of its key: 80 % train, 10 % validation, 10 % test.

  The same on every machine, and for a song whatever other songs there are: the key's letters are
  composed (NFC) first, as file systems disagree on that.
  """
  letters = unicodedata.normalize("NFC", key)
  digest = hashlib.sha256(os.fsencode(letters)).digest()
  part = int.from_bytes(digest[:8], "big") % 10
  return "train" if part < 8 else SPLITS[part - 7]


def drop_repeats(
  tracks: Sequence[Track], keys: Mapping[int, Sequence[str]], problems: list[Problem]
) -> list[Track]:
  """Returns the tracks sorted by split and id, without songs that a later split holds too.

  Ids are text from here on, whatever the bytes of the folders' names.

  The test split's copy is the one that is kept, else validation's: what is evaluated must not have
  been trained on. Of two songs with one id in a split, the first is kept.

  Args:
    tracks: in any order.
    keys: for a track, by its place in `tracks`, what shows that a song is the same, beside its id.
    problems: each track that is left out is added here.
  """
  tracks = [dataclasses.replace(track, id=spell(track.id)) for track in tracks]
  order = sorted(range(len(tracks)), key=lambda i: (-SPLITS.index(tracks[i].split), tracks[i].id))
  kept, seen_ids, seen_keys = [], {}, {}
  for i in order:
    track, where = tracks[i], f"{tracks[i].split}/{tracks[i].id}"
    others = [seen_keys[key] for key in keys.get(i, ()) if key in seen_keys]
    others = [other for other in others if other.split != track.split]
    others += [seen_ids[track.id]] if track.id in seen_ids else []
    if others:
      same = f"{others[0].split}/{others[0].id}"
      problems.append(Problem(where, f"the same song twice: it is {same} too, left out here"))
      continue
    kept.append(track)
    seen_ids[track.id] = track
    seen_keys.update({key: track for key in keys.get(i, ())})
  return sorted(kept, key=lambda track: (SPLITS.index(track.split), track.id))


def require_songs(
  tracks: Sequence[Track], name: str, layout: str, root: Path, problems: Sequence[Problem]
) -> None:
  """Raises a UserError that tells the layout, and the first problem, if there is no track."""
  if tracks:
    return
  first = f", as {problems[0].where}: {problems[0].what}" if problems else ""
  raise UserError(
    f"{name} root must hold {layout}; got root={root} with no track that can be used{first}."
    " Give the folder above these."
  )
