# SPDX-License-Identifier: Apache-2.0
"""AU, Wave64 and CAF: how far a file goes by its own sizes, and what lies behind it."""

import io
import struct
from collections.abc import Callable

from stemgen_jax.audio.headers.view import Mended, is_placeholder, tell_missing


def mend_chunks(file: io.BufferedReader, kind: bytes) -> Mended:
  """Finds whether a file is cut, and where another one of its kind begins behind it."""
  end = file.seek(0, io.SEEK_END)
  own = _MEASURES[kind](file, end)
  if own is None:
    return Mended()
  if own > end:
    return Mended(cut=tell_missing(own - end))
  for at in (own, own + -own % 8):  # Wave64 may fill up the last chunk
    file.seek(at)
    if file.read(4) == kind:
      return Mended(end=at)
  return Mended()


def _measure_au(file: io.BufferedReader, end: int) -> int | None:
  file.seek(4)
  start, size = struct.unpack(">II", file.read(8))
  return None if is_placeholder(size) else start + size


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


_MEASURES: dict[bytes, Callable[[io.BufferedReader, int], int | None]] = {
  b".snd": _measure_au,
  b"riff": _measure_w64,
  b"caff": _measure_caf,
}
CHUNKED = tuple(_MEASURES)
