# SPDX-License-Identifier: Apache-2.0
"""The token-shard format on disk: how a dataset is written, found, checked and opened.

A dataset is a TensorFlow Datasets folder of ArrayRecord shards (the records are `clips.Clip`), made
and read without TensorFlow, with one more file, `stemgen.json`: the codec, the condition sources,
and every shard's size, SHA-256, songs and lengths.
"""

import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter

from stemgen_jax.clips import Clip, Metadata, build_features, deserialize_clip, serialize_clip
from stemgen_jax.errors import UserError

SCHEMA_VERSION = 1
VERSION = f"{SCHEMA_VERSION}.0.0"  # the version folder of TFDS
METADATA_FILE = "stemgen.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
  """One file of a split: its size in bytes, checksum, and each record's song and frame count."""

  file: str
  size: int
  sha256: str
  songs: tuple[str, ...]
  frames: tuple[int, ...]


def dataset_folder(root: str | os.PathLike, name: str) -> Path:
  """Returns `root/name/VERSION`; raises a UserError if TFDS could not have the name."""
  if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
    raise UserError(
      f"dataset name must match [a-z][a-z0-9_]*; got name={name!r}. Choose another name."
    )
  return Path(root) / name / VERSION


def write_dataset(
  root: str | os.PathLike,
  name: str,
  metadata: Metadata,
  splits: Mapping[str, Sequence[Iterable[Clip]]],
) -> Path:
  """Writes a dataset to `root/name/VERSION` and returns that folder; it appears whole.

  Args:
    root: the folder that holds datasets.
    name: lower-case letters, digits and underscores.
    metadata: what holds for every record.
    splits: split name -> for each shard, its clips (may be generators: one clip is held at a time).

  Raises:
    UserError: if the name cannot be used, the dataset exists, or a clip breaks the format.
  """
  directory = dataset_folder(root, name)
  if directory.exists():
    raise UserError(f"dataset folder must be new; got {directory}. Remove it or change the name.")
  partial = directory.with_name(f".{VERSION}.partial")
  shutil.rmtree(partial, ignore_errors=True)
  partial.mkdir(parents=True)
  shards: dict[str, list[Shard]] = {}
  for split, parts in splits.items():
    for i, clips in enumerate(parts):
      file = f"{name}-{split}.array_record-{i:05d}-of-{len(parts):05d}"
      shards.setdefault(split, []).append(write_shard(partial / file, clips, metadata))
  template = tfds.core.ShardedFileTemplate(
    data_dir=partial, dataset_name=name, filetype_suffix="array_record"
  )
  tfds.folder_dataset.write_metadata(
    data_dir=os.fspath(partial),
    features=build_features(metadata.n_levels, len(metadata.sources)),
    split_infos=[
      tfds.core.SplitInfo(
        name=split,
        shard_lengths=[len(shard.frames) for shard in parts],
        num_bytes=sum(shard.size for shard in parts),
        filename_template=template.replace(split=split),
      )
      for split, parts in shards.items()
    ],
    version=VERSION,
    check_data=False,  # the check needs TensorFlow
    description=f"EnCodec tokens of stems and context mixes; see {METADATA_FILE}.",
  )
  content = {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(metadata)}
  content["splits"] = {
    split: [dataclasses.asdict(shard) for shard in parts] for split, parts in shards.items()
  }
  (partial / METADATA_FILE).write_text(json.dumps(content, indent=1) + "\n")
  os.replace(partial, directory)
  return directory


def write_shard(path: Path, clips: Iterable[Clip], metadata: Metadata) -> Shard:
  """Writes clips to one new file; returns its entry for the metadata file."""
  writer = ArrayRecordWriter(os.fspath(path), "group_size:1")  # one record a chunk: random access
  songs, frames = [], []
  for clip in clips:
    writer.write(serialize_clip(clip, metadata))
    songs.append(clip.song)
    frames.append(clip.stem_codes.shape[1])
  writer.close()
  return Shard(
    file=path.name,
    size=path.stat().st_size,
    sha256=hash_file(path),
    songs=tuple(songs),
    frames=tuple(frames),
  )


def read_clips(path: Path, metadata: Metadata) -> Iterator[Clip]:
  """Yields the clips of one file in order; raises a UserError that names it if it is damaged."""
  try:
    for data in ArrayRecordDataSource([os.fspath(path)]):
      yield deserialize_clip(data, metadata)
  except (RuntimeError, UserError) as error:
    raise damaged(path, str(error)) from error


def hash_file(path: Path) -> str:
  """Returns the SHA-256 of a file, in hexadecimal."""
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


class ClipSource:
  """The clips of one split by index; opens its files when first read, so it pickles.

  Attributes:
    songs: each record's song.
    frames: each record's length.
  """

  def __init__(self, directory: Path, metadata: Metadata, shards: Sequence[Shard]):
    self.songs = tuple(song for shard in shards for song in shard.songs)
    self.frames = tuple(n for shard in shards for n in shard.frames)
    self._metadata = metadata
    self._paths = [directory / shard.file for shard in shards for _ in shard.frames]
    # The record range in brackets spares the source opening every file to count.
    self._source = ArrayRecordDataSource(
      [f"{directory / shard.file}[0:{len(shard.frames)}]" for shard in shards]
    )

  def __len__(self) -> int:
    return len(self.frames)

  def __getitem__(self, index: int) -> Clip:
    """Returns a clip; raises a UserError naming its file if the file is damaged."""
    try:
      clip = deserialize_clip(self._source[index], self._metadata)
    except (RuntimeError, UserError) as error:
      raise damaged(self._paths[index], f"record {index} cannot be read ({error})") from error
    if clip.song != self.songs[index] or clip.stem_codes.shape[1] != self.frames[index]:
      raise damaged(self._paths[index], f"record {index} is not the one {METADATA_FILE} lists")
    return clip


def damaged(path: Path, what: str) -> UserError:
  """Returns the error for a file that is not as it was written."""
  return UserError(f"shard must be whole; got {path}: {what}. Copy or tokenise it again.")


@dataclasses.dataclass(frozen=True)
class Dataset:
  """An opened dataset: its folder, what holds for all records, and its shards by split."""

  path: Path
  metadata: Metadata
  shards: dict[str, tuple[Shard, ...]]

  @classmethod
  def open(cls, path: str | os.PathLike) -> "Dataset":
    """Returns the dataset at `path`: its version folder, or a folder that holds just one dataset.

    Shards are checked for presence and size; `verify` reads them through.

    Raises:
      UserError: if there is none or several, a file is missing or cut short, or the schema differs.
    """
    directory = find_dataset(Path(path))
    file = directory / METADATA_FILE
    try:
      content = json.loads(file.read_text())
      version, splits = content["schema_version"], content["splits"]
      if version != SCHEMA_VERSION:
        raise UserError(
          f"dataset must have schema version {SCHEMA_VERSION}; got {version} in {file}."
          " Tokenise again, or use the release that wrote it."
        )
      fields = {f.name: content[f.name] for f in dataclasses.fields(Metadata)}
      fields["sources"] = {name: tuple(values) for name, values in fields["sources"].items()}
      metadata = Metadata(**fields)
      shards = {split: tuple(_read_shard(s) for s in parts) for split, parts in splits.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
      raise UserError(f"dataset metadata must be whole; got {file} ({error!r}).") from error
    for shard in (shard for parts in shards.values() for shard in parts):
      shard_path = directory / shard.file
      if not shard_path.is_file():
        raise damaged(shard_path, "the file is missing")
      if (size := shard_path.stat().st_size) != shard.size:
        raise damaged(shard_path, f"{size} bytes, {shard.size} were written")
    return cls(directory, metadata, shards)

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
        raise damaged(self.path / shard.file, f"its SHA-256 is not that of {METADATA_FILE}")


def _read_shard(entry: dict[str, Any]) -> Shard:
  return Shard(**{**entry, "songs": tuple(entry["songs"]), "frames": tuple(entry["frames"])})


def find_dataset(path: Path) -> Path:
  """Returns the folder under `path` (itself, or one or two levels down) that holds a dataset."""
  found: list[Path] = []
  for pattern in (METADATA_FILE, f"*/{METADATA_FILE}", f"*/*/{METADATA_FILE}"):
    found = found or [
      p.parent for p in sorted(path.glob(pattern)) if not p.parent.name.startswith(".")
    ]
  if len(found) != 1:
    raise UserError(
      f"dataset folder must hold one dataset ({METADATA_FILE}); got path={path} with"
      f" {len(found) or 'none'}{': ' + ', '.join(map(str, found)) if found else ''}."
      " Give a folder that data_prep.tokenize wrote."
    )
  return found[0]
