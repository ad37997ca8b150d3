# SPDX-License-Identifier: Apache-2.0
"""Audio files in and out: any format libsndfile reads, resampled by soxr, written by rename.

Samples are float32 in [-1, 1], laid out [channels, samples].
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr
from jaxtyping import Float

from stemgen_jax.errors import UserError

Samples = Float[np.ndarray, "_channels _samples"]  # of no set number, so each array its own
BLOCK_S = 10.0  # of what `read_blocks` holds at once


def read_audio(path: str | os.PathLike) -> tuple[Samples, int]:
  """Returns the samples of an audio file and its rate in Hz.

  Raises:
    UserError: if the file is missing, empty, not audio, or holds NaN or infinite samples.
  """
  with _open(path) as file:
    samples = file.read(dtype="float32", always_2d=True)
    _check_finite(samples, path)
    return np.ascontiguousarray(samples.T), file.samplerate


def read_blocks(path: str | os.PathLike, to_rate_hz: int, to_channels: int) -> Iterator[Samples]:
  """Yields a file's samples at another rate and channel count, BLOCK_S at a time: any length fits.

  Raises:
    UserError: as `read_audio`.
  """
  with _open(path) as file:
    resampler = None
    if file.samplerate != to_rate_hz:
      resampler = soxr.ResampleStream(file.samplerate, to_rate_hz, to_channels, quality="HQ")
    size = round(BLOCK_S * file.samplerate)
    for block in file.blocks(size, dtype="float32", always_2d=True):
      _check_finite(block, path)
      samples = convert_audio(block.T, to_rate_hz, to_rate_hz, to_channels)
      if resampler is not None:
        samples = resampler.resample_chunk(samples.T, last=file.tell() == file.frames).T
      yield np.ascontiguousarray(samples)


def measure_duration(path: str | os.PathLike) -> float:
  """Returns the length of a file in seconds; raises a UserError as `read_audio`."""
  with _open(path) as file:
    return file.frames / file.samplerate


def _open(path: str | os.PathLike) -> soundfile.SoundFile:
  """Returns an audio file, open, with at least one sample."""
  path = Path(path)
  if not path.is_file():
    raise UserError(f"audio file must exist; got path={path}. Check the path.")
  try:
    file = soundfile.SoundFile(path)
  except soundfile.LibsndfileError as error:
    raise UserError(
      f"audio file must be one that libsndfile reads (wav, flac, ogg, mp3); got path={path}"
      f" ({error.error_string}). Convert it to wav first."
    ) from error
  if not file.frames:
    file.close()
    raise UserError(f"audio file must hold at least one sample; got path={path} with none.")
  return file


def _check_finite(
  samples: Float[np.ndarray, "_samples _channels"], path: str | os.PathLike
) -> None:
  if not np.isfinite(samples).all():
    count = int((~np.isfinite(samples)).sum())
    raise UserError(
      f"audio samples must be finite; got path={path} with {count} NaN or infinite samples."
      " Export the file again."
    )


def convert_audio(samples: Samples, rate_hz: int, to_rate_hz: int, to_channels: int) -> Samples:
  """Returns the samples at another rate and channel count (mean to mono, copies to stereo)."""
  if len(samples) != to_channels:
    samples = np.repeat(samples.mean(axis=0, keepdims=True), to_channels, axis=0)
  if rate_hz != to_rate_hz:
    samples = soxr.resample(samples.T, rate_hz, to_rate_hz, quality="HQ").T
  return np.ascontiguousarray(samples, dtype=np.float32)


def write_audio(path: str | os.PathLike, samples: Samples, rate_hz: int) -> None:
  """Writes samples as 16-bit PCM; the file appears whole or not at all (format by suffix)."""
  write_blocks(path, [samples], rate_hz, len(samples))


def write_blocks(
  path: str | os.PathLike, blocks: Iterable[Samples], rate_hz: int, channels: int
) -> None:
  """Writes blocks of samples, one after the other, as `write_audio`."""
  path = Path(path)
  partial = path.with_name(f".{path.stem}.partial{path.suffix}")
  with soundfile.SoundFile(partial, "w", rate_hz, channels, "PCM_16") as file:
    for samples in blocks:
      file.write(np.clip(samples.T, -1.0, 1.0))
  os.replace(partial, path)
