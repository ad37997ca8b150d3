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

from stemgen_jax.errors import UserError

SUFFIXES = (".m4a", ".mp4", ".m4b", ".aac", ".wma", ".webm", ".mka")
SLACK_SAMPLES = 4096  # a container may count an encoder's delay and padding as music


class ContainerSound:
  """One audio stream of an open container, read in order.

  Attributes:
    frames: how many samples the header tells of; 0 if it does not tell.
    samplerate: in Hz.
    channels: how many.
    subtype: None: what is lossy has no samples to keep.
  """

  format, subtype = "FFMPEG", None

  def __init__(self, container: Any, stream: Any, resampler: Any):
    self.samplerate, self.channels = stream.rate, stream.channels
    self.frames = round((stream.duration or 0) * (stream.time_base or 0) * stream.rate)
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
  what = f"path={path}" + ("" if stream is None else f", audio stream {stream}")
  try:
    with path.open("rb") as file, av.open(file) as container:
      streams = container.streams.audio
      if (stream or 0) >= len(streams):
        raise UserError(
          f"audio file must have the stream that is asked for; got {what} with {len(streams)} audio"
          " streams. Copy the file again."
        )
      yield ContainerSound(container, streams[stream or 0], av.AudioResampler(format="fltp"))
  except FFmpegError as error:
    raise UserError(
      f"audio file must be whole, and one that FFmpeg reads; got {what} ({error}). Copy the file"
      " again."
    ) from error
