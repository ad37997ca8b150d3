# SPDX-License-Identifier: Apache-2.0
"""A file seen with other bytes at some places, and how a sound file is to be read."""

import dataclasses
import io
from pathlib import Path

# What writers put where they do not know a size lies just below one of these: sox 0x7FFFF000,
# ffmpeg and others all ones, some of them less the header. Any other size is meant.
_TOPS = (2**31, 2**32, 2**63, 2**64)


def is_placeholder(size: int) -> bool:
  """Whether a size in a header, of which a file has less, says only that nobody knew it."""
  return any(0 <= top - size <= 1 << 16 for top in _TOPS)


@dataclasses.dataclass(frozen=True)
class Mended:
  """How a file is to be read.

  Attributes:
    view: it, as if its header were right; None where the header is.
    missing_bytes: of sound, that the header promises and the file lacks.
  """

  view: io.BufferedReader | None = None
  missing_bytes: int = 0


class _View(io.RawIOBase):
  """A file from an offset on, with bytes before it, and other bytes at some places."""

  def __init__(self, path: Path, patches: dict[int, bytes], before: bytes = b"", skip: int = 0):
    super().__init__()
    self._file = path.open("rb")
    self._before, self._skip = before, skip
    self._patches = {len(before) + at - skip: new for at, new in patches.items()}
    self._size = len(before) + path.stat().st_size - skip
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


def view(
  path: Path, patches: dict[int, bytes], before: bytes = b"", skip: int = 0
) -> io.BufferedReader:
  """Returns a file from `skip` on, with `before` in front and `patches`, of offsets in the file."""
  return io.BufferedReader(_View(path, patches, before, skip))
