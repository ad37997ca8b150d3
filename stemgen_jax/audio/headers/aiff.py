# SPDX-License-Identifier: Apache-2.0
"""AIFF and AIFF-C that are cut, were joined, or whose sizes are less than what they hold."""

import io
import struct

from stemgen_jax.audio.headers.view import Mended, Part, is_placeholder, tell_missing
from stemgen_jax.audio.headers.wav import is_tag, pass_chunks

_PLAIN = (b"NONE", b"sowt", b"twos", b"raw ", b"in24", b"in32", b"42ni", b"23ni", b"fl32", b"FL32",
          b"fl64", b"FL64")  # fmt: skip
_BEFORE_SOUND = 8  # bytes of an SSND chunk


def mend_aiff(part: Part, file: io.BufferedReader) -> Mended:
  """Finds how many bytes an AIFF lacks, where it was joined, or the sound that its sizes leave out.

  Source: Audio Interchange File Format 1.3 and AIFF-C (Apple), chunks FORM, COMM and SSND.
  """
  file.seek(4)
  form = file.read(8)
  (size,), is_plain = struct.unpack(">I", form[:4]), form[4:] == b"AIFF"
  end = file.seek(0, io.SEEK_END)
  file.seek(8 + size + size % 2)
  if (head := file.read(12))[:4] == b"FORM" and head[8:11] == b"AIF":
    return Mended(end=8 + size + size % 2)
  file.seek(12)
  frames_at, align = 0, 0
  while len(header := file.read(8)) == 8:
    name, size = struct.unpack(">4sI", header)
    start = file.tell()
    if name == b"COMM":
      fields = file.read(22)
      channels, bits = struct.unpack(">H4xH", fields[:8])
      frames_at = start + 2
      align = channels * -(-bits // 8) if is_plain or fields[18:22] in _PLAIN else 0
    elif name == b"SSND":
      if start + size > end:
        unknown = size == 0 or is_placeholder(size)
        return Mended(cut=None if unknown else tell_missing(start + size - end))
      behind = pass_chunks(file, start + size + size % 2, end, ">")
      if size == 0 or not align or behind is not None or is_tag(file, start + size):
        return Mended()
      frames = (end - start - _BEFORE_SOUND) // align
      patches = {start - 4: frames * align + _BEFORE_SOUND, frames_at: frames, 4: end - 8}
      return Mended(part.view({at: struct.pack(">I", value) for at, value in patches.items()}))
    file.seek(start + size + size % 2)
  return Mended()
