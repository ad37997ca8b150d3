# SPDX-License-Identifier: Apache-2.0
"""What a studio does to a part, and SoundFonts do not: equaliser, saturation, a room.

Every effect keeps the part's loudness in place and its notes where they are.
"""

import numpy as np
from jaxtyping import Float
from scipy import signal

Mono = Float[np.ndarray, " samples"]

_CHANCE = {"equaliser": 0.7, "saturation": 0.3, "room": 0.5}
_BANDS_HZ = (60.0, 250.0, 1000.0, 4000.0, 12_000.0)
_BAND_DB = 6.0  # the gain of a band is uniform within plus and minus this
_DRIVE_DB = (0.0, 18.0)  # of the part's peak over the level at which tanh bends by a quarter
_DECAY_S = (0.2, 1.2)  # until the room is 60 dB down
_WET_DB = (-22.0, -10.0)  # of the room beside the part itself


def produce(sound: Mono, rate_hz: int, rng: np.random.Generator) -> Mono:
  """Returns a part as a studio might give it back, at the RMS that it had."""
  level = np.sqrt(np.mean(np.square(sound)))
  if not level:
    return sound
  made = sound
  if rng.random() < _CHANCE["equaliser"]:
    made = equalise(made, rate_hz, rng.uniform(-_BAND_DB, _BAND_DB, len(_BANDS_HZ)))
  if rng.random() < _CHANCE["saturation"]:
    made = saturate(made, float(rng.uniform(*_DRIVE_DB)))
  if rng.random() < _CHANCE["room"]:
    made = add_room(made, rate_hz, float(rng.uniform(*_DECAY_S)), float(rng.uniform(*_WET_DB)), rng)
  return (made * (level / np.sqrt(np.mean(np.square(made))))).astype(np.float32)


def equalise(sound: Mono, rate_hz: int, gains_db: Float[np.ndarray, " bands"]) -> Mono:
  """Returns the sound with gains at `_BANDS_HZ`, linear in dB over the octaves between them."""
  frequencies = np.fft.rfftfreq(len(sound), 1 / rate_hz).clip(min=1.0)
  curve = np.interp(np.log(frequencies), np.log(_BANDS_HZ), gains_db)
  return np.fft.irfft(np.fft.rfft(sound) * 10 ** (curve / 20), len(sound))


def saturate(sound: Mono, drive_db: float) -> Mono:
  """Returns the sound bent by tanh, its peak driven so far beyond the straight part."""
  drive = 10 ** (drive_db / 20) / np.abs(sound).max()
  return np.tanh(drive * sound) / drive


def add_room(
  sound: Mono, rate_hz: int, decay_s: float, wet_db: float, rng: np.random.Generator
) -> Mono:
  """Returns the sound in a room: noise that decays by 60 dB in `decay_s`, `wet_db` beside it."""
  time_s = np.arange(round(decay_s * rate_hz)) / rate_hz
  answer = rng.standard_normal(len(time_s)) * 10 ** (-3 * time_s / decay_s)
  wet = signal.oaconvolve(sound, answer / np.linalg.norm(answer))[: len(sound)]
  return sound + 10 ** (wet_db / 20) * wet
