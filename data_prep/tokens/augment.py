# SPDX-License-Identifier: Apache-2.0
"""Other keys and tempi of a song: pitch shift and tempo stretch, alike for all its stems."""

import dataclasses

import numpy as np
import python_stretch.Signalsmith
import soxr
from jaxtyping import Float

from data_prep.tokens.contexts import make_rng

MAX_SEMITONES, MAX_TEMPO = 3, 1.1


@dataclasses.dataclass(frozen=True)
class Augmentation:
  """A version of a song.

  Attributes:
    semitones: how much higher it sounds.
    tempo: how many times as fast it is.
  """

  semitones: int
  tempo: float

  @property
  def suffix(self) -> str:
    """Returns what the song's name gets, as `+2st_x1.05`."""
    return f"{self.semitones:+d}st_x{self.tempo:.2f}"


def draw_augmentation(seed: int, song: str, version: int) -> Augmentation:
  """Returns a version of a song, by (seed, song, version) alone; versions of a song differ in key.

  Semitones: the song's own random order of -3 to 3 without 0, taken in turn. Tempo: log-uniform
  from 1/1.1 to 1.1, to two decimals.
  """
  order = make_rng(seed, f"{song}/augment", 0).permutation([-3, -2, -1, 1, 2, 3])
  rng = make_rng(seed, f"{song}/augment", 1 + version)
  tempo = MAX_TEMPO ** rng.uniform(-1, 1)
  return Augmentation(int(order[version % len(order)]), round(float(tempo), 2))


def augment_stems(
  stems: Float[np.ndarray, "S channels samples"], rate_hz: int, augmentation: Augmentation
) -> Float[np.ndarray, "S channels new_samples"]:
  """Returns the stems in another key and tempo, round(samples / tempo) long, in time and in tune.

  The tempo is changed by Signalsmith Stretch, all stems in one analysis; the key by resampling what
  was stretched by as much, which is exact: Stretch's own transposition put a tone of 220 Hz a tenth
  of a semitone off. Samples may pass full scale.
  """
  ratio = 2.0 ** (augmentation.semitones / 12.0)
  length = round(stems.shape[-1] / augmentation.tempo)
  stretch = python_stretch.Signalsmith.Stretch()
  flat = np.ascontiguousarray(stems.reshape(-1, stems.shape[-1]), np.float32)
  stretch.preset(len(flat), float(rate_hz))
  stretch.setTimeFactor(augmentation.tempo / ratio)
  out = np.asarray(stretch.process(flat))
  if augmentation.semitones:
    out = soxr.resample(out.T, ratio, 1.0, quality="HQ").T
  out = np.pad(out, ((0, 0), (0, max(0, length - out.shape[-1]))))[:, :length]
  return np.ascontiguousarray(out, np.float32).reshape(*stems.shape[:2], length)
