# SPDX-License-Identifier: Apache-2.0
"""Slakh2100, and all that is laid out like it."""

import logging
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import yaml

from data_prep.corpora.types import INSTRUMENT, SPLITS, AudioFile, Problem, Stem, Track
from stemgen_jax.categories import CATEGORIES, category_of_slakh
from stemgen_jax.errors import UserError

_log = logging.getLogger(__name__)


class Slakh:
  """Slakh2100 and all that is laid out like it: `SPLIT/TrackNNNNN/{metadata.yaml, stems/*.flac}`.

  Folders other than the three splits are left out: `omitted` holds songs that repeat others and
  would leak between splits. Stems that the metadata says were not rendered, or that have no file,
  are left out; the latter are counted in the log, as are stems of no known category.

  Source: Slakh2100 (Manilow et al. 2019), redux split.
  """

  SUFFIXES = (".flac", ".wav")
  sources: Mapping[str, tuple[str, ...]] = {INSTRUMENT: CATEGORIES}

  def __init__(self, root: str | os.PathLike):
    self._root = Path(root)
    self.problems: list[Problem] = []

  def tracks(self) -> list[Track]:
    """Returns the songs, sorted by split and id.

    Raises:
      UserError: if the root holds no track, or a track's metadata cannot be read.
    """
    missing: list[Path] = []
    unknown: Counter[str] = Counter()
    tracks = []
    for split in SPLITS:
      for folder in sorted((self._root / split).glob("Track*")):  # so never macOS's ._Track*
        if folder.is_dir():
          stems = self._read_stems(folder, missing, unknown)
          if stems:  # the id is the folder's name: Track00616's `audio_dir` names another track
            tracks.append(Track(folder.name, split, stems))
          else:
            _log.warning("%s has no stems and is left out", folder)
    if not tracks:
      raise UserError(
        f"Slakh root must hold {', '.join(SPLITS)} folders of Track* folders; got"
        f" root={self._root} with no track. Give the folder above the splits."
      )
    if missing:
      _log.warning("%d listed stems have no audio, the first is %s", len(missing), missing[0])
    for name, count in unknown.items():
      _log.warning("%d stems of unknown instrument %s: kept without a category", count, name)
    return tracks

  def _read_stems(
    self, folder: Path, missing: list[Path], unknown: Counter[str]
  ) -> tuple[Stem, ...]:
    """Returns a track's stems; notes listed stems without audio, and unknown instruments."""
    stems = []
    for name, entry in sorted(read_slakh_metadata(folder / "metadata.yaml")["stems"].items()):
      if not isinstance(entry, dict) or entry.get("audio_rendered") is False:
        continue
      paths = [folder / "stems" / f"{name}{suffix}" for suffix in self.SUFFIXES]
      path = next((path for path in paths if path.is_file()), None)
      if path is None:
        missing.append(paths[0])
        continue
      program, word = entry.get("program_num"), entry.get("inst_class")
      category = category_of_slakh(word, program, bool(entry.get("is_drum")))
      if category is None:
        unknown[f"{word!r} (program {program})"] += 1
      known = {} if category is None else {INSTRUMENT: category}
      stems.append(Stem(name, (AudioFile(path),), known))
    return tuple(stems)


def read_slakh_metadata(path: Path) -> dict:
  """Returns the content of a `metadata.yaml`, also of one with a stray byte before the YAML.

  Raises:
    UserError: if the file is missing or lists no stems.
  """
  if not path.is_file():
    raise UserError(f"track must have a metadata file; got none at {path}. Copy the track again.")
  data = path.read_bytes()
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
