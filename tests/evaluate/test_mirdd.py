# SPDX-License-Identifier: Apache-2.0
"""MIRDD: its equation by hand, and planted populations in the right order."""

import math
from functools import cache

import numpy as np
import pytest
from test_fit import RATE_HZ, needs_notes, tone

from stemgen_jax.evaluate.metrics.mirdd import (
  PSEUDO_COUNT,
  count_bins,
  divergence,
  measure_floor,
  measure_mirdd,
)
from stemgen_jax.evaluate.metrics.mix_bins import BINS, count_together, describe_mix, find_chords

MAJOR, MINOR = (0, 4, 7), (0, 3, 7)


def test_the_divergence_is_that_of_its_equation():
  true, other = np.array([3, 1]), np.array([1, 3])
  p, q = (3 + PSEUDO_COUNT) / (4 + 2 * PSEUDO_COUNT), (1 + PSEUDO_COUNT) / (4 + 2 * PSEUDO_COUNT)
  by_hand = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
  assert divergence(true, other) == pytest.approx(by_hand)
  assert divergence(np.array([4, 0]), np.array([2, 2])) != pytest.approx(
    float(divergence(np.array([2, 2]), np.array([4, 0])))
  )  # it has a direction
  assert divergence(true, true) == 0
  several = divergence(np.stack([true, true]), np.stack([true, other]))
  np.testing.assert_allclose(several, [0, by_hand])


def draw_mixes(rng, count, key, busy):
  """Bins of mixes in keys around `key`, with about `busy` percussive notes."""
  found = []
  for _ in range(count):
    mix = {name: [0] for name in BINS}
    mix["key"] = [(key + int(rng.integers(3))) % 12]
    mix["percussive_notes"] = [int(rng.poisson(busy)) % 16]
    mix["pitches"] = (40 + key + rng.integers(12, size=20)).tolist()
    mix["note_pitch_classes"] = ((key + rng.choice([0, 2, 4, 5, 7, 9, 11], 20)) % 12).tolist()
    mix["triads"] = ((key + rng.choice([0, 5, 7], 4)) % 12).tolist()
    found.append(mix)
  return count_bins(found)


def test_planted_populations_come_in_the_right_order():
  rng, songs = np.random.default_rng(0), np.repeat(np.arange(30), 4)
  true = draw_mixes(rng, 120, 0, 3.0)
  floor = measure_floor(true)
  found = {
    name: measure_mirdd(true, draw_mixes(rng, 120, *planted), songs)
    for name, planted in {"equal": (0, 3.0), "key": (6, 3.0), "density": (0, 9.0)}.items()
  }
  mean = {name: figures["MIRDD"]["mean"] for name, figures in found.items()}
  assert mean["equal"] < 2 * floor["MIRDD"]
  assert mean["equal"] < found["key"]["MIRDD"]["low"]
  assert mean["equal"] < found["density"]["MIRDD"]["low"]
  assert found["key"]["key"]["mean"] > 5 * found["density"]["key"]["mean"]
  assert found["density"]["percussive_notes"]["mean"] > 5 * found["key"]["percussive_notes"]["mean"]
  for figures in found.values():
    assert figures["MIRDD"]["mean"] == pytest.approx(
      np.mean([value["mean"] for name, value in figures.items() if name != "MIRDD"])
    )
    assert figures["MIRDD"]["low"] < figures["MIRDD"]["high"]


@cache
def hear(chords, clicks=0):
  """The bins of four seconds of chords of MIDI notes, with as many clicks in each second."""
  sound = np.concatenate([sum(tone(note, 1.0) for note in chord) for chord in chords])
  burst = np.random.default_rng(0).standard_normal(300) * np.exp(-np.arange(300) / 50)
  for i in range(clicks * len(chords)):
    start = round((i + 0.3) / clicks * RATE_HZ)
    sound[start : start + 300] += 0.5 * burst[: len(sound) - start]
  return describe_mix(sound[None].astype(np.float32), RATE_HZ)


def chords_on(*roots, kind=MAJOR):
  return tuple(tuple(root + step for step in kind) for root in roots)


@needs_notes
def test_chords_are_heard_as_they_are():
  found = hear(chords_on(60, 65, 67, 60))
  assert found["key"] == [0]  # C major
  assert found["chord_labels"] == [3]
  assert found["triads"] == [0, 5, 7, 0]
  assert found["mode_changes"] == [0]
  assert set(found["note_pitch_classes"]) <= {0, 2, 4, 5, 7, 9, 11}
  assert found["pitch_classes"][0] >= 6
  assert 60 - 21 in found["pitches"]
  assert hear(chords_on(66, 71, 73, 66))["key"] == [6]
  minor = hear(chords_on(60, kind=MINOR) * 2 + chords_on(65) * 2)
  assert minor["triads"] == [12, 5]
  assert minor["mode_changes"] == [BINS["mode_changes"] - 2]  # every change


@needs_notes
def test_clicks_are_percussive_notes():
  few, many = (hear(chords_on(60, 65, 67, 60), clicks)["percussive_notes"][0] for clicks in (2, 8))
  assert few + 2 <= many


def test_most_in_a_window_are_counted():
  assert count_together(np.array([0.0, 0.1, 0.59, 0.61, 2.0]), 0.6) == 3
  assert count_together(np.zeros(0), 0.6) == 0


def test_a_chord_of_one_step_is_passed_over():
  chances = np.full((96, 24), 0.01)
  chances[:48, 3], chances[48:, 15] = 0.77, 0.77
  chances[24:28] = 1 / 24
  assert find_chords(chances).tolist() == [3, 15]


@needs_notes
def test_silence_and_noise_have_no_pitch():
  silent = describe_mix(np.zeros((1, 4 * RATE_HZ), np.float32), RATE_HZ)
  noise = np.random.default_rng(0).normal(size=(1, 4 * RATE_HZ)).astype(np.float32) / 10
  for found in (silent, describe_mix(noise, RATE_HZ)):
    assert found["pitches"] == found["triads"] == []
    assert found["key"] == [24]
    assert count_bins([found])["key"].tolist() == [[0] * 24 + [1]]
