# SPDX-License-Identifier: Apache-2.0
"""WAV and AIFF whose sizes are those of a writer that did not know them yet."""

import io
import struct
from pathlib import Path
from typing import BinaryIO

from stemgen_jax.audio.headers.view import Mended, is_placeholder, view

FORMATS = (b"RIFF", b"RF64", b"BW64")
_NAMES = (b"LIST", b"JUNK", b"junk", b"FLLR", b"PAD ", b"bext", b"cue ", b"smpl", b"id3 ", b"ID3 ",
          b"fact", b"PEAK", b"iXML", b"acid", b"inst", b"axml", b"_PMX")  # fmt: skip


def mend_wav(path: Path, file: BinaryIO, kind: bytes) -> Mended:
  """Source: RIFF WAVE; RF64 (EBU Tech 3306) and BW64 (ITU-R BS.2088), which differ in name."""
  patches: dict[int, bytes] = {0: b"RF64"} if kind == b"BW64" else {}
  end = file.seek(0, io.SEEK_END)
  file.seek(12)
  sizes_at, long_size, align = None, 0, 1
  while len(header := file.read(8)) == 8:
    name, size = struct.unpack("<4sI", header)
    start = file.tell()
    if name == b"ds64":  # 64-bit sizes of the file, then of the samples
      sizes_at = start
      long_size = struct.unpack("<QQ", file.read(16))[1]
    elif name == b"fmt ":
      align = max(1, struct.unpack("<12xH", file.read(14))[0])
    elif name == b"data":
      if sizes_at is not None and size == 2**32 - 1:
        size = long_size
      there = (end - start) // align * align
      if size > there:
        missing = 0 if is_placeholder(size) else start + size - end
        return Mended(view(path, patches) if patches else None, missing)
      if size < there and not _are_chunks(file, start + size + size % 2, end):
        patches[start - 4] = struct.pack("<I", min(there, 2**32 - 1))
        if sizes_at is not None:
          patches[sizes_at] = struct.pack("<QQ", end - 8, there)
        patches[4] = struct.pack("<I", min(end - 8, 2**32 - 1))
      return Mended(view(path, patches) if patches else None)
    file.seek(start + size + size % 2)
  return Mended(view(path, patches) if patches else None)


def _are_chunks(file: BinaryIO, at: int, end: int) -> bool:
  """Whether all that follows the sound, up to the end, can be chunks: a name and a size each.

  One with a usual name may be cut short.
  """
  while at < end:
    file.seek(at)
    header = file.read(8)
    if len(header) < 8:
      return at > end - 2 or not header.strip(b"\0")  # what pads the last chunk
    name, size = struct.unpack("<4sI", header)
    if name not in _NAMES and (
      not all(32 <= byte < 127 for byte in name) or at + 8 + size > end + 1
    ):
      return False
    at += 8 + size + size % 2
  return True


def find_missing_aiff(file: BinaryIO) -> int:
  """Returns how many bytes of sound an AIFF file lacks of what its header says."""
  file.seek(12)
  while len(header := file.read(8)) == 8:
    name, size = struct.unpack(">4sI", header)
    start = file.tell()
    if name == b"SSND":
      there = file.seek(0, io.SEEK_END)
      return 0 if size == 0 or is_placeholder(size) else max(0, start + size - there)
    file.seek(start + size + size % 2)
  return 0
