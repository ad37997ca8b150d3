# SPDX-License-Identifier: Apache-2.0
"""Sound out of what libsndfile does not open, as m4a, through PyAV, so FFmpeg's libraries.

PyAV is needed only when such a file is read, and imported only then.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from stemgen_jax.audio.headers import MAGICS
from stemgen_jax.errors import UserError

SUFFIXES = (".m4a", ".mp4", ".m4b", ".aac", ".wma", ".webm", ".mka")
_EBML = b"\x1a\x45\xdf\xa3"  # begins a Matroska file, webm too
_GUESSED = ("aac", "mp3")  # formats of which FFmpeg guesses the length by their first bit rate
SLACK_SAMPLES = 4096  # a container may count an encoder's delay and padding as music


class ContainerSound:
  """One audio stream of an open container, read in order.

  Attributes:
    frames: how many samples the header tells of, or the sum of its packets where it does not tell.
    samplerate: in Hz.
    channels: how many.
    subtype: None: what is lossy has no samples to keep.
  """

  format, subtype = "FFMPEG", None

  def __init__(self, container: Any, stream: Any, resampler: Any, frames: int):
    self.samplerate, self.channels, self.frames = stream.rate, stream.channels, frames
    self._decoded = self._decode(container, stream, resampler)
    self._held: list[np.ndarray] = []

  def _decode(self, container: Any, stream: Any, resampler: Any) -> Iterator[np.ndarray]:
    """Yields what is decoded, without what only fills the last frame behind the header's end."""
    left, beyond = self.frames or None, []
    for frame in container.decode(stream):
      for part in resampler.resample(frame):
        block = part.to_ndarray().T
        if left is not None:
          beyond.append(block[left:])
          block, left = block[:left], left - len(block[:left])
          if sum(map(len, beyond)) > SLACK_SAMPLES:  # the header told too little
            yield np.concatenate([block, *beyond])
            left = None
            continue
        yield block

  def read(self, count: int = -1) -> Float[np.ndarray, "samples channels"]:
    """Returns the next samples, or with -1 all that are left; fewer only at the end."""
    held, there = self._held, sum(map(len, self._held))
    while count < 0 or there < count:
      block = next(self._decoded, None)
      if block is None:
        break
      held.append(block)
      there += len(block)
    whole = np.concatenate(held) if held else np.zeros((0, self.channels), np.float32)
    taken = len(whole) if count < 0 else count
    self._held = [whole[taken:]] if taken < len(whole) else []
    return whole[:taken]


def is_container(path: Path) -> bool:
  """Whether a file is one of this module's: by its first bytes, else by its name."""
  try:
    with path.open("rb") as file:
      head = file.read(12)
  except OSError:
    return False
  if head[4:8] == b"ftyp" or head[:4] == _EBML:
    return True
  return path.suffix.lower() in SUFFIXES and head[:4] not in MAGICS


def _count_frames(container: Any, stream: int) -> int:
  """Returns how many samples a stream holds, as it, its file or its packets say.

  The container is of no more use then.
  """
  found = container.streams.audio[stream]
  guessed = container.format.name in _GUESSED
  if found.duration and found.time_base and not guessed:
    return round(found.duration * found.time_base * found.rate)
  if container.duration and not guessed and len(container.streams) == 1:
    return round(container.duration * found.rate / 1_000_000)  # FFmpeg counts in microseconds
  ticks = sum(packet.duration or 0 for packet in container.demux(found))
  return round(ticks * (found.time_base or 0) * found.rate)


def _refuse_joined(path: Path) -> None:
  """Raises a UserError if several MP4 files were joined: FFmpeg reads the first alone."""
  at, files, end = 0, 0, path.stat().st_size
  with path.open("rb") as file:
    while at < end:
      file.seek(at)
      head = file.read(16)
      size, name = int.from_bytes(head[:4], "big"), head[4:8]
      if at == 0 and name != b"ftyp":
        return
      files += name == b"ftyp"
      size = int.from_bytes(head[8:16], "big") if size == 1 else size
      if size < 8:  # it goes to the end
        break
      at += size
  if files > 1:
    raise UserError(
      f"joined sound files must be given one by one; got path={path}, of {files} files."
    )


@contextlib.contextmanager
def open_container(path: Path, stream: int | None = None) -> Iterator[ContainerSound]:
  """Yields an audio stream of a container, counted from 0.

  Raises:
    UserError: if PyAV is missing, or the stream is not there or cannot be decoded.
  """
  try:
    import av
    from av.error import FFmpegError
  except ImportError as error:
    raise UserError(
      f"{path.suffix[1:] or 'such'} files must be read with PyAV; got path={path} without it."
      " Run pip install av, or convert the file to wav."
    ) from error
  _refuse_joined(path)
  what = f"path={path}" + ("" if stream is None else f", audio stream {stream}")
  try:
    with path.open("rb") as file, av.open(file) as container:
      streams = container.streams.audio
      if (stream or 0) >= len(streams):
        raise UserError(
          f"audio file must have the stream that is asked for; got {what} with {len(streams)} audio"
          " streams. Copy the file again."
        )
      with path.open("rb") as again, av.open(again) as counted:
        frames = _count_frames(counted, stream or 0)
      resampler = av.AudioResampler(format="fltp")
      yield ContainerSound(container, streams[stream or 0], resampler, frames)
  except FFmpegError as error:
    raise UserError(
      f"audio file must be whole, and one that FFmpeg reads; got {what} ({error}). Copy the file"
      " again."
    ) from error
