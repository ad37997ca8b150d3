# SPDX-License-Identifier: Apache-2.0
"""Tempo and bars of rendered rhythms, and what is cut out of a file."""

import dataclasses

import numpy as np
import pytest
import soundfile

from stemgen_jax.errors import UserError
from stemgen_jax.looper import song
from stemgen_jax.looper.document import RATE_HZ, Song
from stemgen_jax.training.model_bundle import EXAMPLE


def write_rhythm(path, bpm, seconds, first_s=0.0):
  """Writes a low drum on the first of four beats, and noise on the others."""
  rng = np.random.default_rng(0)
  time_s = np.arange(8000) / RATE_HZ
  kick = 0.9 * np.exp(-time_s * 22) * np.sin(2 * np.pi * 60 * time_s)
  hat = 0.5 * np.exp(-time_s * 73) * rng.standard_normal(len(time_s))
  sound = np.zeros(round(seconds * RATE_HZ) + len(time_s))
  for beat in range(int((seconds - first_s) * bpm / 60 - 1e-6) + 1):
    at = round((first_s + beat * 60 / bpm) * RATE_HZ)
    sound[at : at + len(time_s)] += (hat if beat % 4 else kick)[: len(sound) - at]
  soundfile.write(path, sound[: round(seconds * RATE_HZ)], RATE_HZ)
  return path


def find_song(path, name):
  found, heard = song.find_song(path, name, song.check(path, name), Song())
  assert heard
  return found


@pytest.mark.parametrize(("bpm", "bars"), [(120, 4), (140, 4), (92.5, 2), (100, 8)])
def test_a_loop_is_kept_whole_with_its_bars(tmp_path, bpm, bars):
  seconds = bars * 240 / bpm
  path = write_rhythm(tmp_path / "loop.wav", bpm, seconds)
  found = find_song(path, "loop")
  assert found.bars == bars
  assert found.tempo_bpm == pytest.approx(bpm, rel=1e-4)
  assert (found.offset_s, found.loop_samples) == (0, round(seconds * RATE_HZ))


def test_the_example_has_five_bars():
  found = find_song(EXAMPLE, "example")
  assert (found.bars, found.loop_samples) == (5, 321_576)


@pytest.mark.parametrize(("bpm", "first_s", "seconds"), [(97.3, 0.31, 20), (88, 1.0, 45)])
def test_of_a_longer_piece_whole_bars_are_cut_from_the_first_one(tmp_path, bpm, first_s, seconds):
  path = write_rhythm(tmp_path / "piece.wav", bpm, seconds, first_s)
  found = find_song(path, "piece")
  assert found.tempo_bpm == pytest.approx(bpm, rel=0.003)
  assert found.offset_s == pytest.approx(first_s, abs=0.012)
  assert found.bars in (4, 8)
  cut = song.read_part(path, found.offset_s, found, "piece")
  assert cut.shape == (1, found.loop_samples)
  whole, _ = soundfile.read(path, dtype="float32")
  start = round(found.offset_s * RATE_HZ)
  np.testing.assert_allclose(cut[0], whole[start : start + found.loop_samples], atol=1e-4)


@pytest.mark.parametrize("seconds", [0.6, 7.0, 40.0])
@pytest.mark.parametrize("kind", ["silence", "tone", "noise"])
def test_where_no_tempo_is_heard_the_pages_own_holds(tmp_path, kind, seconds):
  time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
  sound = {
    "silence": np.zeros(len(time_s)),
    "tone": 0.3 * np.sin(2 * np.pi * 200 * time_s),
    "noise": 0.1 * np.random.default_rng(0).standard_normal(len(time_s)),
  }[kind]
  path = tmp_path / "held.wav"
  soundfile.write(path, sound, RATE_HZ)
  own = Song(tempo_bpm=75.0, beats_per_bar=3)  # a bar is 2.4 s
  found, heard = song.find_song(path, "held", song.check(path, "held"), own)
  assert not heard
  assert (found.tempo_bpm, found.beats_per_bar, found.offset_s) == (75, 3, 0)
  assert found.bars == {0.6: 1, 7.0: 2, 40.0: 4}[seconds]
  assert "No tempo was heard in 'held'" in song.tell(found, seconds, heard)
  begun = dataclasses.replace(own, bars=5).begin()
  found, _ = song.find_song(path, "held", song.check(path, "held"), begun)
  assert dataclasses.replace(found, name="") == begun


def test_a_short_sound_is_padded_and_rates_and_channels_are_brought_to_the_loops(tmp_path):
  path = tmp_path / "six.wav"
  soundfile.write(path, np.full((4800, 6), 0.25), 48_000, "PCM_24")
  part = song.read_part(path, 0.05, Song(tempo_bpm=240.0, bars=1).begin(), "six")
  assert part.shape == (2, RATE_HZ)
  assert part[0, 1000] == pytest.approx(0.25, abs=0.01)
  assert not part[:, 3000:].any()
  assert song.choose_subtype(path) == "FLOAT"


@pytest.mark.parametrize(
  ("seconds", "bars", "times", "words"),
  [
    (4.0, 2, 2, "the loop plays its first 2 bars 2 times"),
    (3.97, 2, 2, "the loop plays its first 2 bars 2 times"),
    (5.3, 2, 2, "the loop plays its first 2 bars 2 times"),
    (2.0, 1, 4, "the loop plays its first bar 4 times"),
    (6.0, 4, 1, "the rest of the loop of 8.0 s is silence"),
    (1.5, 4, 1, "the rest of the loop of 8.0 s is silence"),
  ],
)
def test_a_sound_of_fewer_bars_goes_round_if_they_do_so_evenly(
  tmp_path, seconds, bars, times, words
):
  path = tmp_path / "short.wav"
  sound = 0.3 * np.random.default_rng(0).standard_normal(round(seconds * RATE_HZ)).astype("f4")
  soundfile.write(path, sound, RATE_HZ, "FLOAT")
  four = Song(tempo_bpm=120.0, bars=4).begin()
  part = song.read_part(path, 0.0, four, "short")
  once = np.pad(sound, (0, four.loop_samples))[: four.loop_samples * bars // 4]
  np.testing.assert_allclose(part[0], np.tile(once, times), atol=1e-6)
  told = f"'short' lasts {seconds:.1f} s: {words}."
  assert song.place(four, "short", seconds, None) == (0.0, told)


@pytest.mark.parametrize("data", [b"", b"RIFF", b"\x00" * 5000, b"<html>not sound</html>" * 100])
def test_what_is_no_sound_is_a_sentence_without_a_path(tmp_path, data):
  path = tmp_path / "s1.wav"
  path.write_bytes(data)
  with pytest.raises(UserError) as caught:
    song.check(path, "holiday.wav")
  assert "holiday.wav" in str(caught.value)
  assert str(tmp_path) not in str(caught.value)


def test_too_long_a_sound_is_refused(tmp_path):
  path = tmp_path / "long.flac"
  soundfile.write(path, np.zeros(8000 * 601, np.float32), 8000)
  with pytest.raises(UserError, match="at most 10 minutes"):
    song.check(path, "long.flac")
