# SPDX-License-Identifier: Apache-2.0
"""How loud audio is, and how far to turn it up or down: LUFS and true peaks (ITU-R BS.1770-4)."""

import math
import warnings

import numpy as np
import pyloudnorm
import soxr

from stemgen_jax.audio.files import BLOCK_S, Samples

MOST_PEAK_DBTP = -1.0  # EBU R 128: room for what a lossy encoder adds
MOST_BOOST_DB = 20.0  # a stem that hardly sounds stays quiet
OVERSAMPLING = 4
SURROUND = [0, 1, 2, 4, 5]  # the channels of 5.1 that count: all but the fourth, LFE


def measure_lufs(samples: Samples, rate_hz: int) -> float:
  """Returns the integrated loudness in LUFS; minus infinity where no block passes the gate.

  Sounds shorter than the standard's block of 0.4 s are padded to one. Of more channels than the
  standard names, those of 5.1 count.
  """
  if len(samples) > len(SURROUND):
    samples = samples[SURROUND]
  room = max(0, round(0.4 * rate_hz) + 1 - samples.shape[1])
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", RuntimeWarning)  # the mean of no blocks, where all is silent
    sound = np.pad(samples, ((0, 0), (0, room))).T
    loudness = float(pyloudnorm.Meter(rate_hz).integrated_loudness(sound))
  return loudness if math.isfinite(loudness) else -math.inf


def measure_true_peak(samples: Samples, rate_hz: int) -> float:
  """Returns the largest absolute value between and at the samples, in dBTP; silence: -inf."""
  stream = soxr.ResampleStream(1, OVERSAMPLING, len(samples), dtype="float32", quality="HQ")
  size, peak = round(BLOCK_S * rate_hz), float(np.abs(samples).max(initial=0.0))
  for start in range(0, samples.shape[1], size):
    block = np.ascontiguousarray(samples[:, start : start + size].T, np.float32)
    dense = stream.resample_chunk(block, last=start + size >= samples.shape[1])
    peak = max(peak, float(np.abs(dense).max(initial=0.0)))
  return 20 * math.log10(peak) if peak > 0 else -math.inf


def place(lufs: float, wanted_lufs: float) -> float:
  """Returns the gain in dB that brings a sound to a loudness; 0 for silence."""
  return min(MOST_BOOST_DB, wanted_lufs - lufs) if math.isfinite(lufs) else 0.0


def guard(samples: Samples, rate_hz: int) -> float:
  """Returns the gain in dB, at most 0, that keeps true peaks at MOST_PEAK_DBTP or below."""
  return min(0.0, MOST_PEAK_DBTP - measure_true_peak(samples, rate_hz))


def amplify(samples: Samples, gain_db: float) -> Samples:
  """Returns the samples, louder by a gain in dB."""
  return samples * np.float32(10 ** (gain_db / 20))
