# SPDX-License-Identifier: Apache-2.0
"""Fit: how far a stem lies from its own context on descriptors of music information retrieval.

It is ours, judges each stem by itself, and is another quantity than StemGen's MIRDD, which compares
two populations. A descriptor was kept if it parts true stems from wrong ones: in 5 s windows of 56
songs of the demo's music, contexts a random subset of the other stems, means and areas under the
ROC curve (0.5 is chance) against the same instrument of another song (A) and the true stem half a
beat off (B):

| distance      | true | A    | B    | area A | area B |
|---------------|------|------|------|--------|--------|
| key           | 0.10 | 0.50 | 0.10 | 0.92   | 0.50   |
| chords        | 0.30 | 0.61 | 0.36 | 0.98   | 0.66   |
| consonance    | 0.49 | 0.91 | 0.57 | 0.96   | 0.69   |
| chord_changes | 0.58 | 0.90 | 0.93 | 0.83   | 0.85   |
| accents       | 0.50 | 0.89 | 0.77 | 0.94   | 0.80   |
| timing        | 0.13 | 0.64 | 0.58 | 0.89   | 0.86   |
| pulse         | 0.41 | 0.93 | 0.45 | 0.95   | 0.53   |
| note_attacks  | 0.68 | 0.95 | 0.91 | 0.83   | 0.80   |
| onsets        | 0.28 | 0.68 | 0.58 | 0.88   | 0.78   |
| fit           | 0.40 | 0.79 | 0.59 | 0.99   | 0.84   |

Left out as too weak (areas A, B, in 24 of the songs): beats tracked in each alone (0.57, 0.59),
the ratio of tempi (0.64, 0.51), onsets within 70 ms (0.67, 0.68), their offset (0.49, 0.52),
correlation of loudness (0.64, 0.62), differences of level (0.47, 0.50), of brightness (0.48, 0.50)
and of MFCC (0.48, 0.49), overlap of spectra (0.55, 0.50); and as weaker forms of the above, chroma
of the spectrum for harmony (cosine 0.78, 0.55), notes outside the context's scale (0.85, 0.47),
semitone clashes (0.72, 0.62) and correlation of one onset strength (0.92, 0.79).
"""

import math

import librosa
import mir_eval
import numpy as np
from jaxtyping import Float

from stemgen_jax.audio import alignment
from stemgen_jax.errors import UserError
from stemgen_jax.evaluate.metrics.descriptors import (
  CHROMA_RATE_HZ,
  FLUX_RATE_HZ,
  HOP_SAMPLES,
  RATE_HZ,
  SMOOTH_S,
  Descriptors,
  Harmony,
  Rhythm,
  correlate,
  smooth,
)

WEIGHTS = {
  "key": 1.0,
  "chords": 2.0,
  "consonance": 2.0,
  "chord_changes": 1.0,
  "accents": 2.0,
  "timing": 1.0,
  "pulse": 1.0,
  "note_attacks": 1.0,
  "onsets": 1.0,
}

# How rough an interval of 0 to 11 semitones is; an interval and its inversion are alike.
ROUGHNESS = np.array([0.0, 1.0, 0.6, 0.2, 0.15, 0.1, 0.8, 0.1, 0.15, 0.2, 0.6, 1.0])
CHANGE_S = 0.25  # over which harmony is seen to change
FLUX_SMOOTH_S, ATTACK_SMOOTH_S, PULSE_SMOOTH_S = 0.017, 0.035, 0.009
TOGETHER_S = 0.012  # so far apart, two accents are one
ONSET_S, BEAT_S = 0.03, 0.035  # 70 ms, the custom, parts right from wrong less
PULSE_S = (0.2, 2.5)  # from a sixteenth note to a bar


def distances(stem: Descriptors, context: Descriptors) -> dict[str, float]:
  """Returns how far a stem lies from its context on each descriptor of WEIGHTS, in [0, 1].

  0 fits best, about 1 is chance (for chords, chance is about 0.6). NaN where a descriptor does not
  apply: those of harmony where the stem or the context has no pitch (drums), those of rhythm where
  either has fewer than two onsets, all for silence. So compare means over stems of one category,
  and say how many applied.

  Args:
    stem: of as many seconds as the context, and in step with it.
    context: the mix it should fit.

  Raises:
    UserError: if they are not as long as each other.
  """
  _check_durations(stem, context)
  found = dict.fromkeys(WEIGHTS, math.nan)
  if stem.harmony and context.harmony:
    found |= {
      "key": _part_keys(stem.harmony, context.harmony),
      "chords": _part_chords(stem.harmony, context.harmony),
      "consonance": _roughen(stem.harmony, context.harmony),
      "chord_changes": _part_changes(stem.harmony, context.harmony),
    }
  if stem.rhythm and context.rhythm:
    found |= {
      "accents": _part_accents(stem.rhythm, context.rhythm),
      "timing": _rank_timing(stem.rhythm, context.rhythm),
      "pulse": _part_pulse(stem.rhythm, context.rhythm),
      "onsets": _part_onsets(stem.rhythm, context.rhythm),
    }
    if stem.attacks is not None and context.attacks is not None:
      found["note_attacks"] = _part_attacks(stem.attacks, context.attacks)
  return found


def mean_fit(found: dict[str, float]) -> float:
  """fit = sum_i w_i d_i / sum_i w_i over the distances that apply, w = WEIGHTS; NaN if none does.

  WEIGHTS gives harmony and rhythm six each: of harmony, chords and consonance two, key and chord
  changes one; of rhythm, accents two, timing, pulse, note attacks and onsets one.
  """
  weights = {name: WEIGHTS[name] for name, d in found.items() if not math.isnan(d)}
  if not weights:
    return math.nan
  return sum(w * found[name] for name, w in weights.items()) / sum(weights.values())


def align(stem: Descriptors, context: Descriptors) -> dict[str, float]:
  """Returns figures of alignment by their usual definitions; NaN where there is no rhythm.

  They part true stems from wrong ones too weakly to be part of the fit (areas A and B: beat_f
  0.75, 0.76; onset_precision 0.68, 0.66; onset_offset_ms 0.54, 0.54).

  Returns:
    beat_f: F-measure of the stem's beats, sought at the context's tempo, in the context's, within
      BEAT_S.
    onset_precision: share of the stem's onsets within 70 ms of one of the context's.
    onset_offset_ms: median of how much later than the context's these come.

  Raises:
    UserError: if they are not as long as each other.
  """
  _check_durations(stem, context)
  if not (stem.rhythm and context.rhythm):
    return dict.fromkeys(("beat_f", "onset_precision", "onset_offset_ms"), math.nan)
  matched = alignment.compare_onsets(stem.rhythm.onsets_s, context.rhythm.onsets_s)
  beats_s = (
    _track_beats(rhythm, context.rhythm.tempo_bpm) for rhythm in (stem.rhythm, context.rhythm)
  )
  return {
    "beat_f": _f_measure(*beats_s),
    "onset_precision": matched.matched / matched.stem,
    "onset_offset_ms": math.nan if matched.offset_ms is None else matched.offset_ms,
  }


def _check_durations(stem: Descriptors, context: Descriptors) -> None:
  if stem.duration_s != context.duration_s:
    raise UserError(
      "stem and context must be as long as each other;"
      f" got duration_s={stem.duration_s} and {context.duration_s}. Cut the longer one."
    )


def _miss(correlation: float | np.floating) -> float:
  """Returns 1 - max(0, r), in [0, 1] though rounding may take r above 1."""
  return float(np.clip(1 - correlation, 0, 1))


def _part_keys(stem: Harmony, context: Harmony) -> float:
  """(1 - r) / 2, r the correlation of the stem's and the context's 24 correlations with keys."""
  return _miss((1 + float(correlate(stem.keys, context.keys))) / 2)


def _part_chords(stem: Harmony, context: Harmony) -> float:
  """1 - mean_t sum_c sqrt(p_tc q_tc), p and q the probabilities of chords of stem and context.

  The mean is weighted by the stem's chroma, summed over pitch classes.
  """
  affinity = np.sqrt(stem.chords * context.chords).sum(axis=1)
  return _miss(np.average(affinity, weights=stem.chroma.sum(axis=1)))


def _roughen(stem: Harmony, context: Harmony) -> float:
  """min(1, sum_tij s_ti c_tj ROUGHNESS[(j - i) mod 12] / (sum_ti s_ti . mean ROUGHNESS)).

  s are the stem's sounding notes of pitch class i, c the context's of j, smoothed over SMOOTH_S
  and of unit sum in each frame. Notes of chance give 1.
  """
  heard = smooth(context.notes, SMOOTH_S * CHROMA_RATE_HZ, axis=0)
  heard = heard / np.maximum(heard.sum(axis=1, keepdims=True), 1e-9)
  interval = np.subtract.outer(np.arange(12), np.arange(12)) % 12
  rough = np.einsum("ti,tj,ij->", stem.notes, heard, ROUGHNESS[interval])
  sounding = (stem.notes * heard.any(axis=1, keepdims=True)).sum()
  return min(1.0, float(rough / (sounding * ROUGHNESS.mean()))) if sounding else math.nan


def _part_changes(stem: Harmony, context: Harmony) -> float:
  """1 - max(0, r), r the correlation over time of how much each one's chroma changes.

  The change at t is 1 - cos(chroma_t, chroma_(t + CHANGE_S)).
  """
  step = round(CHANGE_S * CHROMA_RATE_HZ)
  changes = []
  for chroma in (stem.chroma, context.chroma):
    unit = chroma / np.maximum(np.linalg.norm(chroma, axis=1, keepdims=True), 1e-12)
    changes.append(1 - (unit[step:] * unit[:-step]).sum(axis=1))
  return _miss(float(correlate(*changes)))


def _part_accents(stem: Rhythm, context: Rhythm) -> float:
  """1 - max(0, max_ijk rho_ijk): the best correlation of any two bands' onset strengths.

  rho_ijk is the correlation of the stem's band i with the context's band j, k frames away, k at
  most TOGETHER_S. Bands are those of `Rhythm.flux`: a kick drum can go with a bass though a
  cymbal does not.
  """
  together = round(TOGETHER_S * FLUX_RATE_HZ)
  return _miss(_correlate_lags(stem.flux, context.flux, together).max())


def _rank_timing(stem: Rhythm, context: Rhythm) -> float:
  """min(1, 2 u), u the share of shifts of the stem up to a beat either way that would fit better.

  A shift by k frames fits r_k = sqrt(mean_ij max(0, rho_ijk)^2) over the four bands; it fits better
  if r_k > max r_l, l at most TOGETHER_S. Chance is 1; circular, as loops are.
  """
  together = round(TOGETHER_S * FLUX_RATE_HZ)
  beat = min(round(60 / context.tempo_bpm * FLUX_RATE_HZ), stem.flux.shape[1] // 2)
  rho = _correlate_lags(stem.flux[1:], context.flux[1:], beat)
  likeness = np.sqrt(np.square(np.maximum(rho, 0)).mean(axis=(0, 1)))
  here = likeness[beat - together : beat + together + 1].max()
  return min(1.0, 2 * float((likeness > here).mean()))


def _part_pulse(stem: Rhythm, context: Rhythm) -> float:
  """1 - max(0, r), r the correlation of both autocorrelations of onset strength, lags PULSE_S.

  It hears tempo and metre, and no shift. Lags are at most half of the sound.
  """
  found = []
  for flux in (stem.flux[0], context.flux[0]):
    centred = smooth(flux, PULSE_SMOOTH_S * FLUX_RATE_HZ) - flux.mean()
    found.append(np.correlate(centred, centred, "full")[len(flux) - 1 :])
  first, last = (round(lag * FLUX_RATE_HZ) for lag in PULSE_S)
  lags = slice(first, min(last, stem.flux.shape[1] // 2))
  return _miss(float(correlate(found[0][lags], found[1][lags])))


def _part_onsets(stem: Rhythm, context: Rhythm) -> float:
  """1 - m / min(n_s, n_c): of n_s and n_c onsets, m pairs lie within ONSET_S, each used once."""
  pairs = mir_eval.util.match_events(context.onsets_s, stem.onsets_s, ONSET_S)
  return 1 - len(pairs) / min(len(stem.onsets_s), len(context.onsets_s))


def _part_attacks(stem: Float[np.ndarray, " T"], context: Float[np.ndarray, " T"]) -> float:
  """1 - max(0, r), r the correlation of both attacks, smoothed over ATTACK_SMOOTH_S."""
  found = (smooth(x, ATTACK_SMOOTH_S * CHROMA_RATE_HZ) for x in (stem, context))
  return _miss(float(correlate(*found)))


def _correlate_lags(
  stem: Float[np.ndarray, "I F"], context: Float[np.ndarray, "J F"], most: int
) -> Float[np.ndarray, "I J K"]:
  """Returns circular correlations of rows at shifts of -most to most; 0 for constant rows."""
  spectra, norms = [], []
  for rows in (stem, context):
    rows = smooth(rows, FLUX_SMOOTH_S * FLUX_RATE_HZ)
    rows = rows - rows.mean(axis=1, keepdims=True)
    spectra.append(np.fft.rfft(rows))
    norms.append(np.maximum(np.linalg.norm(rows, axis=1), 1e-9))
  products = spectra[0][:, None] * spectra[1].conj()[None]
  rho = np.fft.irfft(products, n=stem.shape[1]) / np.multiply.outer(*norms)[..., None]
  return np.take(rho, np.arange(-most, most + 1), axis=2, mode="wrap")


def _track_beats(rhythm: Rhythm, tempo_bpm: float) -> Float[np.ndarray, " n"]:
  return librosa.beat.beat_track(
    onset_envelope=rhythm.flux[0],
    sr=RATE_HZ,
    hop_length=HOP_SAMPLES,
    bpm=tempo_bpm,
    trim=False,
    units="time",
  )[1]


def _f_measure(stem_s: Float[np.ndarray, " n"], context_s: Float[np.ndarray, " m"]) -> float:
  return float(mir_eval.beat.f_measure(context_s, stem_s, f_measure_threshold=BEAT_S))
