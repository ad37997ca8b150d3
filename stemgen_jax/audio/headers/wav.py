# SPDX-License-Identifier: Apache-2.0
"""WAV and AIFF that were joined, or whose sizes are those of a writer that did not know them."""

import io
import re
import struct

from stemgen_jax.audio.headers.view import Mended, Part, find_bytes, is_placeholder, tell_missing

FORMATS = (b"RIFF", b"RF64", b"BW64")
_NAMES = (b"LIST", b"JUNK", b"junk", b"FLLR", b"PAD ", b"bext", b"cue ", b"smpl", b"id3 ", b"ID3 ",
          b"fact", b"PEAK", b"iXML", b"acid", b"inst", b"axml", b"_PMX")  # fmt: skip
_ANY_NAME = re.compile(b"|".join(map(re.escape, _NAMES)))
_MOST_BEHIND = 1 << 24  # bytes at the end of a file among which chunks behind the sound are sought
_FIRST_CHUNKS = (b"fmt ", b"JUNK", b"junk", b"bext", b"ds64", b"LIST", b"iXML")


def mend_wav(part: Part, file: io.BufferedReader, kind: bytes) -> Mended:
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
      if size <= there:  # and what stands behind it tells whether it is meant
        behind = _pass_chunks(file, start + size + size % 2, end)
        if behind == end:
          break
        if behind is not None:
          return Mended(end=behind)
      elif not is_placeholder(size):
        missing = tell_missing(start + size - end)
        return Mended(part.view(patches) if patches else None, missing)
      if (joined := _find_wav(file, start)) is not None:
        return Mended(end=joined)
      stop = _find_chunks(file, start, end)
      there = (stop - start) // align * align
      if size < there or stop < end:
        patches[start - 4] = struct.pack("<I", min(there, 2**32 - 1))
        if sizes_at is not None:
          patches[sizes_at] = struct.pack("<QQ", end - 8, there)
        patches[4] = struct.pack("<I", min(end - 8, 2**32 - 1))
      break
    file.seek(start + size + size % 2)
  return Mended(part.view(patches) if patches else None)


def _find_chunks(file: io.BufferedReader, start: int, end: int) -> int:
  """Returns where the chunks begin that fill a file to its end behind a sound of unknown size.

  It is `end` if there are none: the first must have a usual name, and none may be cut.
  """
  begin = max(start, end - _MOST_BEHIND)
  file.seek(begin)
  for found in _ANY_NAME.finditer(file.read(end - begin)):
    if _pass_chunks(file, begin + found.start(), end, whole=True) == end:
      return begin + found.start()
  return end


def _pass_chunks(file: io.BufferedReader, at: int, end: int, *, whole: bool = False) -> int | None:
  """Returns `end` if all from a place on can be chunks, a name and a size each, or else None.

  One with a usual name may be cut short, unless all must be `whole`. If a file begins behind some
  of them, returns where.
  """
  while at < end:
    file.seek(at)
    header = file.read(12)
    if _is_head(header):
      return at
    if len(header) < 8:
      return end if at > end - 2 or not header.strip(b"\0") else None  # what pads the last chunk
    name, size = struct.unpack("<4sI", header[:8])
    cut = at + 8 + size > end + 1
    if (cut and whole) or (
      name not in _NAMES and (cut or not all(32 <= byte < 127 for byte in name))
    ):
      return None
    at += 8 + size + size % 2
  return end


def _is_head(header: bytes) -> bool:
  return header[:4] in FORMATS and header[8:12] == b"WAVE"


def _find_wav(file: io.BufferedReader, at: int) -> int | None:
  """Returns where another WAV begins in what follows a place, if one does."""
  while (place := find_bytes(file, b"WAVE", at, 8)) is not None:
    file.seek(place - 8)
    header = file.read(16)
    if place - 8 >= at and _is_head(header) and header[12:16] in _FIRST_CHUNKS:
      return place - 8
    at = place + 4
  return None


def mend_aiff(file: io.BufferedReader) -> Mended:
  """Finds how many bytes of sound an AIFF lacks of what it says, and where it was joined."""
  file.seek(4)
  (size,) = struct.unpack(">I", file.read(4))
  file.seek(8 + size + size % 2)
  if (head := file.read(12))[:4] == b"FORM" and head[8:11] == b"AIF":
    return Mended(end=8 + size + size % 2)
  missing = _find_missing_aiff(file)
  return Mended(cut=tell_missing(missing) if missing else None)


def _find_missing_aiff(file: io.BufferedReader) -> int:
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
