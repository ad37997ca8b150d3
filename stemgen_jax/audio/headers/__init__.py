# SPDX-License-Identifier: Apache-2.0
"""What the headers of sound files say wrongly, and files seen as if their headers were right.

Pipes and recorders write a header before they know how long the sound will be, some never come back
to it, and an MP3 need not say its length at all. Files joined end to end have the header of the
first. Readers believe headers: they stop early, or take a whole file for a cut one. Nothing is
changed on disk.
"""

import struct
from pathlib import Path

from stemgen_jax.audio.headers.aiff import mend_aiff
from stemgen_jax.audio.headers.chunks import CHUNKED, mend_chunks
from stemgen_jax.audio.headers.flac import mend_flac
from stemgen_jax.audio.headers.mp3 import find_frame, mend_mp3, read_frame, skip_tags
from stemgen_jax.audio.headers.ogg import mend_ogg
from stemgen_jax.audio.headers.view import Mended, Part
from stemgen_jax.audio.headers.wav import FORMATS, mend_wav

_SEARCHED = 1 << 20  # bytes in which an MP3 must begin
MAGICS = (b"FORM", b"fLaC", b"OggS", *FORMATS, *CHUNKED)  # by which files that are mended begin
_UNDER_TAGS = (b"fLaC", b"FORM", *FORMATS)


def mend(path: Path, whole: bool = True) -> list[Mended]:
  """Returns how a sound file is to be read, or each of the files that were joined into it.

  WAV, AIFF, AU, CAF, FLAC, Ogg and MP3 are looked into, others read as they are.

  Args:
    path: the file.
    whole: whether its sound is to be read too. If not, a FLAC is not searched through for others
      that are joined to it, if its last frame is that which its header promises.
  """
  found, start, stop = [], 0, path.stat().st_size
  while True:
    mended = _try(Part(path, start, stop), whole)
    end = mended.end
    if end is not None:
      mended = _try(Part(path, start, start + end), whole=False)
    if mended.view is None and (start or end is not None):
      view = Part(path, start, stop if end is None else start + end).view()
      mended = Mended(view, mended.cut)
    found.append(mended)
    if end is None:
      return found
    start += end


def _try(part: Part, whole: bool) -> Mended:
  try:
    return _mend(part, whole)
  except (struct.error, IndexError, KeyError):  # a header that ends in the middle: as it is
    return Mended()


def _mend_inner(part: Part, first: int, whole: bool) -> Mended:
  """Mends a part of which the first bytes, which are no sound, are left out of what is read."""
  mended = _mend(part, whole)
  if mended.end is not None:
    return Mended(end=first + mended.end)
  return Mended(mended.view or part.view(), mended.cut)


def _mend(part: Part, whole: bool) -> Mended:
  with part.view() as file:
    start = file.read(12)
    if start[:4] in FORMATS and start[8:] == b"WAVE":
      return mend_wav(part, file, start[:4])
    if start[:4] == b"FORM":
      return mend_aiff(part, file)
    if start[:4] == b"fLaC":
      return mend_flac(part, file, whole)
    if start[:4] == b"OggS":
      return mend_ogg(file)
    if start[:4] in CHUNKED:
      return mend_chunks(part, file, start[:4])
    first = skip_tags(file, 0)
    file.seek(first)
    if first and file.read(4) in _UNDER_TAGS:  # whose readers do not all pass tags over
      return _mend_inner(Part(part.path, part.start + first, part.stop), first, whole)
    if read_frame(file, first) is not None:
      return mend_mp3(part, file, first)
    if part.path.suffix.lower() == ".mp3":
      found = find_frame(file, first, min(first + _SEARCHED, part.stop - part.start))
      if found:
        return _mend_inner(Part(part.path, part.start + found, part.stop), found, whole)
      return Mended(part.view())  # without its name: mpg123, which prints notes, is not asked
  return Mended()
