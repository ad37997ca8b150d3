# SPDX-License-Identifier: Apache-2.0
"""TensorFlow's checkpoints (TensorBundle) read without TensorFlow.

An `.index` is a LevelDB table that says where each tensor lies in a `.data` file. Knows no model.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from stemgen_jax.errors import UserError

MAGIC = bytes.fromhex("57fb808b247547db")
FOOTER_BYTES = 48
DTYPES = {1: np.dtype("<f4"), 2: np.dtype("<f8"), 3: np.dtype("<i4"), 9: np.dtype("<i8")}


def read_tensors(index: bytes, data: bytes) -> dict[str, np.ndarray]:
  """Returns the tensors of a checkpoint of one shard by their names.

  Checksums are not looked at: compare a digest of the files before.

  Args:
    index: the `.index` file.
    data: the `.data-00000-of-00001` file.

  Raises:
    UserError: if the index is no such table, is compressed, or names what the data lack.
  """
  if index[-len(MAGIC) :] != MAGIC:
    raise UserError(
      f"a checkpoint's index must end as a TensorBundle does; got {index[-len(MAGIC) :].hex()!r}."
      " Give the .index file that TensorFlow wrote."
    )
  footer = index[-FOOTER_BYTES:]
  _, at = _varint(footer, 0)  # the handle of the index of filters: offset and size
  _, at = _varint(footer, at)
  tensors = {}
  for _, handle in _entries(index, *_handle(footer, at)):
    for name, value in _entries(index, *_handle(handle, 0)):
      if name:  # the entry without a name describes the bundle
        tensors[name.decode()] = _tensor(name.decode(), value, data)
  return tensors


def _tensor(name: str, entry: bytes, data: bytes) -> np.ndarray:
  """Returns the tensor that a BundleEntryProto (dtype=1, shape=2, offset=4, size=5) points at."""
  fields: dict[int, Any] = {1: 0, 2: b"", 4: 0, 5: 0} | dict(_fields(entry))
  dims = [dict(_fields(dim)).get(1, 0) for number, dim in _fields(fields[2]) if number == 2]
  dtype, start, size = DTYPES.get(fields[1]), fields[4], fields[5]
  if dtype is None or size != dtype.itemsize * int(np.prod(dims)) or start + size > len(data):
    raise UserError(
      f"tensor {name} must be plain numbers that the data file holds; got dtype={fields[1]},"
      f" shape={dims} and bytes {start} to {start + size} of {len(data)}. Copy both files again."
    )
  return np.frombuffer(data, dtype, size // dtype.itemsize, start).reshape(dims)


def _entries(table: bytes, start: int, size: int) -> Iterator[tuple[bytes, bytes]]:
  """Yields the keys and values of a block; a key gives only how it differs from the one before."""
  block, kind = table[start : start + size], table[start + size]
  if kind:
    raise UserError(
      f"a checkpoint's index must not be compressed; got compression={kind}."
      " Write it again with TensorFlow's own Saver."
    )
  restarts = int.from_bytes(block[-4:], "little")
  end, at, key = size - 4 - 4 * restarts, 0, b""
  while at < end:
    shared, at = _varint(block, at)
    fresh, at = _varint(block, at)
    length, at = _varint(block, at)
    key = key[:shared] + block[at : at + fresh]
    at += fresh
    yield key, block[at : at + length]
    at += length


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
  """Yields the field numbers and values, whole numbers or bytes, of a protocol buffer."""
  at = 0
  while at < len(message):
    tag, at = _varint(message, at)
    match tag & 7:
      case 0:
        value, at = _varint(message, at)
      case 2:
        length, at = _varint(message, at)
        value, at = message[at : at + length], at + length
      case 5:
        value, at = message[at : at + 4], at + 4
      case kind:
        raise UserError(
          f"a checkpoint's index must hold BundleEntryProtos; got wire type {kind}."
          " Copy the .index file again."
        )
    yield tag >> 3, value


def _handle(message: bytes, at: int) -> tuple[int, int]:
  """Returns the offset and the size of a block."""
  start, at = _varint(message, at)
  return start, _varint(message, at)[0]


def _varint(message: bytes, at: int) -> tuple[int, int]:
  """Returns a number of seven bits a byte, lowest first, and where it ends."""
  value = shift = 0
  while True:
    byte = message[at]
    value |= (byte & 127) << shift
    at, shift = at + 1, shift + 7
    if byte < 128:
      return value, at
