# SPDX-License-Identifier: Apache-2.0
"""Ogg files that were joined, where readers stop at the end of the first, or cut."""

import io

from stemgen_jax.audio.headers.view import Mended, tell_missing

_HEAD = 27  # bytes of a page before the sizes of its segments
_FIRST = 2  # flag of a page that begins a stream


def mend_ogg(file: io.BufferedReader) -> Mended:
  """Finds where another stream begins behind the pages of the first, and a page that is cut.

  Source: the Ogg encapsulation format (RFC 3533), sections 4 and 6.
  """
  at, begun, end = 0, False, file.seek(0, io.SEEK_END)
  while at < end:
    file.seek(at)
    head = file.read(_HEAD + 255)
    if len(head) < _HEAD or head[:4] != b"OggS":
      return Mended()
    first = bool(head[5] & _FIRST)
    if first and begun:
      return Mended(end=at)
    begun = begun or not first
    at += _HEAD + head[26] + sum(head[_HEAD : _HEAD + head[26]])
  return Mended(cut=tell_missing(at - end) if at > end else None)
