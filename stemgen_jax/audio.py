# SPDX-License-Identifier: Apache-2.0
"""Audio files in and out: any format libsndfile reads, resampled by soxr, written by rename.

Samples are float32 in [-1, 1], laid out [channels, samples].
"""

import os
from pathlib import Path

import numpy as np
import soundfile
import soxr
from jaxtyping import Float

from stemgen_jax.errors import UserError

Samples = Float[np.ndarray, "_channels _samples"]  # of no set number, so each array its own


def read_audio(path: str | os.PathLike) -> tuple[Samples, int]:
  """Returns the samples of an audio file and its rate in Hz.

  Raises:
    UserError: if the file is missing, empty, not audio, or holds NaN or infinite samples.
  """
  path = Path(path)
  if not path.is_file():
    raise UserError(f"audio file must exist; got path={path}. Check the path.")
  try:
    samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
  except soundfile.LibsndfileError as error:
    raise UserError(
      f"audio file must be one that libsndfile reads (wav, flac, ogg, mp3); got path={path}"
      f" ({error.error_string}). Convert it to wav first."
    ) from error
  if not len(samples):
    raise UserError(f"audio file must hold at least one sample; got path={path} with none.")
  if not np.isfinite(samples).all():
    count = int((~np.isfinite(samples)).sum())
    raise UserError(
      f"audio samples must be finite; got path={path} with {count} NaN or infinite samples."
      " Export the file again."
    )
  return np.ascontiguousarray(samples.T), rate_hz


def convert_audio(samples: Samples, rate_hz: int, to_rate_hz: int, to_channels: int) -> Samples:
  """Returns the samples at another rate and channel count (mean to mono, copies to stereo)."""
  if len(samples) != to_channels:
    samples = np.repeat(samples.mean(axis=0, keepdims=True), to_channels, axis=0)
  if rate_hz != to_rate_hz:
    samples = soxr.resample(samples.T, rate_hz, to_rate_hz, quality="HQ").T
  return np.ascontiguousarray(samples, dtype=np.float32)


def write_audio(path: str | os.PathLike, samples: Samples, rate_hz: int) -> None:
  """Writes samples as 16-bit PCM; the file appears whole or not at all (format by suffix)."""
  path = Path(path)
  partial = path.with_name(f".{path.stem}.partial{path.suffix}")
  soundfile.write(partial, np.clip(samples.T, -1.0, 1.0), rate_hz, subtype="PCM_16")
  os.replace(partial, path)
