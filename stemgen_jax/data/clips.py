# SPDX-License-Identifier: Apache-2.0
"""A clip of a song as tokens, and its records: one for each of its rows, a stem or a context mix.

A training example needs two rows, so a record is one row: twenty seconds of one stem do not cost
the reading of a whole song. The bytes are a `tf.train.Example` that TensorFlow Datasets reads, made
and read without TensorFlow. Files and folders are the business of `records`.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf.message import DecodeError
from jaxtyping import Bool, Float16, Int32, UInt16
from tensorflow_datasets.proto import tf_example_pb2

from stemgen_jax.errors import UserError

UNKNOWN = -1  # a condition that is not known
SILENCE_DB = -120.0  # the level stored for digital silence
ABSENT_DB = -np.inf  # the gain of a stem that a mix leaves out, and the loudness of silence
_Example: Any = vars(tf_example_pb2)["Example"]  # protobuf makes the class at run time
ACTIVITY_EDGES = (0.35, 0.65, 0.9)  # shares of the window at which the next value begins


@dataclasses.dataclass(kw_only=True)
class Header:
  """What all rows of a clip share: small, so each record carries it whole.

  Axes: S stems, M mixes, C sources, and cells of `level_frames` frames. A row of `mix_gain_db` that
  is ABSENT_DB throughout is silence, of loudness ABSENT_DB.
  """

  song: str
  clip: int  # its index in the song
  start_frame: int
  stem_conditions: Int32[np.ndarray, "S C"]
  stem_level_db: Float16[np.ndarray, "S cells"]
  mix_gain_db: Float16[np.ndarray, "M S"]
  mix_lufs: Float16[np.ndarray, " M"]

  @property
  def n_stems(self) -> int:
    """Returns S."""
    return len(self.stem_conditions)

  @property
  def n_rows(self) -> int:
    """Returns S + M."""
    return self.n_stems + len(self.mix_gain_db)

  @property
  def mix_members(self) -> Bool[np.ndarray, "M S"]:
    """Returns which stems each mix sums."""
    return self.mix_gain_db > ABSENT_DB

  @property
  def targets(self) -> Bool[np.ndarray, " S"]:
    """Returns which stems may be targets: those of which every condition is known."""
    return (self.stem_conditions != UNKNOWN).all(1)

  @property
  def target_db(self) -> float:
    """Returns the level of the loudest cell of any stem that may be a target."""
    return float(self.stem_level_db[self.targets].max(initial=SILENCE_DB))

  @property
  def median_lufs(self) -> float:
    """Returns the median loudness of the mixes that sound; SILENCE_DB if none does."""
    lufs = self.mix_lufs[self.mix_lufs > ABSENT_DB].astype(np.float64)
    return float(np.median(lufs)) if len(lufs) else SILENCE_DB


@dataclasses.dataclass(kw_only=True)
class Row(Header):
  """One record: a stem (`row` below S) or a context mix (S and above) of a clip."""

  row: int
  codes: UInt16[np.ndarray, "T Q"]


@dataclasses.dataclass(kw_only=True)
class Clip(Header):
  """All rows of a clip: its stems, then its context mixes."""

  stem_codes: UInt16[np.ndarray, "S T Q"]
  mix_codes: UInt16[np.ndarray, "M T Q"]

  def rows(self) -> Iterator[Row]:
    """Yields the rows in order."""
    shared = {f.name: getattr(self, f.name) for f in dataclasses.fields(Header)}
    for row, codes in enumerate((*self.stem_codes, *self.mix_codes)):
      yield Row(row=row, codes=codes, **shared)


def join_rows(rows: Sequence[Row]) -> Clip:
  """Returns the clip of all its rows in order.

  Raises:
    UserError: if rows are missing, or of different clips.
  """
  first = rows[0]
  shared = {f.name: getattr(first, f.name) for f in dataclasses.fields(Header)}
  places = [(row.song, row.clip, row.row, row.codes.shape) for row in rows]
  if places != [(first.song, first.clip, i, first.codes.shape) for i in range(first.n_rows)]:
    raise UserError(
      f"a clip must have its {first.n_rows} rows in order; got rows {[p[2] for p in places]} from"
      f" clip {first.clip} of song {first.song!r} on. Tokenise it again."
    )
  codes = np.stack([row.codes for row in rows])
  return Clip(stem_codes=codes[: first.n_stems], mix_codes=codes[first.n_stems :], **shared)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metadata:
  """What holds for every record of a dataset.

  Attributes:
    codec_fingerprint: SHA-256 of the codec bundle that made the codes.
    n_levels: Q; a stereo codec's levels are just more levels.
    n_codes: V.
    sources: condition name -> its values, in the order of the columns of `stem_conditions`.
    level_frames: frames in a cell of the loudness grid.
    clip_s: the longest a clip may be.
    settings: how the dataset was made; for the reader, nothing depends on it.
  """

  codec_fingerprint: str
  n_levels: int
  n_codes: int
  frame_rate_hz: float
  sample_rate_hz: int
  channels: int
  sources: dict[str, tuple[str, ...]]
  level_frames: int
  clip_s: float
  settings: dict[str, Any] = dataclasses.field(default_factory=dict)

  @classmethod
  def from_json(cls, content: dict[str, Any]) -> "Metadata":
    """Returns what a manifest says.

    Raises:
      KeyError, TypeError, ValueError, AttributeError: if a field is missing, or of another kind.
    """
    fields = {f.name: content[f.name] for f in dataclasses.fields(cls)}
    fields["sources"] = {name: tuple(values) for name, values in fields["sources"].items()}
    found = cls(**fields)
    whole = ("n_levels", "n_codes", "sample_rate_hz", "channels", "level_frames")
    kinds = [
      *((is_count(fields[name]) and fields[name] > 0, name) for name in whole),
      *((is_number(x := fields[n]) and 0 < x < math.inf, n) for n in ("frame_rate_hz", "clip_s")),
      (isinstance(found.codec_fingerprint, str), "codec_fingerprint"),
      (isinstance(found.settings, dict), "settings"),
      (all(isinstance(x, str) for values in found.sources.values() for x in values), "sources"),
    ]
    if wrong := [name for kept, name in kinds if not kept]:
      raise ValueError(f"{wrong[0]}={fields[wrong[0]]!r}")
    return found


def is_count(value: Any, most: int = 2**31) -> bool:
  """Returns whether a value of JSON is a whole number from 0 on, below `most`."""
  return type(value) is int and 0 <= value < most


def is_number(value: Any) -> bool:
  """Returns whether a value of JSON is a number."""
  return type(value) in (int, float) and not math.isnan(value)


@functools.cache
def build_features(n_levels: int, n_sources: int) -> tfds.features.FeaturesDict:
  """Returns the TFDS features of a record with Q levels and C condition sources."""

  def tensor(*shape: int | None, dtype: Any) -> tfds.features.Tensor:
    return tfds.features.Tensor(shape=shape, dtype=dtype, encoding="bytes")

  return tfds.features.FeaturesDict(
    {
      "song": tfds.features.Text(),
      "clip": np.int64,
      "row": np.int64,
      "start_frame": np.int64,
      "codes": tensor(None, n_levels, dtype=np.uint16),
      "stem_conditions": tensor(None, n_sources, dtype=np.int32),
      "stem_level_db": tensor(None, None, dtype=np.float16),
      "mix_gain_db": tensor(None, None, dtype=np.float16),
      "mix_lufs": tensor(None, dtype=np.float16),
    }
  )


def serialize_row(row: Row, metadata: Metadata) -> bytes:
  """Returns a row as a `tf.train.Example`, the same bytes for the same row."""
  features = build_features(metadata.n_levels, len(metadata.sources))
  fields = {f.name: getattr(row, f.name) for f in dataclasses.fields(row)}
  example = _Example.FromString(features.serialize_example(fields))
  return example.SerializeToString(deterministic=True)  # protobuf maps have no order of their own


def deserialize_row(data: bytes, metadata: Metadata) -> Row:
  """Returns the row in a serialized `tf.train.Example`; its arrays are read-only views.

  By hand: TFDS's own reading of the same bytes takes five times as long.

  Raises:
    UserError: if the bytes are no row of this format.
  """
  try:
    feature = _Example.FromString(data).features.feature

    def number(name: str) -> int:
      return feature[name].int64_list.value[0]

    def array(name: str, dtype: type, *shape: int) -> np.ndarray:
      return np.frombuffer(feature[name].bytes_list.value[0], dtype).reshape(shape)

    conditions = array("stem_conditions", np.int32, -1, len(metadata.sources))
    stems = len(conditions)
    return Row(
      song=feature["song"].bytes_list.value[0].decode(),
      clip=number("clip"),
      row=number("row"),
      start_frame=number("start_frame"),
      codes=array("codes", np.uint16, -1, metadata.n_levels),
      stem_conditions=conditions,
      stem_level_db=array("stem_level_db/value", np.float16, stems, -1),
      mix_gain_db=array("mix_gain_db/value", np.float16, -1, stems),
      mix_lufs=array("mix_lufs", np.float16, -1),
    )
  except (DecodeError, IndexError, ValueError) as error:
    raise UserError(f"record must be a row; got {len(data)} bytes ({error}).") from error


def check_clip(clip: Clip, metadata: Metadata) -> None:
  """Raises a UserError that names the first field of the clip that breaks the format."""
  stems, frames = clip.stem_codes.shape[:2]
  mixes, levels = len(clip.mix_codes), metadata.n_levels
  cells = -(-frames // metadata.level_frames)
  expected = {
    "stem_codes": ((stems, frames, levels), np.uint16),
    "stem_conditions": ((stems, len(metadata.sources)), np.int32),
    "stem_level_db": ((stems, cells), np.float16),
    "mix_codes": ((mixes, frames, levels), np.uint16),
    "mix_gain_db": ((mixes, stems), np.float16),
    "mix_lufs": ((mixes,), np.float16),
  }
  name = f"clip {clip.clip} of song {clip.song!r}"
  if not (mixes and stems and frames):
    raise UserError(
      f"{name} must hold a stem, a frame and a mix; got stems={stems}, frames={frames},"
      f" mixes={mixes}."
    )
  for field, (shape, dtype) in expected.items():
    array = getattr(clip, field)
    if array.shape != shape or array.dtype != dtype:
      raise UserError(
        f"{field} of {name} must be {np.dtype(dtype)} {shape}; got {array.dtype} {array.shape}."
      )
  for field in ("stem_codes", "mix_codes"):
    if (largest := getattr(clip, field).max(initial=0)) >= metadata.n_codes:
      raise UserError(f"{field} of {name} must be below {metadata.n_codes}; got {largest}.")
  sizes = np.array([len(values) for values in metadata.sources.values()])
  if ((clip.stem_conditions < UNKNOWN) | (clip.stem_conditions >= sizes)).any():
    raise UserError(f"stem_conditions of {name} must index {list(metadata.sources)}.")
  if np.isnan(clip.mix_gain_db).any() or (clip.mix_gain_db == np.inf).any():
    raise UserError(f"mix_gain_db of {name} must be dB, or -inf; got {clip.mix_gain_db}.")
  if np.isnan(clip.mix_lufs).any() or (clip.mix_lufs == np.inf).any():
    raise UserError(f"mix_lufs of {name} must be LUFS, or -inf; got {clip.mix_lufs}.")
  if not np.isfinite(clip.stem_level_db).all() or (clip.stem_level_db < SILENCE_DB).any():
    raise UserError(f"stem_level_db of {name} must be at least {SILENCE_DB} dB and finite.")
