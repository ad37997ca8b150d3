# SPDX-License-Identifier: Apache-2.0
"""Does a stem play in time with its context? Onsets of both, matched; and a loop's seam.

Onsets come from librosa, their matching from mir_eval.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import librosa
import numpy as np
from jaxtyping import Float

from stemgen_jax.audio.files import Samples, convert_blocks

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


def load() -> Callable:
  """Loads what finds and matches onsets, and returns what matches them.

  The two libraries take two seconds of one core, beside which other work can go on.
  """
  from mir_eval.util import match_events

  _ = librosa.onset.onset_detect
  return match_events


def find_onsets(samples: Samples, rate_hz: int) -> Float[np.ndarray, " n"]:
  """Returns the times of a sound's onsets in seconds (librosa's spectral flux peaks).

  Silence has none, nor has a sound shorter than one of librosa's windows.
  """
  size, room, envelope, length, loud = BLOCK_HOPS * HOP_SAMPLES, WINDOW_SAMPLES, [], 0, False
  mono = (block[0] for block in convert_blocks(samples, rate_hz, RATE_HZ, 1))
  for window, count in _cut(mono, size, room):  # spectra are far larger than their sound
    onsets = librosa.onset.onset_strength(y=window, sr=RATE_HZ, hop_length=HOP_SAMPLES)
    envelope.append(onsets[room // HOP_SAMPLES :][: min(1 + count // HOP_SAMPLES, BLOCK_HOPS)])
    length, loud = length + count, loud or bool(window.any())
  if length < WINDOW_SAMPLES or not loud:
    return np.zeros(0)
  return librosa.onset.onset_detect(
    onset_envelope=np.concatenate(envelope), sr=RATE_HZ, hop_length=HOP_SAMPLES, units="time"
  )


def _cut(
  blocks: Iterable[Float[np.ndarray, " _"]], size: int, room: int
) -> Iterator[tuple[Float[np.ndarray, " _"], int]]:
  """Yields pieces of `size` samples, the last as long as is left, and how many these are.

  Each has `room` samples on either side that belong to its neighbours; at the ends, silence.
  """
  held = np.zeros(room, np.float32)
  for block in blocks:
    held = np.concatenate([held, block])
    while len(held) > size + 2 * room:
      yield held[: size + 2 * room], size
      held = held[size:]
  held = np.pad(held, (0, room))
  while (left := len(held) - 2 * room) > 0:
    yield held[: size + 2 * room], min(size, left)
    held = held[size:]


def compare_onsets(stem_s: Float[np.ndarray, " n"], context_s: Float[np.ndarray, " m"]) -> Onsets:
  """Returns how a stem's onsets lie to its context's, both in seconds."""
  pairs = load()(context_s, stem_s, WINDOW_S)
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
