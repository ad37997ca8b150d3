# SPDX-License-Identifier: Apache-2.0
"""A stretch of a file seen with other bytes at some places, and how a sound file is to be read."""

import dataclasses
import io
import struct
from pathlib import Path

# What writers put where they do not know a size lies just below one of these: sox 0x7FFFF000,
# ffmpeg and others all ones, some of them less the header. Any other size is meant.
_TOPS = (2**31, 2**32, 2**63, 2**64)
_BLOCK = 1 << 24  # of what is searched at once


def is_placeholder(size: int) -> bool:
  """Whether a size in a header, of which a file has less, says only that nobody knew it."""
  return any(0 <= top - size <= 1 << 16 for top in _TOPS)


@dataclasses.dataclass(frozen=True)
class Mended:
  """How a file, or one of several that were joined into it, is to be read.

  Attributes:
    view: it, as if its header were right; None where the header is.
    cut: how the file is not whole, if it is not.
    end: where another file begins that was joined to it; None if none was.
  """

  view: io.BufferedReader | None = None
  cut: str | None = None
  end: int | None = None


def tell_missing(count: int) -> str:
  """Returns how a file is cut whose header promises more bytes than there are."""
  return f"its end lacks {count} bytes"


@dataclasses.dataclass(frozen=True)
class Part:
  """The bytes [start, stop) of a file, which are a sound file of their own."""

  path: Path
  start: int
  stop: int

  def view(
    self, patches: dict[int, bytes] | None = None, before: bytes = b"", skip: int = 0
  ) -> io.BufferedReader:
    """Returns the part from `skip` on, with `before` in front and `patches` by offset in it."""
    return io.BufferedReader(_View(self, patches or {}, before, skip))


class _View(io.RawIOBase):
  """A part from an offset on, with bytes before it, and other bytes at some places."""

  def __init__(self, part: Part, patches: dict[int, bytes], before: bytes, skip: int):
    super().__init__()
    self._file = part.path.open("rb")
    self._before, self._skip = before, part.start + skip
    self._patches = {len(before) + at - skip: new for at, new in patches.items()}
    self._size = len(before) + part.stop - self._skip
    self._at = 0

  def readable(self) -> bool:
    return True

  def seekable(self) -> bool:
    return True

  def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
    start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
    self._at = max(0, start + offset)
    return self._at

  def readinto(self, buffer) -> int:
    out = memoryview(buffer).cast("B")
    count = max(0, min(len(out), self._size - self._at))
    head = self._before[self._at : self._at + count]
    out[: len(head)] = head
    if len(head) < count:
      self._file.seek(self._at + len(head) - len(self._before) + self._skip)
      rest = self._file.read(count - len(head))
      out[len(head) : len(head) + len(rest)] = rest
    for at, new in self._patches.items():
      for i, byte in enumerate(new):
        if 0 <= (place := at + i - self._at) < count:
          out[place] = byte
    self._at += count
    return count

  def close(self) -> None:
    self._file.close()
    super().close()


def find_bytes(file: io.BufferedReader, wanted: bytes, at: int, room: int) -> int | None:
  """Returns where bytes next stand that at least `room` others follow; None if they do not."""
  while True:
    file.seek(at)
    block = file.read(_BLOCK)
    place = block.find(wanted)
    if place >= 0 and place + len(wanted) + room <= len(block):
      return at + place
    if len(block) < _BLOCK:
      return None
    at += place if place > 0 else len(block) - len(wanted) - room


def find_tags(tail: bytes, *, zeros: bool = False) -> int:
  """Returns where tags of other formats begin at the end of a file, of which this is the last part.

  These are ID3 of the first version and APE, and with `zeros` many zeros, which are no sound where
  sound is compressed.
  """
  stop = len(tail)
  while True:
    before = stop
    if stop >= 128 and tail[stop - 128 : stop - 125] == b"TAG":
      stop -= 128
    if stop >= 32 and tail[stop - 32 : stop - 24] == b"APETAGEX":
      size, _, flags = struct.unpack("<III", tail[stop - 20 : stop - 8])
      stop = max(0, stop - size - (32 if flags >> 31 else 0))
    if zeros and tail[:stop].endswith(bytes(32)):
      stop = len(tail[:stop].rstrip(b"\0"))
    if stop == before:
      return stop
