# SPDX-License-Identifier: Apache-2.0
"""A sound file, open, whatever its format: read in order, to its end, whatever its header says."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from jaxtyping import Float

from stemgen_jax.audio.container import SLACK_SAMPLES, ContainerSound, is_container, open_container
from stemgen_jax.audio.headers import mend
from stemgen_jax.errors import UserError
from stemgen_jax.shell.folders import refuse_address

MOST_HZ = 10_000_000
NO_LENGTH = 2**62  # libsndfile says more of a FLAC that was written to a pipe


class Sound:
  """An open sound file.

  Attributes:
    frames: how many samples it has; of an MP3 or a container about as many.
    samplerate: in Hz.
    channels: how many.
    subtype: libsndfile's name for how its samples are stored; None for a container.
  """

  def __init__(self, name: str, files: Sequence[soundfile.SoundFile | ContainerSound]):
    """`name`: of the file; `files`: the one there is, or those that were joined to it, alike."""
    kinds = {(file.samplerate, file.channels) for file in files}
    if len(kinds) > 1:
      found = " and ".join(f"{rate} Hz in {count} channels" for rate, count in sorted(kinds))
      raise UserError(
        f"joined sound files must be alike; got path={name}, of {len(files)} files with {found}."
        " Give them one by one."
      )
    self._name, self._files, self._at, self._read = name, list(files), 0, 0
    ((self.samplerate, self.channels),) = kinds
    if not 1 <= self.samplerate <= MOST_HZ:
      raise UserError(
        f"audio file must have at most {MOST_HZ} samples a second; got path={name} with"
        f" {self.samplerate}. Its header is damaged."
      )
    self.frames = sum(file.frames for file in files)
    self.subtype = files[0].subtype
    loose = {"MP3": files[0].frames, "FFMPEG": SLACK_SAMPLES}  # an MP3's ends hold less
    self._slack = loose.get(files[0].format, 0)

  def read(self, count: int = -1) -> Float[np.ndarray, "_samples _channels"]:
    """Returns the next samples, or with -1 all that are left; fewer only at the end.

    Raises:
      UserError: if the file is cut short, or holds NaN or infinite samples.
    """
    blocks, left = [], count
    while self._at < len(self._files) and left:
      file = self._files[self._at]
      try:
        block = (
          file.read(left)
          if isinstance(file, ContainerSound)
          else file.read(left, dtype="float32", always_2d=True)
        )
      except soundfile.LibsndfileError as error:  # a cut FLAC
        how = f"it cannot be read to the end of its {self.frames} samples"
        raise refuse_cut(self._name, how) from error
      blocks.append(block)
      if count < 0 or len(block) < left:
        self._at += 1
      left = -1 if count < 0 else left - len(block)
    samples = blocks[0] if len(blocks) == 1 else self._join(blocks)
    self._read += len(samples)
    missing = self.frames - self._read
    if self._at == len(self._files) and missing > self._slack:
      raise refuse_cut(self._name, f"it lacks {missing} of its {self.frames} samples")
    check_finite(samples, self._name)
    return samples

  def _join(self, blocks: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros((0, self.channels), np.float32), *blocks])


@contextlib.contextmanager
def open_sound(
  path: str | os.PathLike, stream: int | None = None, whole: bool = True
) -> Iterator[Sound]:
  """Yields a sound file, open.

  Args:
    path: the file.
    stream: of several audio streams the one that is meant, from 0.
    whole: whether its sound is to be read, not only its header.

  Raises:
    UserError: if it is missing, no audio, empty, or lacks sound that its header promises.
  """
  path = Path(path)
  refuse_address(path, "audio file")
  if not _is_file(path):
    raise UserError(f"audio file must exist; got path={path}, {_tell_found(path)}.")
  try:
    with contextlib.ExitStack() as stack:
      if not path.stat().st_size:
        raise UserError(f"audio file must hold sound; got path={path}, an empty file.")
      if stream is not None or is_container(path):
        files = [stack.enter_context(open_container(path, stream))]
      else:
        files = [stack.enter_context(file) for file in _open_files(path, whole)]
      yield Sound(str(path) + ("" if stream is None else f", audio stream {stream}"), files)
  except OSError as error:
    raise UserError(
      f"audio file must be readable; got path={path} ({error.strerror}). Check its permissions."
    ) from error


def _is_file(path: Path) -> bool:
  try:
    return path.is_file()
  except (OSError, ValueError):  # in a folder that cannot be looked into; no name at all
    return False


def _tell_found(path: Path) -> str:
  """Returns what lies where no file does, and what to do."""
  if path.is_dir():
    return "a folder. Check the path"
  if os.path.exists(path):  # a pipe, say: libraries read a file in any order
    return "which is no regular file. Copy what it gives into one"
  return f"{'a link to nothing' if path.is_symlink() else 'none'}. Check the path"


def _open_files(path: Path, whole: bool) -> Iterator[soundfile.SoundFile]:
  """Yields the files that lie in a file, mostly one, each with its true number of samples."""
  for part in mend(path, whole):
    if part.cut:
      raise refuse_cut(path, part.cut)
    source: Any = part.view or os.fsencode(path)  # soundfile takes bytes, its types do not say so
    try:
      file = soundfile.SoundFile(source)
    except (soundfile.LibsndfileError, TypeError) as error:  # a TypeError for .raw
      reason = getattr(error, "error_string", "a format without a header")
      raise UserError(
        f"audio file must be one that libsndfile reads (wav, flac, ogg, mp3); got path={path}"
        f" ({reason}). Convert it to wav first."
      ) from error
    if file.frames >= NO_LENGTH:
      file.close()
      raise refuse_cut(path, "it neither says its length nor ends with a whole frame")
    if not file.frames:
      file.close()
      raise UserError(f"audio file must hold at least one sample; got path={path} with none.")
    yield file


def refuse_cut(path: str | os.PathLike, how: str) -> UserError:
  """Returns the error for a file that is not whole."""
  return UserError(f"audio file must be whole; got path={path}: {how}. Copy the file again.")


def check_finite(samples: Float[np.ndarray, "_samples _channels"], path: str | os.PathLike) -> None:
  """Raises a UserError that names the file if a sample is NaN or infinite."""
  if not np.isfinite(samples).all():
    count = int((~np.isfinite(samples)).sum())
    raise UserError(
      f"audio samples must be finite; got path={path} with {count} NaN or infinite samples."
      " Export the file again."
    )
