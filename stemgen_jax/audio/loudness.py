# SPDX-License-Identifier: Apache-2.0
"""How loud audio is, and how far to turn it up or down: LUFS and true peaks (ITU-R BS.1770-4)."""

import math
from collections.abc import Iterable

import numpy as np
import pyloudnorm
import soxr
from jaxtyping import Float, Int
from scipy import signal

from stemgen_jax.audio.files import BLOCK_S, Samples

MOST_PEAK_DBTP = -1.0  # EBU R 128: room for what a lossy encoder adds
MOST_BOOST_DB = 20.0  # a stem that hardly sounds stays quiet
OVERSAMPLING = 4
GATE_S = 0.4  # of a block that is loud enough to count, or not
WEIGHTS = (1.0, 1.0, 1.0, 1.41, 1.41)  # of the channels: those behind the listener count more
SURROUND = [0, 1, 2, 4, 5]  # the channels of 5.1 that count: all but the fourth, LFE


def measure_lufs(samples: Samples, rate_hz: int) -> float:
  """Returns the integrated loudness in LUFS; minus infinity where no block passes the gate.

  Sounds shorter than the standard's block of 0.4 s are padded to one. Of more channels than the
  standard names, those of 5.1 count. The filters are pyloudnorm's; it would hold many times the
  sound in memory, so that they run over BLOCK_S at a time here.

  Source: ITU-R BS.1770-4, annex 1: weights of the channels, and the two gates.
  """
  if len(samples) > len(SURROUND):
    samples = samples[SURROUND]
  length = max(samples.shape[1], round(GATE_S * rate_hz) + 1)
  count = round((length / rate_hz - GATE_S) / (GATE_S / 4)) + 1
  starts = (GATE_S * np.arange(count) / 4 * rate_hz).astype(int)
  stops = np.minimum((GATE_S * (np.arange(count) / 4 + 1) * rate_hz).astype(int), length)
  edges = np.unique(np.concatenate([starts, stops]))
  power = np.zeros(count)
  for channel, weight in zip(samples, WEIGHTS, strict=False):
    at_edges = _sum_power(channel, rate_hz, edges)
    places = np.searchsorted(edges, starts), np.searchsorted(edges, stops)
    power += weight * (at_edges[places[1]] - at_edges[places[0]]) / (GATE_S * rate_hz)
  with np.errstate(divide="ignore"):
    lufs = -0.691 + 10 * np.log10(power)
    gate = lufs >= -70
    if not gate.any():
      return -math.inf
    gate &= lufs > -0.691 + 10 * np.log10(power[gate].mean()) - 10
  return float(-0.691 + 10 * np.log10(power[gate].mean())) if gate.any() else -math.inf


def _sum_power(
  channel: Float[np.ndarray, " samples"], rate_hz: int, edges: Int[np.ndarray, " edges"]
) -> Float[np.ndarray, " edges"]:
  """Returns the sum of squares of a channel, as the standard weighs it, up to each edge."""
  filters = [
    (f.b * f.passband_gain, f.a, np.zeros(max(len(f.a), len(f.b)) - 1))
    for f in pyloudnorm.Meter(rate_hz)._filters.values()
  ]
  found, total, size = np.zeros(len(edges)), 0.0, round(BLOCK_S * rate_hz)
  for start in range(0, len(channel), size):
    sound = channel[start : start + size].astype(np.float64)
    for i, (b, a, state) in enumerate(filters):
      sound, state = signal.lfilter(b, a, sound, zi=state)
      filters[i] = (b, a, state)
    sums = total + np.append(0.0, np.cumsum(np.square(sound)))
    inside = (edges >= start) & (edges <= start + len(sound))
    found[inside] = sums[edges[inside] - start]
    total = float(sums[-1])
  found[edges > len(channel)] = total
  return found


def measure_true_peak(samples: Samples, rate_hz: int) -> float:
  """Returns the largest absolute value between and at the samples, in dBTP; silence: -inf."""
  size = round(BLOCK_S * rate_hz)
  blocks = (samples[:, i : i + size] for i in range(0, samples.shape[1], size))
  return measure_peak_of_blocks(blocks, len(samples))


def measure_peak_of_blocks(blocks: Iterable[Samples], channels: int) -> float:
  """Returns the true peak of blocks of samples that follow each other, as `measure_true_peak`."""
  stream = soxr.ResampleStream(1, OVERSAMPLING, channels, dtype="float32", quality="HQ")
  peak = 0.0
  for block in blocks:
    block = np.ascontiguousarray(block.T, np.float32)
    dense = stream.resample_chunk(block)
    peak = max(peak, *(float(np.abs(x).max(initial=0.0)) for x in (block, dense)))
  end = stream.resample_chunk(np.zeros((0, channels), np.float32), last=True)
  peak = max(peak, float(np.abs(end).max(initial=0.0)))
  return 20 * math.log10(peak) if peak > 0 else -math.inf


def place(lufs: float, wanted_lufs: float) -> float:
  """Returns the gain in dB that brings a sound to a loudness; 0 for silence."""
  return min(MOST_BOOST_DB, wanted_lufs - lufs) if math.isfinite(lufs) else 0.0


def guard(samples: Samples, rate_hz: int) -> float:
  """Returns the gain in dB, at most 0, that keeps true peaks at MOST_PEAK_DBTP or below."""
  return hold(measure_true_peak(samples, rate_hz))


def hold(peak_dbtp: float) -> float:
  """Returns the gain in dB, at most 0, that brings a true peak to MOST_PEAK_DBTP or below."""
  return min(0.0, MOST_PEAK_DBTP - peak_dbtp)


def amplify(samples: Samples, gain_db: float) -> Samples:
  """Returns the samples, louder by a gain in dB."""
  return samples * np.float32(10 ** (gain_db / 20))


def turn(samples: Samples, gain_db: float) -> Samples:
  """Returns what `amplify` does, in the place of the samples if that can be written."""
  own = samples if samples.flags.writeable else None
  return np.multiply(samples, np.float32(10 ** (gain_db / 20)), out=own)
