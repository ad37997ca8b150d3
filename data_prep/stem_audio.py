# SPDX-License-Identifier: Apache-2.0
"""The audio of a stem: its files, read and summed."""

from data_prep.corpora.types import Stem
from stemgen_jax.audio import Samples, read_audio


def read_stem(stem: Stem) -> tuple[Samples, int]:
  """Returns the samples of a stem and its rate in Hz.

  Raises:
    UserError: if a file cannot be read; the line names it.
  """
  (file,) = stem.files
  return read_audio(file.path)
