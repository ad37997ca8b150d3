# SPDX-License-Identifier: Apache-2.0
"""Loudness: the standard's own sine, and silence."""

import numpy as np
import pyloudnorm
import pytest

from stemgen_jax.audio.loudness import measure_lufs


@pytest.mark.parametrize("rate_hz", [16_000, 44_100, 48_000])
def test_loudness_of_the_standards_sine(rate_hz):
  """A full-scale 997 Hz sine in one channel is -3.01 LUFS; silence about it is gated out."""
  sine = np.sin(2 * np.pi * 997 * np.arange(4 * rate_hz) / rate_hz).astype(np.float32)[None]
  assert measure_lufs(sine, rate_hz) == pytest.approx(-3.01, abs=0.1)
  padded = np.concatenate([np.zeros_like(sine), sine, np.zeros_like(sine)], axis=1)
  assert measure_lufs(padded, rate_hz) == pytest.approx(-3.01, abs=0.5)
  assert measure_lufs(np.zeros_like(sine), rate_hz) == -np.inf


def test_two_channels_are_three_units_louder_than_one():
  sine = np.sin(2 * np.pi * 997 * np.arange(32_000) / 16_000).astype(np.float32)[None]
  both = measure_lufs(np.repeat(sine, 2, axis=0), 16_000)
  assert both == pytest.approx(measure_lufs(sine, 16_000) + 3.01, abs=0.01)


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize(("seconds", "rate_hz"), [(0.2, 8_000), (0.4, 44_100), (25.7, 8_000)])
def test_loudness_in_blocks_is_pyloudnorms(channels, seconds, rate_hz):
  rng = np.random.default_rng(channels)
  envelope = np.abs(np.sin(np.linspace(0, 9, round(seconds * rate_hz)))) ** 4
  sound = (0.3 * rng.normal(size=(channels, len(envelope))) * envelope).astype(np.float32)
  padded = np.pad(sound, ((0, 0), (0, max(0, round(0.4 * rate_hz) + 1 - sound.shape[1]))))
  wanted = pyloudnorm.Meter(rate_hz).integrated_loudness(padded.T)
  assert measure_lufs(sound, rate_hz) == pytest.approx(wanted, abs=1e-4)
