# SPDX-License-Identifier: Apache-2.0
"""Slakh2100, and all that is laid out like it."""

import os
import re
from pathlib import Path
from typing import Any

import yaml

from data_prep.corpora.category_map import CategoryMap
from data_prep.corpora.layout import (
  Reader,
  drop_repeats,
  find_audio,
  hash_split,
  list_folders,
  require_songs,
)
from data_prep.corpora.types import INSTRUMENT, SPLITS, AudioFile, Problem, Stem, Track
from stemgen_jax.errors import UserError

_BAD_STEMS = Path(__file__).with_name("slakh_bad_stems.yaml")
_ORIGINAL = {"train": 1500, "validation": 375, "test": 225}  # slakh-utils, README
_LAKH = "lmd_matched/"  # where the songs of Slakh2100 itself come from, and no others
_MD5 = re.compile(r"[0-9a-f]{32}")


class Slakh(Reader):
  """Slakh2100 and all that is laid out like it: `SPLIT/TrackNNNNN/{metadata.yaml, stems/*.flac}`.

  BabySlakh has no folders of splits: there a song's split is a hash of its name, 80 % train.
  Folders other than the three splits are left out: `omitted` holds songs that repeat others and
  would leak between splits. So are a song's copies in other splits, known by the MD5 of its MIDI
  file, stems that the metadata says were not rendered or that have no file, and known bad ones.

  Source: Slakh2100 (Manilow et al. 2019), redux split; github.com/ethman/slakh-utils for the
  layout and metadata.
  """

  name = "slakh"
  layout = "train, validation and test folders of Track*/{metadata.yaml, stems/*.flac}"

  def __init__(self, root: str | os.PathLike, categories: CategoryMap | None = None):
    super().__init__(root, categories)
    self._bad = {
      (bad["track"], bad["stem"]): f"{bad['reason']} ({_BAD_STEMS.name})"
      for bad in yaml.safe_load(_BAD_STEMS.read_text(encoding="utf-8"))
    }

  @staticmethod
  def recognises(root: Path) -> bool:
    """Returns whether a folder is laid out so."""
    return any(os.path.isfile(folder / "metadata.yaml") for _, folder in _list_tracks(root))

  def tracks(self) -> list[Track]:
    """Returns the songs, sorted by split and id.

    Raises:
      UserError: if the root holds no song that can be used.
    """
    self._begin()
    tracks, hashes = [], {}
    counts: dict[str, int] = dict.fromkeys(SPLITS, 0)
    for split, folder in _list_tracks(self._root):
      counts[split] += 1
      try:
        metadata = read_slakh_metadata(folder / "metadata.yaml")
      except UserError as error:
        self._report(folder, f"metadata cannot be read: {error} The song is left out.")
        continue
      if stems := self._read_stems(folder, metadata):
        if _MD5.fullmatch(str(metadata.get("UUID"))):
          hashes[len(tracks)] = [metadata["UUID"]]
        # The id is the folder's name: Track00616's `audio_dir` names another track
        # (github.com/ethman/slakh-utils/issues/25).
        tracks.append(Track(folder.name, split, stems))
      else:
        self._report(folder, "no stems: the song is left out")
    if counts == _ORIGINAL and not (self._root / "omitted").exists():
      what = "original split: songs leak between its splits, take the redux split"
      self.problems.append(Problem(".", what))
    tracks = drop_repeats(tracks, hashes, self.problems)
    require_songs(tracks, self.name, self.layout, self._root, self.problems)
    return tracks

  def _read_stems(self, folder: Path, metadata: dict[str, Any]) -> tuple[Stem, ...]:
    stems = []
    is_slakh = str(metadata.get("lmd_midi_dir")).startswith(_LAKH)
    for name, entry in sorted(metadata["stems"].items(), key=lambda item: str(item[0])):
      if not isinstance(entry, dict) or entry.get("audio_rendered") is False:
        continue
      stem = folder / "stems" / str(name)
      path = find_audio(stem.parent, stem.name)
      bad = self._bad.get((folder.name, name)) if is_slakh else None
      if path is None:
        self._report(stem, "no audio: listed, but has no file, left out")
        continue
      if bad:
        self._report(stem, f"known bad stem: {bad}, left out")
        continue
      category = category_of_entry(entry, self._map)
      if category is None:
        word, program = entry.get("inst_class"), entry.get("program_num")
        told = f"{word!r} (program {program}), kept without a category"
        self._report(stem, f"unknown instrument: {told}")
      known = {} if category is None else {INSTRUMENT: category}
      stems.append(Stem(str(name), (AudioFile(path),), known))
    return tuple(stems)


def _list_tracks(root: Path) -> list[tuple[str, Path]]:
  """Returns the folders of songs and their splits: without folders of splits, by a hash."""
  found: list[tuple[str, Path]] = []
  for split in SPLITS:
    found += [(split, folder) for folder in list_folders(root / split) if _is_track(folder)]
  if not found:
    found += [(hash_split(song.name), song) for song in list_folders(root) if _is_track(song)]
  return found


def _is_track(folder: Path) -> bool:
  return folder.name.startswith("Track")


def category_of_entry(entry: dict[str, Any], categories: CategoryMap) -> str | None:
  """Returns the category of a stem's metadata, None if neither program nor class is known.

  The program decides where there is one: it tells timpani from violins and a kalimba from a sitar,
  which `inst_class` does not.
  """
  word, program = entry.get("inst_class"), entry.get("program_num")
  number = program if isinstance(program, int) else None
  by_program = categories.of_program(number, bool(entry.get("is_drum")))
  return by_program or categories.of_name("slakh", word)


def read_slakh_metadata(path: Path) -> dict:
  """Returns the content of a `metadata.yaml`, also of one with a stray byte before the YAML.

  Raises:
    UserError: if the file is missing or lists no stems.
  """
  if not os.path.isfile(path):
    raise UserError(f"track must have a metadata file; got none at {path}. Copy the track again.")
  try:
    data = path.read_bytes()
  except OSError as error:
    raise UserError(f"track metadata must be readable; got {path} ({error.strerror}).") from error
  for text in (data, data[1:]):
    try:
      content = yaml.load(
        text.decode(errors="replace"), getattr(yaml, "CSafeLoader", yaml.SafeLoader)
      )
    except yaml.YAMLError:
      continue
    if isinstance(content, dict) and isinstance(content.get("stems"), dict):
      return content
  raise UserError(f"track metadata must be YAML with `stems`; got {path}. Copy the track again.")
