# SPDX-License-Identifier: Apache-2.0
"""Does a stem play in time with its context? Onsets of both, matched; and a loop's seam.

Onsets come from librosa, their matching from mir_eval.
"""

import dataclasses

import librosa
import mir_eval
import numpy as np
from jaxtyping import Float

from stemgen_jax.audio.files import Samples, convert_audio

RATE_HZ, HOP_SAMPLES, WINDOW_SAMPLES = 22_050, 128, 2048  # a hop is 5.8 ms
BLOCK_HOPS = 10_000  # about a minute
WINDOW_S = 0.07  # an onset this near to the other's is one with it


@dataclasses.dataclass(frozen=True)
class Onsets:
  """How a stem's onsets lie to its context's.

  Attributes:
    stem: how many the stem has.
    context: how many the context has.
    matched: how many of the stem's lie within WINDOW_S of one of the context's, each used once.
    offset_ms: median of how much later than the context's they come; None if none matched.
  """

  stem: int
  context: int
  matched: int
  offset_ms: float | None


def find_onsets(samples: Samples, rate_hz: int) -> Float[np.ndarray, " n"]:
  """Returns the times of a sound's onsets in seconds (librosa's spectral flux peaks).

  Silence has none, nor has a sound shorter than one of librosa's windows.
  """
  mono = convert_audio(samples, rate_hz, RATE_HZ, 1)[0]
  if len(mono) < WINDOW_SAMPLES or not mono.any():
    return np.zeros(0)
  size, room = BLOCK_HOPS * HOP_SAMPLES, WINDOW_SAMPLES
  padded, envelope = np.pad(mono, room), []
  for start in range(0, len(mono), size):  # in blocks: spectra are far larger than their sound
    count = 1 + (min(start + size, len(mono)) - start) // HOP_SAMPLES
    block = librosa.onset.onset_strength(
      y=padded[start : start + size + 2 * room], sr=RATE_HZ, hop_length=HOP_SAMPLES
    )
    envelope.append(block[room // HOP_SAMPLES :][: min(count, BLOCK_HOPS)])
  return librosa.onset.onset_detect(
    onset_envelope=np.concatenate(envelope), sr=RATE_HZ, hop_length=HOP_SAMPLES, units="time"
  )


def compare_onsets(stem_s: Float[np.ndarray, " n"], context_s: Float[np.ndarray, " m"]) -> Onsets:
  """Returns how a stem's onsets lie to its context's, both in seconds."""
  pairs = mir_eval.util.match_events(context_s, stem_s, WINDOW_S)
  late_s = [stem_s[j] - context_s[i] for i, j in pairs]
  offset_ms = float(1000 * np.median(late_s)) if late_s else None
  return Onsets(len(stem_s), len(context_s), len(pairs), offset_ms)


def measure_seam(samples: Samples) -> dict[str, float]:
  """Returns a loop's step and change of slope from its last sample to its first.

  Each as a multiple of the median inside of the file, over the sounding part: about 1 where the
  loop closes as smoothly as it runs, far more where it clicks.
  """
  inside = samples.astype(np.float64)
  round_twice = np.take(inside, range(-2, 2), axis=1, mode="wrap")
  step, slope = (np.abs(np.diff(inside, n)) for n in (1, 2))
  seam_step = np.abs(np.diff(round_twice, 1))[:, 1].max()
  seam_slope = np.abs(np.diff(round_twice, 2)).max()
  return {
    "step": _ratio(seam_step, step),
    "slope": _ratio(seam_slope, slope),
  }


def _ratio(seam: float, inside: Float[np.ndarray, "c n"]) -> float:
  sounding = inside[inside > 0]
  return float(seam / np.median(sounding)) if sounding.size else 0.0
