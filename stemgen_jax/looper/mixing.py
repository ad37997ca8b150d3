# SPDX-License-Identifier: Apache-2.0
"""What is heard: lanes at their levels and in their places, as the browser plays them."""

import math
from collections.abc import Callable

import numpy as np

from stemgen_jax.audio.files import Samples
from stemgen_jax.audio.loudness import amplify
from stemgen_jax.looper.document import Lane


def place(samples: Samples, lane: Lane) -> Samples:
  """Returns a lane's sound in two channels, at its level and in its place.

  Source: Web Audio API, StereoPannerNode, "stereo panning algorithm": a sound of one channel is
  3 dB softer on either side when it is in the middle; of two channels one is moved into the other.
  """
  samples = amplify(samples, lane.level_db)
  if len(samples) == 1:
    angle = (lane.pan + 1) * math.pi / 4
    return np.concatenate([samples * np.float32(g) for g in (math.cos(angle), math.sin(angle))])
  left, right = samples[0], samples[1]
  angle = (lane.pan + 1 if lane.pan <= 0 else lane.pan) * math.pi / 2
  stay, move = np.float32(math.cos(angle)), np.float32(math.sin(angle))
  if lane.pan <= 0:
    return np.stack([left + right * stay, right * move])
  return np.stack([left * stay, right + left * move])


def mix(lanes: list[Lane], read: Callable[[str], Samples], length: int) -> Samples:
  """Returns the sum of lanes as they sound, in two channels; silence if there are none.

  Args:
    lanes: those that are heard, each with an active take.
    read: the sound of a take by its id.
    length: of the loop, in samples.
  """
  heard = np.zeros((2, length), np.float32)
  for lane in lanes:
    if lane.active:
      heard += place(read(lane.active), lane)
  return heard
