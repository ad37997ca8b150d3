# SPDX-License-Identifier: Apache-2.0
"""Other keys and tempi: the pitch, the time and the level of what comes out, and what is drawn."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from data_prep.tokens.augment import MAX_SEMITONES, MAX_TEMPO, augment_stems, draw_augmentation
from data_prep.tokens.augment import Augmentation as Version

RATE = 16_000


def tone(hz, seconds=2.0):
  return (0.3 * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def pitch_hz(samples):
  middle = samples[len(samples) // 4 : -len(samples) // 4]
  spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 2**18))
  return np.argmax(spectrum) * RATE / 2**18


@pytest.mark.parametrize("semitones", [-3, 0, 2])
@pytest.mark.parametrize("tempo", [0.91, 1.0, 1.1])
def test_pitch_level_and_length(semitones, tempo):
  stems = np.stack([tone(220), tone(523.25)])[:, None]
  out = augment_stems(stems, RATE, Version(semitones, tempo))
  assert out.shape == (2, 1, round(stems.shape[-1] / tempo))
  assert out.dtype == np.float32
  for stem, hz in zip(out[:, 0], (220, 523.25), strict=True):
    assert 12 * np.log2(pitch_hz(stem) / hz) == pytest.approx(semitones, abs=0.05)
    middle = stem[len(stem) // 4 : -len(stem) // 4]
    assert 20 * np.log10(np.sqrt(np.mean(middle**2)) / (0.3 / 2**0.5)) == pytest.approx(0, abs=1)


@pytest.mark.parametrize("version", [Version(0, 0.92), Version(-3, 1.0), Version(2, 1.1)])
def test_beats_land_where_the_tempo_puts_them(version):
  beats_s = np.arange(0.25, 3.9, 0.5)
  clicks = np.zeros((2, 2, 4 * RATE), np.float32)
  for beat in (beats_s * RATE).astype(int):
    clicks[0, :, beat : beat + 400] = np.random.default_rng(0).normal(0, 0.2, (2, 400))
  out = augment_stems(clicks, RATE, version)
  assert (out[1] == 0).all()  # a silent stem hears nothing of the other
  power = np.convolve(np.square(out[0]).sum(0), np.ones(400), "same")
  for beat_s in beats_s / version.tempo:
    start = int((beat_s - 0.2) * RATE)
    weight = power[max(start, 0) : start + round(0.4 * RATE)]
    found_s = (max(start, 0) + np.average(np.arange(len(weight)), weights=weight)) / RATE
    assert found_s == pytest.approx(beat_s + 200 / RATE / version.tempo, abs=0.02)


def test_short_and_empty_stems():
  for samples in (1, 40, 3000):
    out = augment_stems(np.full((1, 2, samples), 0.1, np.float32), RATE, Version(2, 1.1))
    assert out.shape == (1, 2, round(samples / 1.1))
    assert np.isfinite(out).all()


def test_same_bytes_in_another_process():
  code = (
    "import hashlib, numpy as np\n"
    "from data_prep.tokens.augment import Augmentation, augment_stems\n"
    "x = np.random.default_rng(0).normal(0, 0.1, (3, 1, 20_000)).astype(np.float32)\n"
    "out = augment_stems(x, 16_000, Augmentation(-2, 1.07))\n"
    "print(hashlib.sha256(out.tobytes()).hexdigest())"
  )
  hashes = {subprocess.check_output([sys.executable, "-c", code]) for _ in range(2)}
  x = np.random.default_rng(0).normal(0, 0.1, (3, 1, 20_000)).astype(np.float32)
  hashes.add(
    hashlib.sha256(augment_stems(x, RATE, Version(-2, 1.07)).tobytes()).hexdigest().encode() + b"\n"
  )
  assert len(hashes) == 1


def test_draws():
  versions = [draw_augmentation(0, f"song {i}", v) for i in range(300) for v in range(6)]
  by_song = np.array([v.semitones for v in versions]).reshape(300, 6)
  keys = [n for n in range(-MAX_SEMITONES, MAX_SEMITONES + 1) if n]
  assert (np.sort(by_song, 1) == keys).all()  # the versions of a song differ in key
  assert (np.abs(np.bincount(by_song[:, 0] + 3, minlength=7)[[0, 1, 2, 4, 5, 6]] - 50) < 25).all()
  tempi = np.array([v.tempo for v in versions])
  assert tempi.min() == pytest.approx(1 / MAX_TEMPO, abs=0.01)
  assert tempi.max() == pytest.approx(MAX_TEMPO, abs=0.01)
  assert abs(np.log(tempi).mean()) < 0.005
  assert draw_augmentation(0, "a", 1) == draw_augmentation(0, "a", 1)
  assert draw_augmentation(0, "a", 7).semitones == draw_augmentation(0, "a", 1).semitones
  assert len({draw_augmentation(s, "a", 0) for s in range(8)}) > 3
  assert Version(2, 1.05).suffix == "+2st_x1.05"
