# SPDX-License-Identifier: Apache-2.0
"""A stem over its context: as loud as asked, what is kept in its place, never above full scale."""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float

from stemgen_jax.audio import alignment, loudness
from stemgen_jax.audio.files import BLOCK_S, Samples

SILENT_CONTEXT_LUFS = -17.0  # what a stem is placed against where there is no music
FADE_S = 0.01  # from what is kept to what is new


@dataclasses.dataclass(frozen=True)
class Context:
  """The music under a stem, measured once for all takes.

  Attributes:
    samples: as they are.
    rate_hz: their rate.
    lufs: their loudness; SILENT_CONTEXT_LUFS where there is none.
  """

  samples: Samples
  rate_hz: int
  lufs: float

  @classmethod
  def measure(cls, samples: Samples, rate_hz: int) -> "Context":
    """Returns the music with what is to be known of it."""
    lufs = loudness.measure_lufs(samples, rate_hz)
    lufs = lufs if math.isfinite(lufs) else SILENT_CONTEXT_LUFS
    return cls(samples, rate_hz, lufs)

  @functools.cached_property
  def onsets_s(self) -> Float[np.ndarray, " n"]:
    """When something begins; found when it is first asked for, as stems can be heard before."""
    return alignment.find_onsets(self.samples, self.rate_hz)


def place_stem(
  stem: Samples, context: Context, level_lu: float | None, kept: bool = False
) -> tuple[Samples, dict[str, float | None]]:
  """Returns the stem at `level_lu` over the context's loudness, and what was done to it.

  Loudness is that of the stem as `mix_stem` lets it be heard: in two channels a mono stem is 3 LU
  louder than alone. None leaves its level. True peaks are held, but where samples of it are `kept`,
  which stay as they are. Silence has no loudness: None. What is done to the stem is done in its
  own place, as it may be an hour long.
  """
  gain_db, rate_hz = 0.0, context.rate_hz
  if level_lu is not None:
    heard_lufs = loudness.measure_lufs(spread(stem, len(context.samples)), rate_hz)
    gain_db = loudness.place(heard_lufs, context.lufs + level_lu)
  placed = loudness.turn(stem, gain_db) if gain_db else stem
  held_db = 0.0 if kept else loudness.guard(placed, rate_hz)
  placed = loudness.turn(placed, held_db) if held_db else placed
  return placed, {
    "gain_db": gain_db + held_db,
    "lufs": _finite(loudness.measure_lufs(spread(placed, len(context.samples)), rate_hz)),
    "true_peak_dbtp": _finite(loudness.measure_true_peak(placed, rate_hz)),
  }


def mix_stem(stem: Samples, context: Context) -> dict[str, float]:
  """Returns the gain in dB that the stem over the context asks for by its true peaks."""
  blocks = mix_blocks(stem, context.samples, context.rate_hz)
  peak_dbtp = loudness.measure_peak_of_blocks(blocks, len(context.samples))
  return {"mix_gain_db": loudness.hold(peak_dbtp)}


def mix_blocks(
  stem: Samples, context: Samples, rate_hz: int, gain_db: float = 0.0
) -> Iterator[Samples]:
  """Yields the stem over the context, turned down as a whole by a gain, BLOCK_S at a time."""
  size = max(1, round(BLOCK_S * rate_hz))
  for start in range(0, stem.shape[1], size):
    at = slice(start, start + size)
    mix = context[:, at] + spread(stem[:, at], len(context))
    mix *= np.float32(10 ** (gain_db / 20))
    yield mix


def spread(stem: Samples, channels: int) -> Samples:
  """Returns the stem in the channels of its music.

  If it has others, it is heard in the middle: in all of one or two, in the first two of more.
  """
  if len(stem) == channels:
    return stem
  mean = stem.mean(axis=0, keepdims=True) if len(stem) > 1 else stem
  if channels <= 2:
    return np.broadcast_to(mean, (channels, stem.shape[1]))  # which takes no memory
  heard = np.zeros((channels, stem.shape[1]), stem.dtype)
  heard[:2] = mean
  return heard


def splice(new: Samples, old: Samples, keep_s: list[tuple[float, float]], rate_hz: int) -> Samples:
  """Returns `new` with the samples of `old` in the stretches to keep, all of them as they are.

  Old and new fade into each other outside of the stretches. `new` is held below full scale, and
  brought to the channels of `old`; beyond its end its last sample is held for the length of the
  fade.
  """
  new = loudness.amplify(new, loudness.guard(new, rate_hz))
  if len(old) != len(new):
    new = np.repeat(new.mean(axis=0, keepdims=True), len(old), axis=0)
  length = min(old.shape[1], new.shape[1])
  share = np.zeros(new.shape[1], np.float32)  # of the old
  fade = max(1, round(FADE_S * rate_hz))
  ramp = np.arange(1, fade + 1, dtype=np.float32) / (fade + 1)
  for start_s, stop_s in keep_s:
    start, stop = round(start_s * rate_hz), min(round(stop_s * rate_hz), length)
    if stop <= start:
      continue
    share[start:stop] = 1.0
    before, after = share[max(0, start - fade) : start], share[stop : stop + fade]
    np.maximum(before, ramp[fade - len(before) :], out=before)
    np.maximum(after, ramp[::-1][: len(after)], out=after)
  room = max(0, new.shape[1] - old.shape[1])
  kept = np.pad(old, ((0, 0), (0, room)), mode="edge")[:, : new.shape[1]]
  return np.where(share == 1.0, kept, new + share * (kept - new))


def describe(stem: Samples, context: Context, loop: bool) -> dict[str, Any]:
  """Returns how a stem's onsets lie to its context's, and how a loop closes."""
  own_s = alignment.find_onsets(stem, context.rate_hz)
  onsets = alignment.compare_onsets(own_s, context.onsets_s)
  report: dict[str, Any] = {"onsets": dataclasses.asdict(onsets)}
  if loop:
    report["seam"] = alignment.measure_seam(stem)
  return report


def _finite(db: float) -> float | None:
  return db if math.isfinite(db) else None
