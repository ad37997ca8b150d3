# SPDX-License-Identifier: Apache-2.0
"""Audio files in and out: any format libsndfile reads, resampled by soxr, written by rename.

Samples are float32 in [-1, 1], laid out [channels, samples].
"""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr
from jaxtyping import Float

from stemgen_jax.audio.headers import mend
from stemgen_jax.errors import UserError
from stemgen_jax.shell.folders import appearing

Samples = Float[np.ndarray, "_channels _samples"]  # of no set number, so each array its own
BLOCK_S = 10.0  # of what `read_blocks` holds at once
CANCELLED = 1e-3  # of the channels' power: less of it in their mean is 30 dB lost
SUBTYPES = {"PCM_16": (16, np.int16), "PCM_24": (24, np.int32), "FLOAT": (32, np.float32)}
NO_LENGTH = 2**62  # libsndfile says more of a FLAC that was written to a pipe


def read_audio(path: str | os.PathLike) -> tuple[Samples, int]:
  """Returns the samples of an audio file and its rate in Hz.

  Raises:
    UserError: if the file is missing, empty, not audio, cut short, or holds NaN or infinite
      samples.
  """
  with open_audio(path) as file:
    samples = _read(file, path, file.frames)
    return np.ascontiguousarray(samples.T), file.samplerate


def read_blocks(path: str | os.PathLike, to_rate_hz: int, to_channels: int) -> Iterator[Samples]:
  """Yields a file's samples at another rate and channel count, BLOCK_S at a time: any length fits.

  Raises:
    UserError: as `read_audio`.
  """
  with open_audio(path) as file:
    resampler = None
    if file.samplerate != to_rate_hz:
      resampler = soxr.ResampleStream(file.samplerate, to_rate_hz, to_channels, quality="HQ")
    size, done, frames = round(BLOCK_S * file.samplerate), 0, file.frames
    while done < frames:
      block = _read(file, path, min(size, frames - done))
      done = done + len(block) if len(block) else frames
      samples = convert_audio(block.T, to_rate_hz, to_rate_hz, to_channels)
      if resampler is not None:
        samples = resampler.resample_chunk(samples.T, last=done >= frames).T
      yield np.ascontiguousarray(samples)


def measure_duration(path: str | os.PathLike) -> float:
  """Returns the length of a file in seconds; raises a UserError as `read_audio`."""
  return measure_audio(path)[0]


def measure_audio(path: str | os.PathLike) -> tuple[float, int, int]:
  """Returns a file's seconds, rate in Hz and channels, mostly from its header alone.

  Raises:
    UserError: as `read_audio`, but for what only the samples tell.
  """
  with open_audio(path) as file:
    return file.frames / file.samplerate, file.samplerate, file.channels


@contextlib.contextmanager
def open_audio(path: str | os.PathLike) -> Iterator[soundfile.SoundFile]:
  """Yields an audio file, open, whose `frames` are true whatever its header says.

  Raises:
    UserError: if it is missing, no audio, empty, or lacks sound that its header promises.
  """
  path = Path(path)
  if not path.is_file():
    found = "a folder" if path.is_dir() else "none"
    raise UserError(f"audio file must exist; got path={path}, {found}. Check the path.")
  try:
    mended = mend(path)
    file = soundfile.SoundFile(mended.view or path)
  except OSError as error:
    raise UserError(
      f"audio file must be readable; got path={path} ({error.strerror}). Check its permissions."
    ) from error
  except (soundfile.LibsndfileError, TypeError) as error:  # a TypeError for .raw
    reason = getattr(error, "error_string", "a format without a header")
    raise UserError(
      f"audio file must be one that libsndfile reads (wav, flac, ogg, mp3); got path={path}"
      f" ({reason}). Convert it to wav first."
    ) from error
  with file:
    if mended.missing_bytes > 0:
      raise _cut(path, f"its end lacks {mended.missing_bytes} bytes")
    if file.frames >= NO_LENGTH:
      raise _cut(path, "it neither says its length nor ends with a whole frame")
    if not file.frames:
      raise UserError(f"audio file must hold at least one sample; got path={path} with none.")
    yield file


def _read(
  file: soundfile.SoundFile, path: str | os.PathLike, count: int
) -> Float[np.ndarray, "_samples _channels"]:
  """Returns the next samples of an open file, all finite; fewer only at the end of an MP3."""
  try:
    samples = file.read(count, dtype="float32", always_2d=True)
  except soundfile.LibsndfileError as error:  # a cut FLAC
    raise _cut(path, f"it cannot be read to the end of its {file.frames} samples") from error
  if len(samples) < count and file.format != "MP3":  # whose first and last frames hold less
    raise _cut(path, f"it lacks {count - len(samples)} of its {file.frames} samples")
  check_finite(samples, path)
  return samples


def _cut(path: str | os.PathLike, how: str) -> UserError:
  return UserError(f"audio file must be whole; got path={path}: {how}. Copy the file again.")


def check_finite(samples: Float[np.ndarray, "_samples _channels"], path: str | os.PathLike) -> None:
  """Raises a UserError that names the file if a sample is NaN or infinite."""
  if not np.isfinite(samples).all():
    count = int((~np.isfinite(samples)).sum())
    raise UserError(
      f"audio samples must be finite; got path={path} with {count} NaN or infinite samples."
      " Export the file again."
    )


def convert_audio(samples: Samples, rate_hz: int, to_rate_hz: int, to_channels: int) -> Samples:
  """Returns the samples at another rate and channel count, to that by way of `to_mono`."""
  if len(samples) != to_channels:
    samples = np.repeat(to_mono(samples), to_channels, axis=0)
  if rate_hz != to_rate_hz:
    samples = soxr.resample(samples.T, rate_hz, to_rate_hz, quality="HQ").T
  return np.ascontiguousarray(samples, dtype=np.float32)


def to_mono(samples: Samples) -> Samples:
  """Returns the mean of the channels, [1, samples]; of channels that cancel, the first.

  A side of opposite sign, as some microphones and wideners leave it, is heard in stereo, and would
  be silence in its mean.
  """
  mean = samples.mean(axis=0, keepdims=True)
  heard, left = (float(np.square(x, dtype=np.float64).mean()) for x in (samples, mean))
  return samples[:1] if left < CANCELLED * heard else mean


def write_audio(
  path: str | os.PathLike, samples: Samples, rate_hz: int, subtype: str = "PCM_16"
) -> None:
  """Writes samples; the file appears whole or not at all (format by suffix).

  Args:
    path: the file.
    samples: what to write.
    rate_hz: their rate.
    subtype: of SUBTYPES; a WAV with samples above full scale is FLOAT, so that none is clipped.
  """
  if Path(path).suffix == ".wav" and samples.size and np.abs(samples).max() > 1.0:
    subtype = "FLOAT"
  write_blocks(path, [samples], rate_hz, len(samples), subtype)


def find_subtype(path: str | os.PathLike) -> str:
  """Returns the one of SUBTYPES that keeps the samples of a file as `read_audio` gives them."""
  with open_audio(path) as file:
    if file.subtype in ("PCM_24", "PCM_32", "FLOAT", "DOUBLE"):
      return "PCM_24" if file.subtype == "PCM_24" else "FLOAT"
    return "PCM_16"


def write_blocks(
  path: str | os.PathLike,
  blocks: Iterable[Samples],
  rate_hz: int,
  channels: int,
  subtype: str = "PCM_16",
) -> None:
  """Writes blocks of samples, one after the other, as `write_audio`; PCM is clipped."""
  path = Path(path)
  with (
    appearing(path) as partial,
    soundfile.SoundFile(partial, "w", rate_hz, channels, subtype) as file,
  ):
    for samples in blocks:
      file.write(_to_stored(samples.T, subtype))


def _to_stored(samples: np.ndarray, subtype: str) -> np.ndarray:
  """Returns samples as libsndfile is to store them.

  Rounded here: libsndfile rounds down, and what was read would not be written again.
  """
  if subtype == "FLOAT":
    return samples
  bits, kind = SUBTYPES[subtype]
  top = 2.0 ** (bits - 1)
  whole = np.clip(np.rint(samples.astype(np.float64) * top), -top, top - 1).astype(kind)
  return whole << 8 if bits == 24 else whole  # in the upper bits of 32
