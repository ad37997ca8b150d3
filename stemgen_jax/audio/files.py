# SPDX-License-Identifier: Apache-2.0
"""Audio files in and out: any format that `sound` opens, resampled by soxr, written by rename.

Samples are float32 in [-1, 1], laid out [channels, samples].
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from jaxtyping import Float

from stemgen_jax.audio.sound import Sound, open_sound
from stemgen_jax.errors import FULL, UserError
from stemgen_jax.shell.folders import appearing

Samples = Float[np.ndarray, "_channels _samples"]  # of no set number, so each array its own
BLOCK_S = 10.0  # of what `read_blocks` holds at once
_PROBE = 1 << 16  # bytes for which a disk that is full has no room
CANCELLED = 0.2  # of what is in the mean of channels that have nothing in common: less is lost
SUBTYPES = {"PCM_16": (16, np.int16), "PCM_24": (24, np.int32), "FLOAT": (32, np.float32)}


def read_audio(path: str | os.PathLike, stream: int | None = None) -> tuple[Samples, int]:
  """Returns the samples of an audio file, or of one of its audio streams, and its rate in Hz.

  Raises:
    UserError: if the file is missing, empty, not audio, cut short, or holds NaN or infinite
      samples; if it needs PyAV, as m4a does, and that is not installed.
  """
  with open_sound(path, stream) as sound:
    try:
      samples, done = np.empty((sound.channels, sound.frames), np.float32), 0
    except MemoryError as error:  # a damaged header may tell of days
      raise UserError(
        f"audio file must fit in memory; got path={path}, whose header tells of {sound.frames}"
        f" samples in {sound.channels} channels. Copy the file again, or cut it."
      ) from error
    while len(block := sound.read(round(BLOCK_S * sound.samplerate))):
      if done + len(block) > samples.shape[1]:  # a container that told too little
        samples = np.concatenate([samples[:, :done], block.T], axis=1)
      samples[:, done : done + len(block)] = block.T
      done += len(block)
    if not done:
      raise UserError(f"audio file must hold at least one sample; got path={path} with none.")
    return np.ascontiguousarray(samples[:, :done]), sound.samplerate


def read_blocks(path: str | os.PathLike, to_rate_hz: int, to_channels: int) -> Iterator[Samples]:
  """Yields a file's samples at another rate and channel count, BLOCK_S at a time: any length fits.

  Raises:
    UserError: as `read_audio`.
  """
  with open_sound(path) as sound:
    blocks = _read_blocks(sound, to_channels)
    yield from resample_blocks(blocks, sound.samplerate, to_rate_hz, to_channels)


def _read_blocks(sound: Sound, channels: int) -> Iterator[Samples]:
  while len(block := sound.read(round(BLOCK_S * sound.samplerate))):
    yield convert_audio(block.T, sound.samplerate, sound.samplerate, channels)


def measure_duration(path: str | os.PathLike) -> float:
  """Returns the length of a file in seconds, all that `read_blocks` gives; raises as it does."""
  with open_sound(path) as sound:
    return sound.frames / sound.samplerate


def measure_audio(path: str | os.PathLike, stream: int | None = None) -> tuple[float, int, int]:
  """Returns a file's seconds, rate in Hz and channels, mostly from its header alone.

  Raises:
    UserError: as `read_audio`, but for what only the samples tell.
  """
  with open_sound(path, stream, whole=False) as sound:
    return sound.frames / sound.samplerate, sound.samplerate, sound.channels


def convert_audio(samples: Samples, rate_hz: int, to_rate_hz: int, to_channels: int) -> Samples:
  """Returns the samples at another rate and channel count, to that by way of `to_mono`."""
  if len(samples) == to_channels and rate_hz == to_rate_hz:
    return np.ascontiguousarray(samples, dtype=np.float32)
  length = round(samples.shape[1] * to_rate_hz / rate_hz)
  converted, done = np.empty((to_channels, length), np.float32), 0
  for block in convert_blocks(samples, rate_hz, to_rate_hz, to_channels):
    if done + block.shape[1] > converted.shape[1]:  # soxr rounds half a sample otherwise
      converted = np.concatenate([converted[:, :done], block], axis=1)
    converted[:, done : done + block.shape[1]] = block
    done += block.shape[1]
  return np.ascontiguousarray(converted[:, :done])


def convert_blocks(
  samples: Samples, rate_hz: int, to_rate_hz: int, to_channels: int
) -> Iterator[Samples]:
  """Yields what `convert_audio` returns, about BLOCK_S at a time: no copy is as long as it is."""
  one, size = len(samples) != to_channels, max(1, round(BLOCK_S * rate_hz))
  first = one and _cancel(samples)
  blocks = (samples[:, i : i + size] for i in range(0, samples.shape[1], size))
  if not one:
    yield from resample_blocks(blocks, rate_hz, to_rate_hz, to_channels)
    return
  blocks = (x[:1] if first or len(x) == 1 else x.mean(axis=0, keepdims=True) for x in blocks)
  for block in resample_blocks(blocks, rate_hz, to_rate_hz, 1):
    yield np.repeat(block, to_channels, axis=0)


def resample_blocks(
  blocks: Iterable[Samples], rate_hz: int, to_rate_hz: int, channels: int
) -> Iterator[Samples]:
  """Yields blocks that follow each other at another rate: joined, what they are at once."""
  if rate_hz == to_rate_hz:
    yield from (np.ascontiguousarray(block, np.float32) for block in blocks)
    return
  resampler = soxr.ResampleStream(rate_hz, to_rate_hz, channels, quality="HQ")
  rest = iter(blocks)
  block = next(rest, None)
  while block is not None:
    following = next(rest, None)
    samples = np.ascontiguousarray(block.T, np.float32)
    made = resampler.resample_chunk(samples, last=following is None)
    yield np.ascontiguousarray(made.T)
    block = following


def to_mono(samples: Samples) -> Samples:
  """Returns the mean of the channels, [1, samples]; of channels that cancel, the first.

  A side of opposite sign, as some microphones and wideners leave it, is heard in stereo, and would
  be silence in its mean.
  """
  if len(samples) == 1 or _cancel(samples):
    return samples[:1]
  return samples.mean(axis=0, keepdims=True)


def _cancel(samples: Samples) -> bool:
  """Returns whether of the channels' power little is in their mean.

  In that of N channels that have nothing in common, or of which one sounds, it is one part in N.
  """
  if len(samples) == 1:
    return False
  size, mean, heard = 1 << 17, 0.0, 0.0
  for start in range(0, samples.shape[1], size):  # whose copies are small
    block = samples[:, start : start + size].astype(np.float64)
    heard += float(np.vdot(block, block)) / len(block)
    middle = block.mean(axis=0)
    mean += float(np.vdot(middle, middle))
  return mean < CANCELLED / len(samples) * heard


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
  loud = samples.size and max(samples.max(), -samples.min()) > 1.0  # without a copy
  if Path(path).suffix == ".wav" and loud:
    subtype = "FLOAT"
  size = round(BLOCK_S * rate_hz)
  blocks = (samples[:, i : i + size] for i in range(0, samples.shape[1], size))
  write_blocks(path, blocks, rate_hz, len(samples), subtype)


def find_subtype(path: str | os.PathLike) -> str:
  """Returns the one of SUBTYPES that keeps the samples of a file as `read_audio` gives them."""
  with open_sound(path) as file:
    if file.subtype in ("PCM_24", "PCM_32", "FLOAT", "DOUBLE"):
      return "PCM_24" if file.subtype == "PCM_24" else "FLOAT"
    return "PCM_16"


def write_blocks(
  path: str | os.PathLike,
  blocks: Iterable[Samples],
  rate_hz: int,
  channels: int,
  subtype: str = "PCM_16",
  compression: float | None = None,
) -> None:
  """Writes blocks of samples, one after the other, as `write_audio`; PCM is clipped.

  Args:
    path: the file.
    blocks: its samples.
    rate_hz: their rate.
    channels: how many.
    subtype: of SUBTYPES, or one of libsndfile's that is lossy.
    compression: of a lossy one, from 0 (best) to 1.

  Raises:
    UserError: if the disk does not take all of it; then nothing of it stays.
  """
  path, count = Path(path), 0
  with appearing(path) as partial:
    name: Any = os.fsencode(partial)  # soundfile takes bytes, its types do not say so
    try:
      with soundfile.SoundFile(
        name, "w", rate_hz, channels, subtype, compression_level=compression
      ) as file:
        for samples in blocks:
          file.write(_to_stored(samples.T, subtype))
          count += samples.shape[1]
      found = soundfile.info(name).frames
    except soundfile.LibsndfileError as error:
      raise _refuse_disk(path, partial, error.error_string) from error
    if found < count:  # the end of a file is written as it is closed, and libsndfile says nothing
      raise _refuse_disk(path, partial, f"{found} of {count} samples were written")


def _refuse_disk(path: Path, partial: Path, how: str) -> UserError:
  """Returns the error for a file of which only a part was written.

  libsndfile says "System error" of whatever a disk refuses: what it was, another byte tells.
  """
  try:
    with partial.open("ab", buffering=0) as file:
      file.write(bytes(_PROBE))
      os.fsync(file.fileno())
  except OSError as error:
    if error.errno in FULL:
      return UserError(
        f"the disk must have room for {path}; got a full one ({error.strerror}). Free some and run"
        " the same command."
      )
    how = error.strerror or how
  return UserError(
    f"the disk must take an audio file whole; got path={path} ({how.rstrip('.')}). Check the"
    " folder's permissions."
  )


def _to_stored(samples: np.ndarray, subtype: str) -> np.ndarray:
  """Returns samples as libsndfile is to store them.

  Rounded here: libsndfile rounds down, and what was read would not be written again.
  """
  if subtype == "FLOAT" or subtype not in SUBTYPES:
    return samples
  bits, kind = SUBTYPES[subtype]
  top = 2.0 ** (bits - 1)
  whole = np.clip(np.rint(samples.astype(np.float64) * top), -top, top - 1).astype(kind)
  return whole << 8 if bits == 24 else whole  # in the upper bits of 32
