# SPDX-License-Identifier: Apache-2.0
"""Haze is noise between notes and partials, whatever its level and its rate."""

import math

import numpy as np
import pytest

from stemgen_jax.evaluate.metrics.haze import measure_flatness, measure_haze

RATE_HZ = 22_050


@pytest.fixture(scope="module")
def notes():
  """Twelve notes of five partials each, with rests between them."""
  sound, size = np.zeros(5 * RATE_HZ), round(0.3 * RATE_HZ)
  t = np.arange(size) / RATE_HZ
  for i, pitch_hz in enumerate([110, 147, 165, 220] * 3):
    note = sum(np.sin(2 * np.pi * pitch_hz * k * t) / k for k in range(1, 6)) * np.exp(-3 * t)
    start = round(0.4 * i * RATE_HZ)
    sound[start : start + size] += note * np.minimum(1, np.arange(size)[::-1] / 400)
  return sound.astype(np.float32)[None]


def haze_of(notes, noise_db):
  rng = np.random.default_rng(0)
  level = np.sqrt(np.square(notes).mean()) * 10 ** (noise_db / 20)
  return measure_haze(0.1 * (notes + level * rng.normal(size=notes.shape)).astype("f4"), RATE_HZ)


def test_noise_between_the_notes_is_heard_and_more_of_it_more(notes):
  found = [haze_of(notes, noise_db) for noise_db in (-80, -50, -40, -30, -20)]
  assert found == sorted(found)
  assert found[0] == pytest.approx(-68, abs=2)
  assert np.diff(found[2:]) == pytest.approx([7.5, 8], abs=1)


def test_neither_level_nor_rate_matters(notes):
  plain = measure_haze(0.1 * notes, RATE_HZ)
  assert measure_haze(0.01 * notes, RATE_HZ) == pytest.approx(plain, abs=0.01)
  twice = np.repeat(notes, 2, axis=1)  # with images above, which the resampling takes away
  assert measure_haze(0.1 * twice, 2 * RATE_HZ) == pytest.approx(plain, abs=3)


def test_silence_has_none(notes):
  assert math.isnan(measure_haze(0 * notes, RATE_HZ))
  assert math.isnan(measure_flatness(0 * notes, RATE_HZ))


def test_a_low_note_that_is_a_rumble_is_flatter_than_one_of_lines():
  rng, t = np.random.default_rng(0), np.arange(5 * RATE_HZ) / RATE_HZ
  lines = sum(np.sin(2 * np.pi * 55 * k * t) / k for k in range(1, 12))
  wander = np.cumsum(rng.normal(size=t.shape)) / 40  # a phase that drifts smears every partial
  rumble = sum(np.sin(2 * np.pi * 55 * k * t + k * wander) / k for k in range(1, 12))
  noise = rng.normal(size=t.shape)
  found = [measure_flatness(0.1 * x[None].astype("f4"), RATE_HZ) for x in (lines, rumble, noise)]
  assert found == sorted(found)
  assert found[0] < 0.001
  assert found[1] > 20 * found[0]
  assert found[2] == pytest.approx(0.56, abs=0.03)
  louder = measure_flatness(0.9 * rumble[None].astype("f4"), RATE_HZ)
  assert louder == pytest.approx(found[1], rel=0.01)
