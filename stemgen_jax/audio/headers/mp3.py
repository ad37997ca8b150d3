# SPDX-License-Identifier: Apache-2.0
"""MP3 without a Xing header, or with one that counts only some of its frames or bytes."""

import dataclasses
import io
import struct

from stemgen_jax.audio.headers.view import Mended, Part, tell_missing

_RATES_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_KBPS_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)  # MPEG 1, layer 3
_KBPS_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)  # MPEG 2 and 2.5
_BYTES_OFF = 0.005  # share of an MP3 by which a Xing header's number of bytes may be wrong
_FRAMES_FLAG, _BYTES_FLAG = 1, 2  # of a Xing header: it says how many frames or bytes there are


def skip_tags(file: io.BufferedReader, at: int) -> int:
  """Returns where tags that begin at a place end: ID3, and the 128 bytes of its first version."""
  while True:
    file.seek(at)
    start = file.read(10)
    if start[:3] == b"TAG":
      at += 128
    elif start[:3] == b"ID3" and len(start) == 10:
      size = sum(byte << 7 * (3 - i) for i, byte in enumerate(start[6:10]))
      at += 10 + size + (10 if start[5] & 16 else 0)
    else:
      return at


@dataclasses.dataclass(frozen=True)
class Frame:
  """A frame of an MP3: its bytes, where in it a Xing header would lie, what all frames share."""

  header: bytes
  size: int
  tag_at: int
  kind: tuple[int, int, bool]  # MPEG's version, the rate, whether it is mono


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
  return Frame(header, size, 4 + side, (version, rate, mono))


def mend_mp3(part: Part, file: io.BufferedReader, first_at: int) -> Mended:
  """Puts a Xing header with the number of frames before an MP3 that lacks one, or has a wrong one.

  A reader without it takes the bit rate of the first frame for that of all. Where frames of
  another kind follow, or behind bytes that are none, another file begins: a reader that looks for
  the next frame by itself can miss all that follow.
  """
  at, count, first = first_at, 0, read_frame(file, first_at)
  end = file.seek(0, io.SEEK_END)
  stop = end  # of what a reader is to see
  while at < end:
    frame = read_frame(file, at)
    if frame is None:  # a tag, or where two files were joined
      behind = skip_tags(file, at)
      found = find_frame(file, max(behind, at + 1), end)
      if found is None:
        stop = at if behind < end else end
        break
      if found > behind:
        return Mended(end=found)
      at = found
      continue
    if first and frame.kind != first.kind and read_frame(file, at + frame.size):
      return Mended(end=at)
    count, at = count + 1, at + frame.size
  if first is None or not count:
    return Mended()
  if first_at + first.size > end:
    return Mended(cut=tell_missing(first_at + first.size - end))
  sound = part if stop == end else dataclasses.replace(part, stop=part.start + stop)
  file.seek(first_at)
  content = file.read(first.size)
  tag = content[first.tag_at :]
  if tag[:4] in (b"Xing", b"Info"):
    flags, said = struct.unpack(">II", tag[4:12])
    if flags & _FRAMES_FLAG and said > count:
      return Mended(cut=f"it has {count - 1} of the {said} frames that its header tells of")
    patches, field = {}, first_at + first.tag_at + 8
    if flags & _FRAMES_FLAG:
      if said != count - 1:
        patches[field] = struct.pack(">I", count - 1)
      field += 4
    size = min(min(at, end) - first_at, 2**32 - 1)  # the last frame may lack its end
    if flags & _BYTES_FLAG:  # of which mpg123 prints a warning where they are wrong
      (bytes_said,) = struct.unpack(">I", content[field - first_at :][:4])
      if abs(bytes_said - size) > _BYTES_OFF * size:
        patches[field] = struct.pack(">I", size)
    return Mended(sound.view(patches) if patches or sound is not part else None)
  if content[36:40] == b"VBRI":
    return Mended()
  xing = b"Xing" + struct.pack(">II", _FRAMES_FLAG, count)
  before = (first.header + bytes(first.tag_at - 4) + xing).ljust(first.size, b"\0")
  if len(before) > first.size:  # too small a frame to hold one
    return Mended()
  return Mended(sound.view({}, before, skip=first_at))


def find_frame(file: io.BufferedReader, at: int, end: int) -> int | None:
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
