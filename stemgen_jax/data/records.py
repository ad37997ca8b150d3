# SPDX-License-Identifier: Apache-2.0
"""The token-shard format on disk: how a dataset is written, found, checked and opened.

A dataset is a TensorFlow Datasets folder of ArrayRecord shards (the records are `clips.Row`), made
and read without TensorFlow, with one more file, `stemgen.json`: the codec, the condition sources,
and every shard's size, SHA-256 and clips.
"""

import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource

from stemgen_jax.data.clips import (
  SILENCE_DB,
  Clip,
  Metadata,
  Row,
  build_features,
  deserialize_row,
  join_rows,
)
from stemgen_jax.data.shards import Shard, damaged, hash_file, write_shard
from stemgen_jax.errors import UserError
from stemgen_jax.shell.folders import appearing, is_sealed, refuse_bytes, seal

SCHEMA_VERSION = 3
VERSION = f"{SCHEMA_VERSION}.0.0"  # the version folder of TFDS
MANIFEST_FILE = "stemgen.json"


def dataset_folder(root: str | os.PathLike, name: str) -> Path:
  """Returns `root/name/VERSION`; raises a UserError if TFDS could not have the name."""
  if not re.fullmatch(r"[a-z][a-z0-9_]{0,99}", name):
    raise UserError(
      f"dataset name must match [a-z][a-z0-9_]*, of 100 letters or fewer; got name={name!r}. Choose"
      " another name."
    )
  refuse_bytes(root, "folder of datasets")
  return Path(root) / name / VERSION


def write_dataset(
  root: str | os.PathLike,
  name: str,
  metadata: Metadata,
  splits: Mapping[str, Sequence[Iterable[Any]]],
  replace: bool = False,
  write: Callable[[Path, Iterable[Any], Metadata], Shard] = write_shard,
) -> Path:
  """Writes a dataset to `root/name/VERSION` and returns that folder; it appears whole.

  Args:
    root: the folder that holds datasets.
    name: lower-case letters, digits and underscores.
    metadata: what holds for every record.
    splits: split name -> for each shard, its clips (may be generators: one clip is held at a time).
    replace: puts it in the place of one that exists.
    write: writes one shard of what `splits` holds: `shards.write_shard` clips, `shards.copy_shards`
      the records of files.

  Raises:
    UserError: if the name cannot be used, the dataset exists, or a clip breaks the format.
  """
  directory = dataset_folder(root, name)
  if directory.exists() and not replace:
    raise UserError(f"dataset folder must be new; got {directory}. Remove it or change the name.")
  with appearing(directory, directory.with_name(f".{VERSION}.partial")) as partial:
    partial.mkdir(parents=True)
    _write_files(partial, name, metadata, splits, write)
  return directory


def _write_files(
  partial: Path,
  name: str,
  metadata: Metadata,
  splits: Mapping[str, Sequence[Any]],
  write: Callable[..., Shard],
) -> None:
  shards: dict[str, list[Shard]] = {}
  for split, parts in splits.items():
    for i, clips in enumerate(parts):
      file = f"{name}-{split}.array_record-{i:05d}-of-{len(parts):05d}"
      shards.setdefault(split, []).append(write(partial / file, clips, metadata))
  template = tfds.core.ShardedFileTemplate(
    data_dir=tfds.core.Path(partial), dataset_name=name, filetype_suffix="array_record"
  )
  tfds.folder_dataset.write_metadata(
    data_dir=os.fspath(partial),
    features=build_features(metadata.n_levels, len(metadata.sources)),
    split_infos=[
      tfds.core.SplitInfo(
        name=split,
        shard_lengths=[shard.n_records for shard in parts],
        num_bytes=sum(shard.size for shard in parts),
        filename_template=template.replace(split=split),
      )
      for split, parts in shards.items()
    ],
    version=VERSION,
    check_data=False,  # the check needs TensorFlow
    description=f"EnCodec tokens of stems and context mixes; see {MANIFEST_FILE}.",
  )
  content = {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(metadata)}
  content["splits"] = {
    split: [dataclasses.asdict(shard) for shard in parts] for split, parts in shards.items()
  }
  (partial / MANIFEST_FILE).write_text(json.dumps(seal(content), indent=1) + "\n")


class ClipSource:
  """The clips of one split by index; opens its files when first read, so it pickles.

  Attributes:
    songs: each clip's song.
    frames: int32, its length T.
    stems: int32, S.
    mixes: int32, M.
    target_db: float32, the loudest cell of any stem that may be a target.
    categories: of each stem of each clip, the value of the first source.
  """

  def __init__(self, directory: Path, metadata: Metadata, shards: Sequence[Shard]):
    def column(name: str, dtype: type) -> np.ndarray:
      return np.array([value for shard in shards for value in getattr(shard, name)], dtype)

    self.songs = tuple(song for shard in shards for song in shard.songs)
    self.frames = column("frames", np.int32)
    self.stems, self.mixes = column("stems", np.int32), column("mixes", np.int32)
    self.target_db = column("target_db", np.float32)
    self.categories = tuple(values for shard in shards for values in shard.categories)
    self._first = np.append(0, np.cumsum(self.stems + self.mixes))  # each clip's first record
    self._metadata, self._directory, self._shards = metadata, directory, tuple(shards)
    # The record range in brackets spares the source opening every file to count.
    self._source = ArrayRecordDataSource(
      [f"{directory / shard.file}[0:{shard.n_records}]" for shard in shards]
    )

  def __len__(self) -> int:
    return len(self.songs)

  def __getitem__(self, index: int) -> Clip:
    """Returns a whole clip; raises as `read_row`, and an IndexError past the end."""
    if not -len(self) <= index < len(self):
      raise IndexError(index)
    index %= len(self)
    return join_rows(
      [self.read_row(index, i) for i in range(self.stems[index] + self.mixes[index])]
    )

  def read_row(self, clip: int, row: int) -> Row:
    """Returns a row of a clip: stem `row`, or from S on mix `row - S`.

    Raises:
      UserError: if the file is damaged; the line names it.
    """
    record = int(self._first[clip]) + row
    try:
      found = deserialize_row(self._source[record], self._metadata)
    except (RuntimeError, UserError) as error:
      raise damaged(self._path(record), f"record {record} cannot be read ({error})") from error
    wanted = (self.songs[clip], row, self.frames[clip], self.stems[clip], self.mixes[clip])
    if (found.song, found.row, len(found.codes), found.n_stems, len(found.mix_gain_db)) != wanted:
      raise damaged(self._path(record), f"record {record} is not the one {MANIFEST_FILE} lists")
    return found

  def _path(self, record: int) -> Path:
    """Returns the file that holds a record of the split."""
    ends = np.cumsum([shard.n_records for shard in self._shards])
    return self._directory / self._shards[np.searchsorted(ends, record, side="right")].file


@dataclasses.dataclass(frozen=True)
class Dataset:
  """An opened dataset: its folder, what holds for all records, and its shards by split."""

  path: Path
  metadata: Metadata
  shards: dict[str, tuple[Shard, ...]]

  @classmethod
  def open(cls, path: str | os.PathLike, check_files: bool = True) -> "Dataset":
    """Returns the dataset at `path`: its version folder, or a folder that holds just one dataset.

    Shards are checked for presence and size, unless told not to; `verify` reads them through.

    Raises:
      UserError: if there is none or several, a file is missing or cut short, or the schema differs.
    """
    refuse_bytes(path, "dataset folder")
    directory = find_dataset(Path(path))
    file = directory / MANIFEST_FILE
    try:
      content = json.loads(file.read_text())
      version, splits = content["schema_version"], content["splits"]
      if version != SCHEMA_VERSION:
        raise UserError(
          f"dataset must have schema version {SCHEMA_VERSION}; got {version} in {file}."
          f" Tokenise again: {_command(directory, content)}"
        )
      if not is_sealed(content):
        raise UserError(f"dataset metadata must be whole; got {file}, changed. Copy it again.")
      metadata = Metadata.from_json(content)
      if not (splits and all(splits.values())):
        raise ValueError("a split without shards")
      shards = {split: tuple(Shard.from_json(s) for s in parts) for split, parts in splits.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
      raise UserError(f"dataset metadata must be whole; got {file} ({error!r}).") from error
    for shard in (shard for parts in shards.values() for shard in parts if check_files):
      shard_path = directory / shard.file
      if not shard_path.is_file():
        raise damaged(shard_path, "the file is missing")
      if (size := shard_path.stat().st_size) != shard.size:
        raise damaged(shard_path, f"{size} bytes, {shard.size} were written")
    return cls(directory, metadata, shards)

  @property
  def mix_lufs(self) -> float | None:
    """Returns the median loudness of the mixes that sound; None if none does.

    Of each training clip the median, and the median of these; of every clip if none is for
    training. It is what a model takes for normal: sampling brings a context to it.
    """
    shards = self.shards.get("train") or [s for parts in self.shards.values() for s in parts]
    lufs = [x for shard in shards for x in shard.mix_lufs if x > SILENCE_DB]
    return float(np.median(lufs)) if lufs else None

  def source(self, split: str) -> ClipSource:
    """Returns the clips of a split by index; raises a UserError for an unknown split."""
    if split not in self.shards:
      raise UserError(
        f"split must be one of {', '.join(self.shards)}; got split={split!r} of {self.path}."
      )
    return ClipSource(self.path, self.metadata, self.shards[split])

  def verify(self) -> None:
    """Reads every shard through; raises a UserError naming the first whose SHA-256 differs."""
    for shard in (shard for parts in self.shards.values() for shard in parts):
      if hash_file(self.path / shard.file) != shard.sha256:
        raise damaged(self.path / shard.file, f"its SHA-256 is not that of {MANIFEST_FILE}")


def _command(directory: Path, content: dict[str, Any]) -> str:
  """Returns the command that writes a dataset anew, as far as its manifest tells."""
  made = content.get("settings", {})
  flags = ("mixes", "gain_jitter_db", "augment", "seed", "clip_s")
  own = " ".join(f"--{name} {made[name]}" for name in flags if name in made)
  root, name = directory.parent.parent, directory.parent.name
  return (
    f"python -m data_prep.tokenize --corpus {made.get('corpus', 'CORPUS')} --root MUSIC --codec"
    f" CODEC --out {root} --name {name} {own}".rstrip()
  )


def find_dataset(path: Path) -> Path:
  """Returns the folder under `path` (itself, or one or two levels down) that holds a dataset."""
  found: list[Path] = []
  for pattern in (MANIFEST_FILE, f"*/{MANIFEST_FILE}", f"*/*/{MANIFEST_FILE}"):
    found = found or [
      p.parent for p in sorted(path.glob(pattern)) if not p.parent.name.startswith(".")
    ]
  if len(found) != 1:
    raise UserError(
      f"dataset folder must hold one dataset ({MANIFEST_FILE}); got path={path} with"
      f" {len(found) or 'none'}{': ' + ', '.join(map(str, found)) if found else ''}."
      " Give a folder that data_prep.tokenize wrote."
    )
  return found[0]
