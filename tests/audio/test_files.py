# SPDX-License-Identifier: Apache-2.0
"""Channels: what is heard in stereo is heard in mono too."""

import numpy as np
import pytest
import soundfile

from stemgen_jax.audio.files import convert_audio, find_subtype, read_audio, to_mono, write_audio


@pytest.fixture
def tone():
  return 0.3 * np.sin(np.arange(4000) / 9).astype(np.float32)[None]


def test_channels_are_averaged(tone):
  np.testing.assert_allclose(to_mono(np.concatenate([tone, 0 * tone])), tone / 2)
  np.testing.assert_array_equal(to_mono(tone), tone)
  assert convert_audio(tone, 10, 10, 2).shape == (2, 4000)


@pytest.mark.parametrize("gain", [-1.0, -0.98])
def test_channels_that_cancel_are_not_silence(tone, gain):
  np.testing.assert_array_equal(to_mono(np.concatenate([tone, gain * tone])), tone)


def test_silence_stays_silence(tone):
  assert not to_mono(np.zeros((2, 100), np.float32)).any()


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_what_was_read_is_written_again(tmp_path, subtype):
  rng = np.random.default_rng(0)
  soundfile.write(tmp_path / "a.wav", rng.uniform(-1, 1, (3000, 2)), 8000, subtype=subtype)
  assert find_subtype(tmp_path / "a.wav") == subtype
  samples, rate_hz = read_audio(tmp_path / "a.wav")
  write_audio(tmp_path / "b.wav", samples, rate_hz, subtype)
  assert (tmp_path / "b.wav").read_bytes()[-3000:] == (tmp_path / "a.wav").read_bytes()[-3000:]
  np.testing.assert_array_equal(read_audio(tmp_path / "b.wav")[0], samples)


def test_what_is_above_full_scale_is_not_clipped(tmp_path, tone):
  write_audio(tmp_path / "a.wav", 10 * tone, 8000)
  np.testing.assert_array_equal(read_audio(tmp_path / "a.wav")[0], 10 * tone)
