# SPDX-License-Identifier: Apache-2.0
"""Fit: a stem that fits is nearer than one that does not, and silence has no distance."""

import importlib.metadata
import math
from functools import cache

import numpy as np
import pytest

from stemgen_jax.errors import UserError
from stemgen_jax.evaluate.metrics import notes
from stemgen_jax.evaluate.metrics.descriptors import correlate, describe
from stemgen_jax.evaluate.metrics.fit import WEIGHTS, align, distances, mean_fit

RATE_HZ = 16_000
HARMONY = {"key", "chords", "consonance", "chord_changes"}
PIANO = ((60, 64, 67), (65, 69, 72), (67, 71, 74), (60, 64, 67), (57, 60, 64), (65, 69, 72))
ROOTS = ((36,), (41,), (43,), (36,), (45,), (41,))
needs_notes = pytest.mark.skipif(
  notes.missing_part() is not None, reason="the network that finds notes is not installed"
)


def tone(note, seconds):
  """A plucked sound of eight harmonics."""
  t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
  pitch_hz = 440 * 2 ** ((note - 69) / 12)
  partials = sum(np.sin(2 * np.pi * pitch_hz * k * t) / k for k in range(1, 9))
  return 0.1 * partials * np.exp(-2 * t)


@cache
def hear_chords(chords, seconds=0.6):
  """Descriptors of chords, one after the other, each a tuple of MIDI notes."""
  sound = np.concatenate([sum(tone(note, seconds) for note in chord) for chord in chords])
  return describe(sound[None].astype(np.float32), RATE_HZ)


@cache
def hear_clicks(shift_s=0.0, spacing_s=0.5, end_s=4.6):
  """Descriptors of clicks until `end_s`, of five seconds, louder and softer by turns of four."""
  rng, sound = np.random.default_rng(0), np.zeros(5 * RATE_HZ, np.float32)
  burst = rng.standard_normal(400) * np.exp(-np.arange(400) / 60)
  for i, click_s in enumerate(np.arange(0.1, end_s, spacing_s)):
    start = round((click_s + shift_s) * RATE_HZ)
    sound[start : start + len(burst)] += (0.5, 0.2, 0.35, 0.2)[i % 4] * burst
  return describe(sound[None], RATE_HZ)


@needs_notes
def test_a_bass_on_the_roots_is_nearer_than_a_tritone_off():
  tritone = tuple((note + 6,) for (note,) in ROOTS)
  right, wrong = (distances(hear_chords(stem), hear_chords(PIANO)) for stem in (ROOTS, tritone))
  assert right["key"] < 0.2 < 0.7 < wrong["key"] <= 1
  assert right["chords"] < 0.4 < 0.8 < wrong["chords"] <= 1
  assert right["consonance"] < 0.4 < 0.9 < wrong["consonance"] <= 1
  assert mean_fit(right) < 0.3 < mean_fit(wrong)


@needs_notes
def test_keys_and_chords_have_their_names():
  heard = hear_chords(PIANO).harmony
  assert heard.keys.argmax() == 0  # C major
  middle = [heard.chords[round((i + 0.5) * 0.6 * 86)].argmax() for i in range(len(PIANO))]
  assert middle == [0, 5, 7, 0, 12 + 9, 5]  # C, F, G, C, A minor, F


@needs_notes
def test_chords_that_change_with_the_context_are_nearer_than_ones_that_change_between():
  halves = tuple(chord for chord in PIANO for _ in range(2))
  late = (PIANO[0], *halves)[: len(halves)]
  together, between = (
    distances(hear_chords(stem, 0.3), hear_chords(PIANO))["chord_changes"]
    for stem in (halves, late)
  )
  assert together < 0.1 < 0.8 < between


def test_clicks_half_a_beat_off_are_further_in_rhythm():
  context = hear_clicks()
  right, wrong = (distances(hear_clicks(shift_s), context) for shift_s in (0.0, 0.25))
  for name in ("accents", "onsets"):
    assert right[name] == pytest.approx(0, abs=1e-6)
    assert wrong[name] > 0.9
  assert right["timing"] == 0
  assert wrong["timing"] > 0.3
  assert wrong["pulse"] == pytest.approx(0, abs=0.05)  # which hears no shift
  assert 0 <= mean_fit(right) < 0.05 < 0.4 < mean_fit(wrong)


def test_clicks_of_another_tempo_have_another_pulse():
  assert distances(hear_clicks(0.0, 0.37), hear_clicks())["pulse"] > 0.8
  assert distances(hear_clicks(end_s=3.1), hear_clicks())["pulse"] < 0.3


@needs_notes
def test_note_attacks_are_heard_where_clicks_are():
  right, wrong = (
    distances(hear_clicks(shift_s), hear_clicks())["note_attacks"] for shift_s in (0.0, 0.25)
  )
  assert right == pytest.approx(0, abs=1e-6)
  assert wrong > 0.9


def test_usual_figures_of_alignment():
  assert align(hear_clicks(), hear_clicks()) == {
    "beat_f": 1.0,
    "onset_precision": 1.0,
    "onset_offset_ms": 0.0,
  }
  late = align(hear_clicks(0.05), hear_clicks())
  assert late["onset_offset_ms"] == pytest.approx(50, abs=6)  # a hop
  assert late["onset_precision"] == 1
  assert late["beat_f"] < 0.5
  off = align(hear_clicks(0.25), hear_clicks())
  assert off["onset_precision"] == 0
  assert math.isnan(off["onset_offset_ms"])


@needs_notes
def test_sound_without_pitch_has_rhythm_and_no_harmony():
  clicks = hear_clicks()
  assert clicks.harmony is None
  assert hear_chords(PIANO).harmony is not None
  found = distances(clicks, clicks)
  assert {name for name, d in found.items() if math.isnan(d)} == HARMONY


@pytest.mark.parametrize("samples", [80_000, 100])
def test_silence_has_no_distance(samples):
  silence = describe(np.zeros((1, samples), np.float32), RATE_HZ)
  found = distances(silence, silence)
  assert found.keys() == WEIGHTS.keys()
  assert all(math.isnan(d) for d in (*found.values(), *align(silence, silence).values()))
  assert math.isnan(mean_fit(found))


def test_one_silent_side_is_enough():
  silence = describe(np.zeros((1, 5 * RATE_HZ), np.float32), RATE_HZ)
  for pair in ((silence, hear_clicks()), (hear_clicks(), silence)):
    assert math.isnan(mean_fit(distances(*pair)))


def test_music_fits_itself(music):
  heard = describe(music, RATE_HZ)
  found = distances(heard, heard)
  assert all(0 <= d <= 1 for d in found.values() if not math.isnan(d))
  assert found["accents"] == pytest.approx(0, abs=1e-6)
  assert found["onsets"] == found["timing"] == 0
  if heard.harmony:
    assert heard.harmony.keys.argmax() % 12 in (0, 5, 7, 9)  # C major, or next to it
    assert found["chords"] == pytest.approx(0, abs=1e-6)


def test_a_stem_of_another_length_is_refused():
  short = describe(np.zeros((1, 4 * RATE_HZ), np.float32), RATE_HZ)
  for compare in (distances, align):
    with pytest.raises(UserError, match=r"as long as each other; got duration_s=4\.0 and 5\.0"):
      compare(short, hear_clicks())


def test_weights_are_those_of_the_docstring():
  harmony = {name: w for name, w in WEIGHTS.items() if name in HARMONY}
  assert harmony == {"key": 1, "chords": 2, "consonance": 2, "chord_changes": 1}
  assert {name: w for name, w in WEIGHTS.items() if name not in HARMONY} == {
    "accents": 2,
    "timing": 1,
    "pulse": 1,
    "note_attacks": 1,
    "onsets": 1,
  }
  found = dict.fromkeys(WEIGHTS, math.nan)
  assert mean_fit(found | {"chords": 0.6, "pulse": 0.3}) == pytest.approx((2 * 0.6 + 0.3) / 3)


def test_the_correlation_of_what_is_constant_is_zero():
  x = np.array([[1.0, 2.0, 4.0], [3.0, 3.0, 3.0]])
  np.testing.assert_allclose(correlate(x, -x), [-1, 0])


@pytest.mark.parametrize(
  ("part", "line"),
  [
    ("find_spec", "onnxruntime is not installed. Run: pip install onnxruntime"),
    ("files", "nmp.onnx of basic-pitch is not installed. Run: pip install --no-deps basic-pitch"),
  ],
)
def test_without_the_network_there_is_rhythm_and_a_reason(monkeypatch, part, line):
  def files(name):
    raise importlib.metadata.PackageNotFoundError(name)

  monkeypatch.setattr("importlib.util.find_spec", lambda name: part == "files" or None)
  monkeypatch.setattr("importlib.metadata.files", files)
  assert line in notes.missing_part()
  with pytest.raises(UserError, match="pip install"):
    notes.find_notes(np.zeros(22_050, np.float32))
  heard = describe(0.1 * np.sin(np.arange(80_000, dtype=np.float32) ** 1.3)[None], RATE_HZ)
  assert heard.harmony is heard.attacks is None
