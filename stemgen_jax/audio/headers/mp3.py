# SPDX-License-Identifier: Apache-2.0
"""MP3 without a Xing header, or with one that counts only some of its frames."""

import dataclasses
import io
import struct

from stemgen_jax.audio.headers.view import Mended, Part

_RATES_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_KBPS_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)  # MPEG 1, layer 3
_KBPS_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)  # MPEG 2 and 2.5
_FRAMES_FLAG = 1  # of a Xing header: it says how many frames there are


def skip_id3(file: io.BufferedReader, start: bytes) -> int:
  """Returns where an MP3 begins, behind the tags at its head."""
  at = 0
  while start[:3] == b"ID3" and len(start) >= 10:
    size = sum(byte << 7 * (3 - i) for i, byte in enumerate(start[6:10]))
    at += 10 + size + (10 if start[5] & 16 else 0)
    file.seek(at)
    start = file.read(12)
  return at


@dataclasses.dataclass(frozen=True)
class Frame:
  """A frame of an MP3: its bytes, and where in it a Xing header would lie."""

  header: bytes
  size: int
  tag_at: int


def read_frame(file: io.BufferedReader, at: int) -> Frame | None:
  """Returns the frame of MPEG 1, 2 or 2.5, layer 3, that begins at a place; None if none does."""
  file.seek(at)
  header = file.read(4)
  if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
    return None
  version, bit_rate, rate = header[1] >> 3 & 3, header[2] >> 4, header[2] >> 2 & 3
  if version == 1 or rate == 3 or bit_rate in (0, 15):
    return None
  first, mono = version == 3, header[3] >> 6 == 3
  kbps = (_KBPS_1 if first else _KBPS_2)[bit_rate]
  samples_by_8 = 144 if first else 72
  size = samples_by_8 * 1000 * kbps // _RATES_HZ[version][rate] + (header[2] >> 1 & 1)
  side = (17 if mono else 32) if first else (9 if mono else 17)
  return Frame(header, size, 4 + side)


def mend_mp3(part: Part, file: io.BufferedReader, first_at: int) -> Mended:
  """Puts a Xing header with the number of frames before an MP3 that lacks one, or has a wrong one.

  A reader without it takes the bit rate of the first frame for that of all.
  """
  at, count, first = first_at, 0, read_frame(file, first_at)
  end = file.seek(0, io.SEEK_END)
  while at < end:
    frame = read_frame(file, at)
    if frame is None:  # a tag, or where two files were joined
      found = _find_frame(file, at + 1, end)
      if found is None:
        break
      at = found
      continue
    count, at = count + 1, at + frame.size
  if first is None or not count:
    return Mended()
  file.seek(first_at)
  content = file.read(first.size)
  tag = content[first.tag_at :]
  if tag[:4] in (b"Xing", b"Info"):
    flags, said = struct.unpack(">II", tag[4:12])
    if not flags & _FRAMES_FLAG or said == count - 1:
      return Mended()
    if said > count:
      return Mended(cut=f"it has {count - 1} of the {said} frames that its header tells of")
    return Mended(part.view({first_at + first.tag_at + 8: struct.pack(">I", count - 1)}))
  if content[36:40] == b"VBRI":
    return Mended()
  xing = b"Xing" + struct.pack(">II", _FRAMES_FLAG, count)
  before = (first.header + bytes(first.tag_at - 4) + xing).ljust(first.size, b"\0")
  if len(before) > first.size:  # too small a frame to hold one
    return Mended()
  return Mended(part.view({}, before, skip=first_at))


def _find_frame(file: io.BufferedReader, at: int, end: int) -> int | None:
  """Returns where the next frame begins that another one follows, if there is one."""
  size = 1 << 16
  while at < end:
    file.seek(at)
    block = file.read(size)
    place = block.find(b"\xff")
    while place >= 0:
      frame = read_frame(file, at + place)
      if frame is not None:
        after = at + place + frame.size
        if after >= end or read_frame(file, after) is not None:
          return at + place
      place = block.find(b"\xff", place + 1)
    at += len(block)
  return None
