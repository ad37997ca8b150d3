# SPDX-License-Identifier: Apache-2.0
"""One shard: an ArrayRecord file of clips, row by row, and its entry in the dataset's manifest."""

import dataclasses
import hashlib
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter

from stemgen_jax.data.clips import (
  UNKNOWN,
  Clip,
  Header,
  Metadata,
  Row,
  check_clip,
  deserialize_row,
  is_count,
  is_number,
  join_rows,
  serialize_row,
)
from stemgen_jax.errors import UserError, find_full


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
  """One file of a split: its size in bytes, checksum, and a column for each fact of its clips.

  Attributes:
    songs: each clip's song.
    frames: its length T.
    stems: S; its records are S stems, then M mixes.
    mixes: M.
    target_db: the loudest cell of any stem that may be a target.
    mix_lufs: the median loudness of its mixes that sound.
    categories: of each of its stems, the value of the first source.
  """

  file: str
  size: int
  sha256: str
  songs: tuple[str, ...]
  frames: tuple[int, ...]
  stems: tuple[int, ...]
  mixes: tuple[int, ...]
  target_db: tuple[float, ...]
  mix_lufs: tuple[float, ...]
  categories: tuple[tuple[int, ...], ...]

  @classmethod
  def from_json(cls, entry: dict[str, Any]) -> "Shard":
    """Returns the shard of its entry in the manifest.

    Raises:
      KeyError, TypeError, ValueError: if a field is missing, or of another kind.
    """
    columns: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
    columns["categories"] = tuple(map(tuple, columns["categories"]))
    shard = cls(**columns)
    counts = (*shard.frames, *shard.stems, *shard.mixes)
    kinds = [
      (isinstance(shard.file, str) and Path(shard.file).name == shard.file, "file"),
      (isinstance(shard.sha256, str) and is_count(shard.size, 2**63), "size and sha256"),
      (len({len(getattr(shard, name)) for name in COLUMNS}) == 1, "columns of one length"),
      (all(isinstance(song, str) for song in shard.songs), "songs"),
      (len(counts) > 0 and all(is_count(count) and count > 0 for count in counts), "counts"),
      (all(map(_is_level, (*shard.target_db, *shard.mix_lufs))), "levels"),
      (all(type(i) is int for values in shard.categories for i in values), "categories"),
    ]
    if wrong := [name for kept, name in kinds if not kept]:
      raise ValueError(f"a shard's {wrong[0]} must be given")
    return shard

  @property
  def n_records(self) -> int:
    """Returns how many records the file holds."""
    return sum(self.stems) + sum(self.mixes)


COLUMNS = tuple(f.name for f in dataclasses.fields(Shard))[3:]  # after file, size, sha256


def list_clip(clip: Header, frames: int) -> dict[str, Any]:
  """Returns what the manifest tells of a clip of `frames` frames: column of `Shard` -> value."""
  conditions = clip.stem_conditions
  known = conditions[:, 0] if conditions.shape[1] else np.full(clip.n_stems, UNKNOWN)
  return {
    "songs": clip.song,
    "frames": frames,
    "stems": clip.n_stems,
    "mixes": len(clip.mix_gain_db),
    "target_db": clip.target_db,
    "mix_lufs": clip.median_lufs,
    "categories": tuple(known.tolist()),
  }


Records = tuple[Header, int, Iterable[bytes]]  # a clip, its frames, and its rows as they are stored


def write_shard(path: Path, clips: Iterable[Clip], metadata: Metadata) -> Shard:
  """Writes clips to one new file; returns its entry for the metadata file."""

  def serialize(clip: Clip) -> Records:
    check_clip(clip, metadata)
    rows = (serialize_row(row, metadata) for row in clip.rows())
    return clip, clip.stem_codes.shape[1], rows

  return _write_records(path, map(serialize, clips))


def copy_shards(path: Path, parts: Iterable[Path], metadata: Metadata) -> Shard:
  """Writes the records of other files to one new file, as they are; returns its entry.

  Raises:
    UserError: if one of them is damaged; the line names it.
  """
  return _write_records(path, (clip for part in parts for clip in _read_records(part, metadata)))


def _read_records(path: Path, metadata: Metadata) -> Iterator[Records]:
  """Yields the clips of a file, each known by its first row alone."""
  try:
    source = ArrayRecordDataSource([os.fspath(path)])
    first = 0
    while first < len(source):
      row = deserialize_row(source[first], metadata)
      last = first + row.n_rows
      if row.row or last > len(source):
        raise UserError(f"record {first} does not begin a whole clip")
      yield row, len(row.codes), (source[i] for i in range(first, last))
      first = last
  except (RuntimeError, UserError) as error:
    raise damaged(path, str(error)) from error


def _write_records(path: Path, clips: Iterable[Records]) -> Shard:
  columns: dict[str, list] = {name: [] for name in COLUMNS}
  try:
    writer = ArrayRecordWriter(os.fspath(path), "group_size:1")  # one record a chunk: random access
    for clip, frames, rows in clips:
      for row in rows:
        writer.write(row)
      for name, value in list_clip(clip, frames).items():
        columns[name].append(value)
    writer.close()
  except RuntimeError as error:
    full = find_full(error)
    if full is None:
      raise
    raise OSError(full, os.strerror(full)) from error  # in whose place `appearing` names the file
  return Shard(
    file=path.name,
    size=path.stat().st_size,
    sha256=hash_file(path),
    **{name: tuple(values) for name, values in columns.items()},
  )


def read_clips(path: Path, metadata: Metadata) -> Iterator[Clip]:
  """Yields the clips of one file in order; raises a UserError that names it if it is damaged."""
  rows: list[Row] = []
  try:
    for data in ArrayRecordDataSource([os.fspath(path)]):
      rows.append(deserialize_row(data, metadata))
      if len(rows) == rows[0].n_rows:
        yield join_rows(rows)
        rows = []
    if rows:
      join_rows(rows)
  except (RuntimeError, UserError) as error:
    raise damaged(path, str(error)) from error


def hash_file(path: Path) -> str:
  """Returns the SHA-256 of a file, in hexadecimal."""
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def damaged(path: Path, what: str) -> UserError:
  """Returns the error for a file that is not as it was written."""
  return UserError(f"shard must be whole; got {path}: {what}. Copy or tokenise it again.")


def _is_level(value: Any) -> bool:
  """Whether a value of JSON is a level: one that float32 holds, or that of silence."""
  return is_number(value) and (abs(value) < 1e6 or value == -math.inf)
