# SPDX-License-Identifier: Apache-2.0
"""Ogg files that were joined: the format allows it, and readers stop at the end of the first."""

import io

from stemgen_jax.audio.headers.view import Mended

_HEAD = 27  # bytes of a page before the sizes of its segments
_FIRST = 2  # flag of a page that begins a stream


def mend_ogg(file: io.BufferedReader) -> Mended:
  """Finds where another stream begins behind the pages of the first.

  Source: the Ogg encapsulation format (RFC 3533), sections 4 and 6.
  """
  at, begun = 0, False
  while True:
    file.seek(at)
    head = file.read(_HEAD + 255)
    if len(head) < _HEAD or head[:4] != b"OggS":
      return Mended()
    first = bool(head[5] & _FIRST)
    if first and begun:
      return Mended(end=at)
    begun = begun or not first
    at += _HEAD + head[26] + sum(head[_HEAD : _HEAD + head[26]])
