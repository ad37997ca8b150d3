# SPDX-License-Identifier: Apache-2.0
"""What the readers of corpora share: looking into folders, fixed splits, songs in two splits."""

import hashlib
import os
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from data_prep.corpora.category_map import CategoryMap
from data_prep.corpora.types import INSTRUMENT, SPLITS, Problem, Track
from stemgen_jax.errors import UserError

AUDIO_SUFFIXES = (".wav", ".flac", ".aif", ".aiff", ".ogg", ".opus", ".mp3", ".m4a")


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

  def _report(self, path: Path, what: str) -> None:
    self.problems.append(Problem(path.relative_to(self._root).as_posix(), what))


def list_folder(folder: Path) -> list[Path]:
  """Returns a folder's visible entries by name, none if it is no folder.

  Left out are hidden files, so macOS' `._*` twins of audio files, and its `__MACOSX` folders.
  """
  if not folder.is_dir():
    return []
  names = (path for path in folder.iterdir() if not path.name.startswith((".", "__MACOSX")))
  return sorted(names, key=lambda path: path.name)


def list_folders(folder: Path) -> list[Path]:
  """Returns the visible folders in a folder, by name."""
  return [path for path in list_folder(folder) if path.is_dir()]


def find_audio(folder: Path, name: str) -> Path | None:
  """Returns the audio file `name` of a folder, with the first suffix that is there."""
  paths = (folder / f"{name}{suffix}" for suffix in AUDIO_SUFFIXES)
  return next((path for path in paths if path.is_file()), None)


def hash_split(key: str) -> str:
  """Returns the split of a song by a hash of its key: 80 % train, 10 % validation, 10 % test.

  The same on every machine, and for a song whatever other songs there are: the key's letters are
  composed (NFC) first, as file systems disagree on that.
  """
  digest = hashlib.sha256(unicodedata.normalize("NFC", key).encode()).digest()
  part = int.from_bytes(digest[:8], "big") % 10
  return "train" if part < 8 else SPLITS[part - 7]


def drop_repeats(
  tracks: Sequence[Track], keys: Mapping[int, Sequence[str]], problems: list[Problem]
) -> list[Track]:
  """Returns the tracks sorted by split and id, without songs that a later split holds too.

  The test split's copy is the one that is kept, else validation's: what is evaluated must not have
  been trained on. Of two songs with one id in a split, the first is kept.

  Args:
    tracks: in any order.
    keys: for a track, by its place in `tracks`, what shows that a song is the same, beside its id.
    problems: each track that is left out is added here.
  """
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
