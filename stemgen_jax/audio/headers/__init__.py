# SPDX-License-Identifier: Apache-2.0
"""What the headers of sound files say wrongly, and files seen as if their headers were right.

Pipes and recorders write a header before they know how long the sound will be, some never come back
to it, and an MP3 need not say its length at all. Readers believe headers: they stop early, or take
a whole file for a cut one. Nothing is changed on disk.
"""

import struct
from pathlib import Path

from stemgen_jax.audio.headers.flac import mend_flac
from stemgen_jax.audio.headers.mp3 import mend_mp3, read_frame, skip_id3
from stemgen_jax.audio.headers.view import Mended
from stemgen_jax.audio.headers.wav import FORMATS, find_missing_aiff, mend_wav


def mend(path: Path) -> Mended:
  """Returns how a sound file is to be read: a WAV, AIFF, FLAC or MP3; others as they are."""
  try:
    return _mend(path)
  except (struct.error, IndexError, KeyError):  # a header that ends in the middle: as it is
    return Mended()


def _mend(path: Path) -> Mended:
  with path.open("rb") as file:
    start = file.read(12)
    if start[:4] in FORMATS and start[8:] == b"WAVE":
      return mend_wav(path, file, start[:4])
    if start[:4] == b"FORM":
      return Mended(missing_bytes=find_missing_aiff(file))
    if start[:4] == b"fLaC":
      return mend_flac(path, file)
    first = skip_id3(file, start)
    if read_frame(file, first) is not None:
      return mend_mp3(path, file, first)
  return Mended()
