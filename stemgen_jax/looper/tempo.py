# SPDX-License-Identifier: Apache-2.0
"""The tempo of a sound, whether it is a loop of whole bars, and where its first bar begins.

Onsets, tempo and beats are librosa's. Its tempo comes in coarse steps, so the beats refine it; and
the length of a loop says more than they do: it is so many bars exactly.
"""

import dataclasses

import librosa
import numpy as np
from jaxtyping import Float

RATE_HZ, HOP_SAMPLES = 22_050, 256  # a hop is 11.6 ms
BEATS = 4  # of a bar, as nearly all music has
SLOWEST_BPM, FASTEST_BPM, USUAL_BPM = 70.0, 180.0, 115.0
LAGS = (1, 2, 4, 8)  # beats after which a sound is like itself
LOW_HZ, LOW_BANDS = 250.0, 8  # of drum and bass, which say where a bar begins
EARLIER_S, LATER_S, RISEN = 0.06, 0.03, 0.2  # where an attack is looked for, and what it is
NEARLY = 0.85  # of the best likeness: what a loop's own length must come to
ODD = 0.8  # of what a count of bars is worth that is no power of two
CLEAR_DB, FEWEST_CLEAR = 2.5, 2  # how far bands rise where a note begins (noise: 2.3); for a tempo
SILENT = 1e-3  # of full scale: what is nowhere louder is silence


@dataclasses.dataclass(frozen=True)
class Pulse:
  """How a sound moves.

  Attributes:
    tempo_bpm: beats a minute.
    bars: of a loop that is as long as whole bars; None for any other sound.
    first_s: when the first bar begins.
  """

  tempo_bpm: float
  bars: int | None
  first_s: float


def find_pulse(mono: Float[np.ndarray, " n"], seconds: float, may_loop: bool) -> Pulse | None:
  """Returns how a sound moves; None if nothing in it tells a tempo, as in silence or a held tone.

  Args:
    mono: its samples at RATE_HZ, or the beginning of them.
    seconds: how long it is in all.
    may_loop: whether it may be taken for a loop, which `mono` then holds whole.
  """
  strength = librosa.onset.onset_strength(y=mono, sr=RATE_HZ, hop_length=HOP_SAMPLES)
  if np.abs(mono).max() < SILENT or _count_clear(strength) < FEWEST_CLEAR:
    return None
  tempo, frames = librosa.beat.beat_track(
    onset_envelope=strength, sr=RATE_HZ, hop_length=HOP_SAMPLES, start_bpm=USUAL_BPM
  )
  beats_s = np.asarray(frames) * HOP_SAMPLES / RATE_HZ
  heard_bpm = _fold(float(np.atleast_1d(tempo)[0]) or USUAL_BPM)
  if len(beats_s) >= 8:
    heard_bpm = _fold(60 / float(np.polyfit(np.arange(len(beats_s)), beats_s, 1)[0]))
  if may_loop and (bars := _count_bars(strength, seconds, heard_bpm)):
    return Pulse(bars * BEATS * 60 / seconds, bars, 0.0)
  low = librosa.onset.onset_strength(
    y=mono, sr=RATE_HZ, hop_length=HOP_SAMPLES, fmax=LOW_HZ, n_mels=LOW_BANDS
  )
  first_s = _find_attack(mono, _find_bar(low, beats_s, heard_bpm))
  return Pulse(heard_bpm, None, first_s)


def _count_clear(strength: Float[np.ndarray, " n"]) -> int:
  """Returns how many notes begin clearly."""
  frames = librosa.onset.onset_detect(onset_envelope=strength, sr=RATE_HZ, hop_length=HOP_SAMPLES)
  return int(np.sum(strength[frames] >= CLEAR_DB))


def _fold(tempo_bpm: float) -> float:
  """Returns a tempo, doubled or halved until it is a usual one."""
  while tempo_bpm < SLOWEST_BPM:
    tempo_bpm *= 2
  while tempo_bpm > FASTEST_BPM:
    tempo_bpm /= 2
  return tempo_bpm


def _count_bars(strength: Float[np.ndarray, " n"], seconds: float, heard_bpm: float) -> int | None:
  """Returns how many bars a loop has; None if its length is no whole number of its bars."""
  fewest = max(1, int(np.ceil(seconds * SLOWEST_BPM / 60 / BEATS)))
  counts = range(fewest, int(seconds * FASTEST_BPM / 60 / BEATS) + 1)
  if not counts:
    return 1 if seconds * FASTEST_BPM / 60 < BEATS else None  # less than a bar: any length is one
  likeness = _measure_likeness(strength)

  def rate(tempo_bpm: float) -> float:
    beat = 60 / tempo_bpm * RATE_HZ / HOP_SAMPLES
    lags = [lag * beat for lag in LAGS if lag * beat <= len(strength) / 2]
    near = np.interp(lags, np.arange(len(likeness)), likeness).mean() if lags else 0.0
    return float(near * np.exp(-0.5 * np.log2(tempo_bpm / USUAL_BPM) ** 2))

  worth = {n: rate(n * BEATS * 60 / seconds) * (1.0 if n & (n - 1) == 0 else ODD) for n in counts}
  bars = max(worth, key=lambda n: worth[n])
  own = rate(bars * BEATS * 60 / seconds)
  free = max(rate(heard_bpm * share) for share in (0.98, 0.99, 1.0, 1.01, 1.02))
  return bars if own > 0 and own >= NEARLY * free else None


def _measure_likeness(strength: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
  """Returns how like onsets are to themselves after each lag, of a sound that goes round."""
  power = np.abs(np.fft.rfft(strength - strength.mean())) ** 2
  likeness = np.fft.irfft(power, len(strength))
  return likeness / max(likeness[0], 1e-9)


def _find_bar(
  strength: Float[np.ndarray, " n"], beats_s: Float[np.ndarray, " b"], tempo_bpm: float
) -> float:
  """Returns when the first bar begins: of every fourth beat those where most begins."""
  if not len(beats_s):
    return 0.0
  beat_s = 60 / tempo_bpm
  first_s = float(beats_s[0] % beat_s)
  times_s = np.arange(first_s, len(strength) * HOP_SAMPLES / RATE_HZ, beat_s)
  frames = np.minimum(np.rint(times_s * RATE_HZ / HOP_SAMPLES).astype(int), len(strength) - 1)
  strong = np.array([strength[max(0, f - 2) : f + 3].max() for f in frames])
  sums = [strong[phase::BEATS].mean() for phase in range(min(BEATS, len(strong)))]
  return first_s + int(np.argmax(sums)) * beat_s


def _find_attack(mono: Float[np.ndarray, " n"], near_s: float) -> float:
  """Returns when what begins near a time grows loud: a cut there loses none of it."""
  start, stop = (max(0, round((near_s + d) * RATE_HZ)) for d in (-EARLIER_S, LATER_S))
  cell = RATE_HZ // 1000
  around = np.abs(mono[start:stop])
  around = around[: len(around) // cell * cell].reshape(-1, cell).max(axis=1)
  if not len(around) or not around.max():
    return near_s
  return (start + int(np.argmax(around >= RISEN * around.max())) * cell) / RATE_HZ
