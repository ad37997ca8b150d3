# SPDX-License-Identifier: Apache-2.0
"""The audio of a stem: its files, read and summed."""

import numpy as np

from data_prep.corpora.types import Stem
from stemgen_jax.audio.files import Samples, convert_audio, measure_audio, read_audio
from stemgen_jax.errors import UserError


def read_stem(stem: Stem) -> tuple[Samples, int]:
  """Returns the samples of a stem and its rate in Hz: the sum of its files, as long as the longest.

  The rate is that of the first file, the channels are those of the widest.

  Raises:
    UserError: if a file is missing, empty, cut short, no audio, or holds NaN; the line names it.
  """
  parts = [read_audio(file.path, file.stream) for file in stem.files]
  rate_hz, channels = parts[0][1], max(len(samples) for samples, _ in parts)
  audio = [convert_audio(samples, rate, rate_hz, channels) for samples, rate in parts]
  total = np.zeros((channels, max(part.shape[1] for part in audio)), np.float32)
  for part in audio:
    total[:, : part.shape[1]] += part
  return total, rate_hz


def can_be_read(stem: Stem) -> bool:
  """Returns whether `read_stem` gives the stem's samples."""
  try:
    read_stem(stem)
  except UserError:
    return False
  return True


def measure_stem(stem: Stem) -> tuple[float, int, int]:
  """Returns a stem's seconds, rate in Hz and channels as `read_stem`, from the files' headers.

  Raises:
    UserError: as `read_stem`, but for what only the samples tell.
  """
  parts = [measure_audio(file.path, file.stream) for file in stem.files]
  return max(part[0] for part in parts), parts[0][1], max(part[2] for part in parts)
