# SPDX-License-Identifier: Apache-2.0
"""AU, Wave64 and CAF: how far a file goes by its own sizes, and what lies behind it."""

import io
import struct
from collections.abc import Callable

from stemgen_jax.audio.headers.view import Mended, Part, is_placeholder, tell_missing


def mend_chunks(part: Part, file: io.BufferedReader, kind: bytes) -> Mended:
  """Finds whether a file is cut, where another one begins, and what its sizes leave out."""
  end = file.seek(0, io.SEEK_END)
  own = _MEASURES[kind](file, end)
  if own is None or (kind in _SIZES and own < end and not _find_next(file, kind, own)):
    patches = _SIZES[kind](file, end) if kind in _SIZES else {}
    return Mended(part.view(patches) if patches else None)
  if own > end:
    return Mended(cut=tell_missing(own - end))
  return Mended(end=_find_next(file, kind, own))


def _find_next(file: io.BufferedReader, kind: bytes, own: int) -> int | None:
  """Returns where another file of its kind begins behind the bytes that are a file's own."""
  for at in (own, own + -own % 8):  # Wave64 may fill up the last chunk
    file.seek(at)
    if file.read(4) == kind:
      return at
  return None


def _read_au(file: io.BufferedReader) -> tuple[str, int, int]:
  """Returns the order of an AU's bytes, where its sound begins, and its size as it says."""
  file.seek(0)
  order = "<" if file.read(4) == b"dns." else ">"
  return order, *struct.unpack(order + "II", file.read(8))


def _measure_au(file: io.BufferedReader, end: int) -> int | None:
  _, start, size = _read_au(file)
  return None if size == 0 or is_placeholder(size) else start + size


def _resize_au(file: io.BufferedReader, end: int) -> dict[int, bytes]:
  """Returns the size of all that follows: AU has nothing but sound behind its header."""
  order, start, _ = _read_au(file)
  return {8: struct.pack(order + "I", min(end - start, 2**32 - 1))} if start < end else {}


def _measure_w64(file: io.BufferedReader, end: int) -> int | None:
  """Source: Sony's Wave64: names of 16 bytes, and sizes that count themselves and their name."""
  file.seek(16)
  (size,) = struct.unpack("<Q", file.read(8))
  return None if size == 0 or is_placeholder(size) else size


def _measure_caf(file: io.BufferedReader, end: int) -> int | None:
  """Source: Apple's Core Audio Format: chunks of a name and a size; -1 goes to the end."""
  at = 8
  while at < end:
    file.seek(at)
    header = file.read(12)
    if header[:4] == b"caff":
      return at
    name, size = struct.unpack(">4sq", header)
    if size < 0 or not all(32 <= byte < 127 for byte in name):
      return None
    at += 12 + size
  return at


def _resize_caf(file: io.BufferedReader, end: int) -> dict[int, bytes]:
  """Returns the size of a sound to the file's end, where no chunks are behind what it says."""
  at = 8
  while at + 12 <= end:
    file.seek(at)
    name, size = struct.unpack(">4sq", file.read(12))
    if name == b"data":
      return {at + 4: struct.pack(">q", end - at - 12)}
    if size < 0:
      break
    at += 12 + size
  return {}


_MEASURES: dict[bytes, Callable[[io.BufferedReader, int], int | None]] = {
  b".snd": _measure_au,
  b"dns.": _measure_au,
  b"riff": _measure_w64,
  b"caff": _measure_caf,
}
_SIZES: dict[bytes, Callable[[io.BufferedReader, int], dict[int, bytes]]] = {
  b".snd": _resize_au,
  b"dns.": _resize_au,
  b"caff": _resize_caf,
}
CHUNKED = tuple(_MEASURES)
