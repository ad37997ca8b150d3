# SPDX-License-Identifier: Apache-2.0
"""Versions of a song, and what a studio does to its parts."""

import mido
import numpy as np
import pytest

from data_prep.music.parts import Part, Song, note_events
from data_prep.music.production import _BANDS_HZ, add_room, equalise, produce, saturate
from data_prep.music.versions import TAIL_S, vary

RATE_HZ = 16_000


def make_song(length_s=120.0):
  """Returns a song of a tune, one note a second, and a drum that strikes with it."""
  notes = [(float(t), t + 0.5, 60 + t % 12, 90) for t in range(int(length_s))]
  program = (0.0, mido.Message("program_change", channel=0, program=24))
  tune = Part(program=24, is_drum=False, events=(program, *note_events(notes, 0)))
  beats = [(start, end, 36, velocity) for start, end, _, velocity in notes]
  drums = Part(program=0, is_drum=True, events=tuple(note_events(beats, 9)))
  return Song(source="made", tempo_bpm=60.0, length_s=length_s + TAIL_S, parts=(tune, drums))


def onsets(part):
  return [(t, message.note) for t, message in part.events if message.type == "note_on"]


@pytest.mark.parametrize("seed", range(8))
def test_a_version_is_a_stretch_in_another_key_and_tempo(seed):
  song = make_song()
  version = vary(song, np.random.default_rng(seed), 30.0)
  tempo = version.tempo_bpm / song.tempo_bpm
  tune, drums = map(onsets, version.parts)
  assert 25.0 < version.length_s <= 30.0 + 1e-6
  assert tune[0][0] == drums[0][0] == pytest.approx(0.0)
  np.testing.assert_allclose(np.diff([t for t, _ in tune]), 1 / tempo, atol=1e-6)
  origin = np.array([pitch for _, pitch in onsets(song.parts[0])])
  pitches = np.array([pitch for _, pitch in tune])
  stretches = np.lib.stride_tricks.sliding_window_view(origin, len(pitches))
  assert any(len({*(pitches - stretch)}) == 1 for stretch in stretches)
  assert {pitch for _, pitch in drums} == {36}
  assert version.parts[0].events[0][1].type == "program_change"
  ends = [t for part in version.parts for t, m in part.events if m.type == "note_off"]
  assert len(ends) == len(tune) + len(drums)


def test_versions_differ_and_come_again():
  song = make_song()
  versions = [vary(song, np.random.default_rng(seed), 30.0) for seed in (0, 1, 0)]
  assert versions[0] == versions[2] != versions[1]


def test_a_short_song_stays_whole():
  version = vary(make_song(8.0), np.random.default_rng(0), 30.0)
  assert len(onsets(version.parts[0])) == 8


def tone(hz, seconds=1.0):
  return np.sin(2 * np.pi * hz * np.arange(int(seconds * RATE_HZ)) / RATE_HZ).astype(np.float32)


def test_the_equaliser_gives_each_band_its_gain():
  gains_db = np.array([6.0, -3.0, 0.0, -6.0, 0.0])
  for hz, gain_db in zip(_BANDS_HZ[:4], gains_db, strict=False):
    sound = tone(hz)
    made = equalise(sound, RATE_HZ, gains_db)
    ratio = np.linalg.norm(made) / np.linalg.norm(sound)
    assert 20 * np.log10(ratio) == pytest.approx(gain_db, abs=0.1)


def test_saturation_adds_odd_partials():
  spectrum = np.abs(np.fft.rfft(saturate(tone(500), 12.0)))
  assert spectrum[1500] > 0.05 * spectrum[500]
  assert spectrum[1000] < 1e-3 * spectrum[500]


def test_a_room_goes_on_after_the_sound_and_decays():
  sound = np.zeros(RATE_HZ, np.float32)
  sound[: RATE_HZ // 10] = tone(500, 0.1)
  made = add_room(sound, RATE_HZ, 0.5, -10.0, np.random.default_rng(0))
  early, late = (np.sqrt(np.mean(made[a : a + 800] ** 2)) for a in (2400, 8800))
  assert early > 1e-3
  assert 20 * np.log10(early / late) == pytest.approx(60 * 0.4 / 0.5, abs=8)


def test_a_produced_part_is_as_loud_as_before():
  sound = tone(300)
  for seed in range(5):
    made = produce(sound, RATE_HZ, np.random.default_rng(seed))
    assert made.dtype == np.float32
    assert np.std(made) == pytest.approx(np.std(sound), rel=1e-4)
  assert not produce(np.zeros(100, np.float32), RATE_HZ, np.random.default_rng(0)).any()
