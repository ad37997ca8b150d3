# SPDX-License-Identifier: Apache-2.0
"""FLAC that says no length or too small a one, as encoders leave it in a pipe, and joined FLAC."""

import functools
import io
import struct

from stemgen_jax.audio.headers.view import Mended, Part, find_bytes, find_tags

MOST_FRAME_BYTES = 1 << 18
_LENGTH_AT = 18  # rate 20, channels 3, bits 5, samples 36 bits
_HEAD = 42  # bytes up to the end of the first block, STREAMINFO


def mend_flac(part: Part, file: io.BufferedReader, whole: bool) -> Mended:
  """Puts the length into a FLAC that says none, or too little, and finds where a joined one begins.

  The length is that of the last frame's number. Unless the `whole` sound is to be read, a FLAC
  that ends as its header says is not searched through.

  Source: the format of FLAC (RFC 9639), sections 8.2 and 9.1.
  """
  file.seek(_LENGTH_AT)
  packed = int.from_bytes(file.read(8), "big")
  said, found = packed & (1 << 36) - 1, _find_length(file)
  if whole or said != found:
    at = _HEAD
    while (next_at := find_bytes(file, b"fLaC", at, _HEAD - 4)) is not None:
      file.seek(next_at)
      head = file.read(8)
      if head[4] & 0x7F == 0 and head[5:] == b"\0\0\x22":  # begins with a STREAMINFO
        return Mended(end=next_at)
      at = next_at + 4
  if found is None or said >= found:
    return Mended()
  return Mended(part.view({_LENGTH_AT: (packed - said + found).to_bytes(8, "big")}))


def _find_length(file: io.BufferedReader) -> int | None:
  """Returns the number of the sample after the last frame; None unless that one is whole."""
  file.seek(10)
  (block_size,) = struct.unpack(">H", file.read(2))
  end = file.seek(0, io.SEEK_END)
  file.seek(max(_HEAD, end - MOST_FRAME_BYTES))
  tail = file.read()
  tail = tail[: find_tags(tail, zeros=True)]
  place = len(tail)
  while (place := tail.rfind(b"\xff", 0, place)) >= 0:
    length = _end_of_flac(tail[place:], block_size)
    if length is not None:
      return length
  return None


def _end_of_flac(frame: bytes, block_size: int) -> int | None:
  """Returns the number of the sample after a frame; None unless the bytes are one whole frame."""
  if len(frame) < 8 or frame[1] & 0xFE != 0xF8:
    return None
  code, rate = frame[2] >> 4, frame[2] & 15
  lead = next((n for n in range(8) if not frame[4] << n & 0x80), 8)  # as UTF-8 counts its bytes
  if code == 0 or lead in (1, 8):
    return None
  count = max(lead, 1)
  number = frame[4] & (0x7F >> lead)
  for byte in frame[5 : 4 + count]:
    number = number << 6 | byte & 0x3F
  at = 4 + count
  own = {1: 192, **{n: 576 << n - 2 for n in range(2, 6)}, **{n: 1 << n for n in range(8, 16)}}
  if code in (6, 7):
    own[code] = int.from_bytes(frame[at : at + code - 5], "big") + 1
    at += code - 5
  at += {12: 1, 13: 2, 14: 2}.get(rate, 0)
  if _crc(frame[:at], 0x07, 8) != frame[at] or _crc(frame, 0x8005, 16):
    return None
  return (number if frame[1] & 1 else number * block_size) + own[code]


def _crc(data: bytes, polynomial: int, bits: int) -> int:
  """Returns the remainder of a cyclic redundancy check, which starts at 0."""
  table, whole, value = _tabulate(polynomial, bits), (1 << bits) - 1, 0
  for byte in data:
    value = (value << 8 ^ table[value >> bits - 8 ^ byte]) & whole
  return value


@functools.cache
def _tabulate(polynomial: int, bits: int) -> tuple[int, ...]:
  """Returns the remainder of each byte."""
  top, whole, rows = 1 << bits - 1, (1 << bits) - 1, []
  for byte in range(256):
    value = byte << bits - 8
    for _ in range(8):
      value = (value << 1 ^ polynomial if value & top else value << 1) & whole
    rows.append(value)
  return tuple(rows)
