# SPDX-License-Identifier: Apache-2.0
"""The audio of a stem: its files, read and summed.

What libsndfile cannot open, or has several streams, is read through PyAV, which brings FFmpeg's
libraries.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from data_prep.corpora.types import AudioFile, Stem
from stemgen_jax.audio.files import Samples, check_finite, convert_audio, measure_audio, read_audio
from stemgen_jax.errors import UserError

_AV_SUFFIXES = (".m4a", ".mp4")
_SLACK_SAMPLES = 4096  # a container may count an encoder's delay and padding as music


def read_stem(stem: Stem) -> tuple[Samples, int]:
  """Returns the samples of a stem and its rate in Hz: the sum of its files, as long as the longest.

  The rate is that of the first file, the channels are those of the widest.

  Raises:
    UserError: if a file is missing, empty, cut short, no audio, or holds NaN; the line names it.
  """
  parts = [_read_file(file) for file in stem.files]
  rate_hz, channels = parts[0][1], max(len(samples) for samples, _ in parts)
  audio = [convert_audio(samples, rate, rate_hz, channels) for samples, rate in parts]
  total = np.zeros((channels, max(part.shape[1] for part in audio)), np.float32)
  for part in audio:
    total[:, : part.shape[1]] += part
  return total, rate_hz


def measure_stem(stem: Stem) -> tuple[float, int, int]:
  """Returns a stem's seconds, rate in Hz and channels as `read_stem`, from the files' headers.

  Raises:
    UserError: as `read_stem`, but for what only the samples tell.
  """
  parts = [_measure_file(file) for file in stem.files]
  return max(part[0] for part in parts), parts[0][1], max(part[2] for part in parts)


def _is_av(file: AudioFile) -> bool:
  return file.stream is not None or file.path.suffix.lower() in _AV_SUFFIXES


def _read_file(file: AudioFile) -> tuple[Samples, int]:
  if not _is_av(file):
    return read_audio(file.path)
  with _open_stream(file) as (av, container, stream):
    planar = av.AudioResampler(format="fltp")
    blocks = [
      part.to_ndarray() for frame in container.decode(stream) for part in planar.resample(frame)
    ]
    rate_hz, wanted = stream.rate, _count_samples(stream)
  samples = np.concatenate(blocks, axis=1) if blocks else np.zeros((1, 0), np.float32)
  if samples.shape[1] < max(wanted - _SLACK_SAMPLES, 1):
    raise UserError(
      f"audio file must be whole; got {_describe(file)} with {samples.shape[1]} of {wanted}"
      " samples. Copy the file again."
    )
  check_finite(samples.T, file.path)
  return samples, rate_hz


def _measure_file(file: AudioFile) -> tuple[float, int, int]:
  if not _is_av(file):
    return measure_audio(file.path)
  with _open_stream(file) as (_, _, stream):
    return _count_samples(stream) / stream.rate, stream.rate, stream.channels


def _count_samples(stream: Any) -> int:
  """Returns how many samples a stream's header tells of, 0 if it does not tell."""
  return round((stream.duration or 0) * (stream.time_base or 0) * stream.rate)


@contextmanager
def _open_stream(file: AudioFile) -> Iterator[tuple[ModuleType, Any, Any]]:
  """Yields PyAV, the open container and the audio stream that is meant.

  Raises:
    UserError: if PyAV or the file is missing, or the stream is not there or cannot be decoded.
  """
  try:
    import av
    from av.error import FFmpegError
  except ImportError as error:
    raise UserError(
      f"mp4 and m4a files must be read with PyAV; got path={file.path} without it."
      " Run pip install av."
    ) from error
  if not Path(file.path).is_file():
    raise UserError(f"audio file must exist; got path={file.path}. Check the path.")
  try:
    with av.open(str(file.path)) as container:
      streams = container.streams.audio
      if (file.stream or 0) >= len(streams):
        raise UserError(
          f"audio file must have the stream that is asked for; got {_describe(file)} with"
          f" {len(streams)} audio streams. Copy the file again."
        )
      yield av, container, streams[file.stream or 0]
  except FFmpegError as error:
    raise UserError(
      f"audio file must be whole, and one that FFmpeg reads; got {_describe(file)} ({error})."
      " Copy the file again."
    ) from error


def _describe(file: AudioFile) -> str:
  return f"path={file.path}" + ("" if file.stream is None else f", audio stream {file.stream}")
