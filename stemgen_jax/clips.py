# SPDX-License-Identifier: Apache-2.0
"""One record of a token dataset: a clip of a song as tokens, and its bytes.

The bytes are a `tf.train.Example` that TensorFlow Datasets reads, made and read without TensorFlow.
Files and folders are the business of `records`.
"""

import dataclasses
import functools
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf.message import DecodeError
from jaxtyping import Bool, Float16, Int32, UInt16
from tensorflow_datasets.proto import tf_example_pb2

from stemgen_jax.errors import UserError

UNKNOWN = -1  # a condition that is not known
SILENCE_DB = -120.0  # the level stored for digital silence


@dataclasses.dataclass(kw_only=True)
class Clip:
  """One record: a stretch of a song as tokens, its stems and the context mixes made of them.

  Axes: S stems, M mixes, T frames, Q levels, C sources, and cells of `level_frames` frames.
  Rows of `mix_members` that are all False are silence. M is at least 2, also for a song of one
  stem (silence twice): TFDS cannot read back a two-axis array of a single byte.
  """

  song: str
  clip: int
  start_frame: int
  stem_codes: UInt16[np.ndarray, "S T Q"]
  stem_conditions: Int32[np.ndarray, "S C"]
  stem_level_db: Float16[np.ndarray, "S cells"]
  mix_codes: UInt16[np.ndarray, "M T Q"]
  mix_members: Bool[np.ndarray, "M S"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metadata:
  """What holds for every record of a dataset.

  Attributes:
    codec_fingerprint: SHA-256 of the codec bundle that made the codes.
    n_levels: Q; a stereo codec's levels are just more levels.
    n_codes: V.
    sources: condition name -> its values, in the order of the columns of `stem_conditions`.
    level_frames: frames in a cell of the loudness grid.
    clip_s: the longest a record may be.
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


@functools.cache
def build_features(n_levels: int, n_sources: int) -> tfds.features.FeaturesDict:
  """Returns the TFDS features of a record with Q levels and C condition sources."""

  def tensor(*shape: int | None, dtype: Any) -> tfds.features.Tensor:
    return tfds.features.Tensor(shape=shape, dtype=dtype, encoding="bytes")

  return tfds.features.FeaturesDict(
    {
      "song": tfds.features.Text(),
      "clip": np.int64,
      "start_frame": np.int64,
      "stem_codes": tensor(None, None, n_levels, dtype=np.uint16),
      "stem_conditions": tensor(None, n_sources, dtype=np.int32),
      "stem_level_db": tensor(None, None, dtype=np.float16),
      "mix_codes": tensor(None, None, n_levels, dtype=np.uint16),
      "mix_members": tensor(None, None, dtype=np.bool_),
    }
  )


def serialize_clip(clip: Clip, metadata: Metadata) -> bytes:
  """Returns a clip as a `tf.train.Example`, the same bytes for the same clip.

  Raises:
    UserError: if the clip's shapes or values break the format.
  """
  check_clip(clip, metadata)
  features = build_features(metadata.n_levels, len(metadata.sources))
  fields = {f.name: getattr(clip, f.name) for f in dataclasses.fields(clip)}
  example = tf_example_pb2.Example.FromString(features.serialize_example(fields))
  return example.SerializeToString(deterministic=True)  # protobuf maps have no order of their own


def deserialize_clip(data: bytes, metadata: Metadata) -> Clip:
  """Returns the clip in a serialized `tf.train.Example`; its arrays are read-only views.

  Raises:
    UserError: if the bytes are no clip of this format.
  """
  features = build_features(metadata.n_levels, len(metadata.sources))
  try:
    fields = features.deserialize_example_np(data)
    return Clip(**{**fields, "song": fields["song"].decode()})
  except (DecodeError, AttributeError, KeyError, TypeError, ValueError) as error:
    raise UserError(f"record must be a clip; got {len(data)} bytes ({error}).") from error


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
    "mix_members": ((mixes, stems), np.bool_),
  }
  name = f"clip {clip.clip} of song {clip.song!r}"
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
  if mixes < 2 or not stems or not frames:
    raise UserError(
      f"{name} must hold a stem, a frame and two mixes; got stems={stems}, frames={frames},"
      f" mixes={mixes}."
    )
