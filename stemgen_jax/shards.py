# SPDX-License-Identifier: Apache-2.0
"""One shard: an ArrayRecord file of clips, row by row, and its entry in the dataset's manifest."""

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter

from stemgen_jax.clips import (
  Clip,
  Metadata,
  Row,
  check_clip,
  deserialize_row,
  join_rows,
  serialize_row,
)
from stemgen_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
  """One file of a split: its size in bytes, checksum, and a column for each fact of its clips.

  Attributes:
    songs: each clip's song.
    frames: its length T.
    stems: S; its records are S stems, then M mixes.
    mixes: M.
    target_db: the loudest cell of any stem that may be a target.
  """

  file: str
  size: int
  sha256: str
  songs: tuple[str, ...]
  frames: tuple[int, ...]
  stems: tuple[int, ...]
  mixes: tuple[int, ...]
  target_db: tuple[float, ...]

  @classmethod
  def from_json(cls, entry: dict[str, Any]) -> "Shard":
    """Returns the shard of its entry in the manifest; raises a TypeError if a field is missing."""
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()})

  @property
  def n_records(self) -> int:
    """Returns how many records the file holds."""
    return sum(self.stems) + sum(self.mixes)


def write_shard(path: Path, clips: Iterable[Clip], metadata: Metadata) -> Shard:
  """Writes clips to one new file; returns its entry for the metadata file."""
  writer = ArrayRecordWriter(os.fspath(path), "group_size:1")  # one record a chunk: random access
  columns: list[tuple[str, int, int, int, float]] = []
  for clip in clips:
    check_clip(clip, metadata)
    for row in clip.rows():
      writer.write(serialize_row(row, metadata))
    stems, frames = clip.stem_codes.shape[:2]
    columns.append((clip.song, frames, stems, len(clip.mix_codes), clip.target_db))
  writer.close()
  songs, frames, stems, mixes, target_db = zip(*columns) if columns else [()] * 5
  return Shard(
    file=path.name,
    size=path.stat().st_size,
    sha256=hash_file(path),
    songs=songs,
    frames=frames,
    stems=stems,
    mixes=mixes,
    target_db=target_db,
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
