# SPDX-License-Identifier: Apache-2.0
"""Audio files in and out: any format libsndfile reads, resampled by soxr, written by rename.

Samples are float32 in [-1, 1], laid out [channels, samples].
"""

import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr
from jaxtyping import Float

from stemgen_jax.errors import UserError
from stemgen_jax.shell.folders import appearing

Samples = Float[np.ndarray, "_channels _samples"]  # of no set number, so each array its own
BLOCK_S = 10.0  # of what `read_blocks` holds at once


def read_audio(path: str | os.PathLike) -> tuple[Samples, int]:
  """Returns the samples of an audio file and its rate in Hz.

  Raises:
    UserError: if the file is missing, empty, not audio, cut short, or holds NaN or infinite
      samples.
  """
  with _open(path) as file:
    samples = _read(file, path, file.frames)
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
    while file.tell() < file.frames:
      block = _read(file, path, min(size, file.frames - file.tell()))
      samples = convert_audio(block.T, to_rate_hz, to_rate_hz, to_channels)
      if resampler is not None:
        samples = resampler.resample_chunk(samples.T, last=file.tell() == file.frames).T
      yield np.ascontiguousarray(samples)


def measure_duration(path: str | os.PathLike) -> float:
  """Returns the length of a file in seconds; raises a UserError as `read_audio`."""
  return measure_audio(path)[0]


def measure_audio(path: str | os.PathLike) -> tuple[float, int, int]:
  """Returns a file's seconds, rate in Hz and channels, from its header alone.

  Raises:
    UserError: as `read_audio`, but for what only the samples tell.
  """
  with _open(path) as file:
    return file.frames / file.samplerate, file.samplerate, file.channels


def _open(path: str | os.PathLike) -> soundfile.SoundFile:
  """Returns an audio file, open, with at least one sample and all that its header says."""
  path = Path(path)
  if not path.is_file():
    found = "a folder" if path.is_dir() else "none"
    raise UserError(f"audio file must exist; got path={path}, {found}. Check the path.")
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
  missing = _missing_bytes(path)
  if missing > 0:
    file.close()
    raise _cut(path, f"its end lacks {missing} bytes")
  return file


def _read(
  file: soundfile.SoundFile, path: str | os.PathLike, count: int
) -> Float[np.ndarray, "_samples _channels"]:
  """Returns the next samples of an open file, all finite; fewer only at the end of an MP3."""
  try:
    samples = file.read(count, dtype="float32", always_2d=True)
  except soundfile.LibsndfileError as error:  # a cut FLAC
    raise _cut(path, f"it cannot be read to the end of its {file.frames} samples") from error
  if len(samples) < count:
    if file.format != "MP3":  # whose header may only guess its length
      raise _cut(path, f"it lacks {count - len(samples)} of its {file.frames} samples")
    file.seek(0, soundfile.SEEK_END)
  check_finite(samples, path)
  return samples


def _cut(path: str | os.PathLike, how: str) -> UserError:
  return UserError(f"audio file must be whole; got path={path}: {how}. Copy the file again.")


def _missing_bytes(path: Path) -> int:
  """Returns how many bytes of samples a WAV or AIFF file lacks of what its header says.

  libsndfile reads such a file as far as it goes and calls that its length. A header that leaves
  the size open (all ones, or 0), as written to a pipe, lacks nothing.
  """
  with path.open("rb") as file:
    kind = file.read(12)[:4]
    order, wanted = (">", b"SSND") if kind == b"FORM" else ("<", b"data")
    if kind not in (b"RIFF", b"RF64", b"FORM"):
      return 0
    size_64 = 0
    while len(header := file.read(8)) == 8:
      name, size = header[:4], struct.unpack(f"{order}I", header[4:])[0]
      start = file.tell()
      if name == wanted:
        size = size_64 if kind == b"RF64" else size
        open_ended = size in (0, 2**32 - 1)
        return 0 if open_ended else start + size - file.seek(0, os.SEEK_END)
      if name == b"ds64":  # RF64 (EBU Tech 3306): 64-bit sizes of the file, then of the samples
        size_64 = struct.unpack("<QQ", file.read(16))[1]
      file.seek(start + size + size % 2)
  return 0


def check_finite(samples: Float[np.ndarray, "_samples _channels"], path: str | os.PathLike) -> None:
  """Raises a UserError that names the file if a sample is NaN or infinite."""
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
  with (
    appearing(path) as partial,
    soundfile.SoundFile(partial, "w", rate_hz, channels, "PCM_16") as file,
  ):
    for samples in blocks:
      # Rounded here: libsndfile rounds down, and what was read would not be written again.
      file.write(np.clip(np.rint(samples.T * 2.0**15), -(2**15), 2**15 - 1).astype(np.int16))
