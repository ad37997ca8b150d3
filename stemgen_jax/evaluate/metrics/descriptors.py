# SPDX-License-Identifier: Apache-2.0
"""What music information retrieval hears in a few seconds of sound: its harmony and its rhythm.

Harmony comes from notes (see `notes`), folded to pitch classes, not from a chromagram of the
spectrum: on real stems it tells right from wrong better (`fit`). Rhythm comes from librosa.
It knows one sound; `fit` compares two.
"""

import dataclasses
import math

import librosa
import numpy as np
from jaxtyping import Float
from scipy import ndimage

from stemgen_jax.audio import alignment
from stemgen_jax.audio.files import Samples, convert_audio
from stemgen_jax.audio.silence import SOUND_DB
from stemgen_jax.evaluate.metrics import notes

RATE_HZ, HOP_SAMPLES, WINDOW_SAMPLES = 22_050, 128, 2048
FLUX_RATE_HZ = RATE_HZ / HOP_SAMPLES  # 172
CHROMA_RATE_HZ = notes.RATE_HZ / notes.HOP_SAMPLES  # 86
MEL_BANDS, BAND_EDGES = 128, [0, 16, 40, 80, 128]  # about 0 to 400, 1300, 4000 and 11 000 Hz
DEPTH_DB = 80.0  # below the loudest; less is silence
TONAL = 0.4  # drums reach 0.30, the least tonal of other instruments 0.49
SMOOTH_S = 0.15  # of chroma: notes of one chord seldom begin together
CHORD_SHARPNESS = 0.1  # of the softmax over chords

# Krumhansl and Kessler (1982): how well each pitch class fits C major and C minor.
MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)
KEYS = np.stack([np.roll(profile, k) for profile in (MAJOR, MINOR) for k in range(12)])
TRIADS = np.stack(
  [
    np.roll(np.isin(np.arange(12), tones).astype(float), k)
    for tones in ((0, 4, 7), (0, 3, 7))
    for k in range(12)
  ]
)


@dataclasses.dataclass(frozen=True)
class Harmony:
  """The harmony of a sound with pitch; a frame is 1 / CHROMA_RATE_HZ.

  Attributes:
    notes: summed salience of the notes of a pitch class (C first) that surely sound.
    chroma: summed squared salience of all notes of a pitch class, smoothed over SMOOTH_S.
    keys: correlation of the mean chroma with 12 major and 12 minor keys (Krumhansl).
    chords: probability of 12 major and 12 minor triads: softmax of the cosines of chroma and
      triad over CHORD_SHARPNESS.
  """

  notes: Float[np.ndarray, "T 12"]
  chroma: Float[np.ndarray, "T 12"]
  keys: Float[np.ndarray, " 24"]
  chords: Float[np.ndarray, "T 24"]


@dataclasses.dataclass(frozen=True)
class Rhythm:
  """The rhythm of a sound that has onsets.

  Attributes:
    flux: onset strength at FLUX_RATE_HZ: of the whole spectrum, then of four bands of it.
    onsets_s: when something begins.
    tempo_bpm: its tempo, tracked in this sound alone.
  """

  flux: Float[np.ndarray, "5 F"]
  onsets_s: Float[np.ndarray, " n"]
  tempo_bpm: float


@dataclasses.dataclass(frozen=True)
class Descriptors:
  """What is heard in a sound.

  Attributes:
    harmony: None for silence, for sound without pitch (drums), and where `notes.missing_part`.
    rhythm: None for silence and for sound with fewer than two onsets.
    attacks: how surely notes begin, summed over notes, at CHROMA_RATE_HZ; None for silence and
      where `notes.missing_part`.
    duration_s: of the sound.
  """

  harmony: Harmony | None
  rhythm: Rhythm | None
  attacks: Float[np.ndarray, " T"] | None
  duration_s: float


def describe(samples: Samples, rate_hz: int, pitch: bool = True) -> Descriptors:
  """Returns what is heard in a sound of some seconds; all None for silence.

  A second of one core describes about 25 seconds. Without `pitch` only rhythm is heard.
  """
  mono = convert_audio(samples, rate_hz, RATE_HZ, 1)[0]
  duration_s = samples.shape[1] / rate_hz
  if is_silent(mono):
    return Descriptors(None, None, None, duration_s)
  rhythm = _hear_rhythm(mono)
  if not pitch or notes.missing_part():
    return Descriptors(None, rhythm, None, duration_s)
  found = notes.find_notes(mono)
  return Descriptors(
    harmony=hear_harmony(found, mono),
    rhythm=rhythm,
    attacks=np.square(found.attacks).sum(axis=1),
    duration_s=duration_s,
  )


def is_silent(mono: Float[np.ndarray, " samples"]) -> bool:
  """Returns whether sound at RATE_HZ is below SOUND_DB, or shorter than WINDOW_SAMPLES."""
  if len(mono) < WINDOW_SAMPLES:
    return True
  return float(np.square(mono, dtype=np.float64).mean()) < 10 ** (SOUND_DB / 10)


def correlate(
  x: Float[np.ndarray, "*a n"], y: Float[np.ndarray, "*a n"]
) -> Float[np.ndarray, "*a"]:
  """Returns Pearson's correlation along the last axis; 0 where either is constant."""
  x, y = (z - z.mean(axis=-1, keepdims=True) for z in (x, y))
  norm = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
  return np.divide((x * y).sum(axis=-1), norm, out=np.zeros_like(norm), where=norm > 1e-12)


def smooth(x: Float[np.ndarray, "*a n"], deviation: float, axis: int = -1) -> np.ndarray:
  """Returns an array smoothed by a Gaussian of a deviation in steps."""
  return ndimage.gaussian_filter1d(x, deviation, axis=axis)


def _hear_rhythm(mono: Float[np.ndarray, " samples"]) -> Rhythm | None:
  onsets_s = alignment.find_onsets(mono[None], RATE_HZ)
  if len(onsets_s) < 2:
    return None
  power = librosa.feature.melspectrogram(
    y=mono, sr=RATE_HZ, n_fft=WINDOW_SAMPLES, hop_length=HOP_SAMPLES, n_mels=MEL_BANDS
  )
  mel_db = librosa.power_to_db(power, top_db=DEPTH_DB)
  flux = np.vstack(
    [
      librosa.onset.onset_strength_multi(
        S=mel_db, sr=RATE_HZ, hop_length=HOP_SAMPLES, channels=channels
      )
      for channels in ([0, MEL_BANDS], BAND_EDGES)
    ]
  ).astype(np.float64)
  tempo_bpm, _ = librosa.beat.beat_track(
    onset_envelope=flux[0], sr=RATE_HZ, hop_length=HOP_SAMPLES, units="time"
  )
  return Rhythm(flux, onsets_s, float(np.ravel(tempo_bpm)[0]))


def _measure_tonality(found: notes.Notes, mono: Float[np.ndarray, " samples"]) -> float:
  """Returns the salience of the most salient note, a mean over frames weighted by their energy."""
  hop = notes.HOP_SAMPLES
  energy = librosa.feature.rms(y=mono, frame_length=WINDOW_SAMPLES, hop_length=hop)[0] ** 2
  return float(np.average(found.salience.max(axis=1), weights=energy))


def hear_harmony(found: notes.Notes, mono: Float[np.ndarray, " samples"]) -> Harmony | None:
  """Returns the harmony of a sound at RATE_HZ with these notes; None if it has no pitch (drums)."""
  if _measure_tonality(found, mono) < TONAL:
    return None
  salience = found.salience.astype(np.float64)
  sounding = _fold(np.where(salience > notes.SURE, salience, 0.0))
  chroma = smooth(_fold(np.square(salience)), SMOOTH_S * CHROMA_RATE_HZ, axis=0)
  unit = chroma / np.maximum(np.linalg.norm(chroma, axis=1, keepdims=True), 1e-12)
  likeness = np.exp(unit @ TRIADS.T / math.sqrt(3) / CHORD_SHARPNESS)
  return Harmony(
    notes=sounding,
    chroma=chroma,
    keys=correlate(np.broadcast_to(chroma.mean(axis=0), KEYS.shape), KEYS),
    chords=likeness / likeness.sum(axis=1, keepdims=True),
  )


def _fold(x: Float[np.ndarray, "T 88"]) -> Float[np.ndarray, "T 12"]:
  """Returns the sums over octaves, C first."""
  low = notes.LOWEST % 12
  padded = np.pad(x, ((0, 0), (low, -(low + notes.NOTES) % 12)))
  return padded.reshape(len(x), -1, 12).sum(axis=1)
