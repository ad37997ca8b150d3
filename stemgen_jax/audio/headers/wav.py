# SPDX-License-Identifier: Apache-2.0
"""WAV that was joined, or whose sizes are those of a writer that did not know them."""

import io
import re
import struct

from stemgen_jax.audio.headers.view import (
  Mended,
  Part,
  find_bytes,
  find_tags,
  is_placeholder,
  tell_missing,
)

FORMATS = (b"RIFF", b"RF64", b"BW64", b"RIFX")  # the last has its numbers the other way round
_NAMES = (b"LIST", b"JUNK", b"junk", b"FLLR", b"PAD ", b"bext", b"cue ", b"smpl", b"id3 ", b"ID3 ",
          b"fact", b"PEAK", b"iXML", b"acid", b"inst", b"axml", b"_PMX", b"chna", b"bxml", b"sxml",
          b"dbmd", b"cart", b"DISP", b"levl", b"plst", b"umid", b"minf", b"elm1", b"regn", b"SMED",
          b"ResU", b"afsp")  # fmt: skip
_TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICS", b"<?x")  # that some write behind all
_ANY_NAME = re.compile(b"|".join(map(re.escape, _NAMES)))
_MOST_BEHIND = 1 << 24  # bytes at the end of a file among which chunks behind the sound are sought
_MOST_TAGS = 1 << 20
_FIRST_CHUNKS = (b"fmt ", b"JUNK", b"junk", b"bext", b"ds64", b"LIST", b"iXML")


def mend_wav(part: Part, file: io.BufferedReader, kind: bytes) -> Mended:
  """Source: RIFF WAVE; RF64 (EBU Tech 3306) and BW64 (ITU-R BS.2088), which differ in name."""
  patches: dict[int, bytes] = {0: b"RF64"} if kind == b"BW64" else {}
  order = ">" if kind == b"RIFX" else "<"
  end = file.seek(0, io.SEEK_END)
  file.seek(12)
  sizes_at, long_size, align = None, 0, 1
  while len(header := file.read(8)) == 8:
    name, size = struct.unpack(order + "4sI", header)
    start = file.tell()
    if name == b"ds64":  # 64-bit sizes of the file, then of the samples
      sizes_at = start
      long_size = struct.unpack("<QQ", file.read(16))[1]
    elif name == b"fmt ":
      align = max(1, struct.unpack(order + "12xH", file.read(14))[0])
    elif name == b"data":
      if sizes_at is not None and size == 2**32 - 1:
        size = long_size
      there = (end - start) // align * align
      if size <= there:  # and what stands behind it tells whether it is meant
        behind = pass_chunks(file, start + size + size % 2, end, order)
        if behind == end or is_tag(file, start + size):
          break
        if behind is not None:
          return Mended(end=behind)
      elif not is_placeholder(size):
        missing = tell_missing(start + size - end)
        return Mended(part.view(patches) if patches else None, missing)
      if (joined := _find_wav(file, start)) is not None:
        return Mended(end=joined)
      stop = _find_chunks(file, start, end, order)
      if stop == end:
        file.seek(max(start, end - _MOST_TAGS))
        tail = file.read()
        stop = end - len(tail) + find_tags(tail)
      there = (stop - start) // align * align
      if size < there or stop < end:
        patches[start - 4] = struct.pack(order + "I", min(there, 2**32 - 1))
        if sizes_at is not None:
          patches[sizes_at] = struct.pack("<QQ", end - 8, there)
        patches[4] = struct.pack(order + "I", min(end - 8, 2**32 - 1))
      break
    file.seek(start + size + size % 2)
  return Mended(part.view(patches) if patches else None)


def is_tag(file: io.BufferedReader, at: int) -> bool:
  """Whether a tag of another kind of file begins at a place, or behind the byte that fills up."""
  file.seek(at)
  head = file.read(16)
  return head.startswith(_TAGS) or (head[:1] == b"\0" and head[1:].startswith(_TAGS))


def _find_chunks(file: io.BufferedReader, start: int, end: int, order: str) -> int:
  """Returns where the chunks begin that fill a file to its end behind a sound of unknown size.

  It is `end` if there are none: the first must have a usual name, and none may be cut.
  """
  begin = max(start, end - _MOST_BEHIND)
  file.seek(begin)
  for found in _ANY_NAME.finditer(file.read(end - begin)):
    if pass_chunks(file, begin + found.start(), end, order, whole=True) == end:
      return begin + found.start()
  return end


def pass_chunks(
  file: io.BufferedReader, at: int, end: int, order: str, *, whole: bool = False
) -> int | None:
  """Returns `end` if all from a place on can be chunks, a name and a size each, or else None.

  One with a usual name may be cut short, unless all must be `whole`. If a file begins behind some
  of them, returns where. `order` is "<" or ">", of the bytes of a size.
  """
  while at < end:
    file.seek(at)
    header = file.read(12)
    if _is_head(header):
      return at
    if len(header) < 8:
      return end if at > end - 2 or not header.strip(b"\0") else None  # what pads the last chunk
    name, size = struct.unpack(order + "4sI", header[:8])
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
