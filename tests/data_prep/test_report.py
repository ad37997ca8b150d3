# SPDX-License-Identifier: Apache-2.0
"""The demo page's parts: clips before and after the codec, and players that carry their audio."""

import base64
import io

import numpy as np
import pytest
import soundfile
from small_corpus import write_song

from data_prep import demo_page as report
from data_prep import run_demo
from data_prep.corpora import open_corpus
from stemgen_jax import codec as codecs
from stemgen_jax.audio.files import convert_audio, read_audio
from stemgen_jax.errors import UserError
from stemgen_jax.pages import page

pytestmark = pytest.mark.torch


def decode_uri(uri):
  kind, data = uri.split(";base64,")
  assert kind == "data:audio/flac"
  return soundfile.read(io.BytesIO(base64.b64decode(data)))


def test_an_embedded_player_is_the_audio_at_no_more_than_its_rate():
  samples = np.stack([np.linspace(-1, 1, 16_000), np.zeros(16_000)]).astype(np.float32)
  played, rate_hz = decode_uri(page.embed_audio(samples, 16_000))
  assert rate_hz == 16_000
  np.testing.assert_allclose(played.T, samples, atol=1e-4)
  played, rate_hz = decode_uri(page.embed_audio(samples, 48_000))
  assert (rate_hz, played.shape) == (24_000, (8000, 2))


def test_the_excerpt_is_where_the_stem_is_loudest_and_the_codec_hears_three_clips(tmp_path):
  folder = write_song(tmp_path / "music", "test", "Track00001", seconds=40)
  bass = np.full(40 * 4000, 0.01)
  bass[30 * 4000 :] = 0.1
  soundfile.write(folder / "stems/S01.flac", bass, 4000)
  (track,) = open_corpus("slakh", tmp_path / "music").tracks()
  run_demo.write_excerpt(track, "bass", tmp_path)
  heard = {path.name: soundfile.read(path)[0] for path in tmp_path.rglob("*.wav")}
  assert sorted(heard) == [
    "1_full_mix.wav",
    "2_bass.wav",
    "3_drums.wav",
    "context.wav",
    "target.wav",
  ]
  assert len(heard["target.wav"]) == len(heard["context.wav"]) == 20 * 4000
  np.testing.assert_allclose(heard["target.wav"], bass[-20 * 4000 :], atol=1e-4)
  np.testing.assert_allclose(heard["context.wav"], 0.65, atol=1e-4)
  for name, level in (("1_full_mix", 0.75), ("2_bass", 0.1), ("3_drums", 0.05)):
    np.testing.assert_allclose(heard[f"{name}.wav"], level, atol=1e-4)
    assert len(heard[f"{name}.wav"]) == 8 * 4000


def test_a_clip_is_heard_before_and_after_one_level_and_all(tmp_path):
  time_s = np.arange(44_100) / 22_050
  soundfile.write(tmp_path / "1_full_mix.wav", 0.3 * np.sin(2000 * time_s), 22_050)
  codec = codecs.load()
  group = report.describe_round_trip(codec, tmp_path / "1_full_mix.wav", "everything")
  assert (group["heading"], group["text"]) == ("Full mix", "everything")
  before, one, every = group["tracks"]
  assert [t["heading"] for t in group["tracks"]] == [
    "Before",
    "After, level 1 only",
    "After, all 4 levels",
  ]
  assert "0.50 kbit/s" in one["text"]
  assert "2.00 kbit/s" in every["text"]
  clip, rate_hz = decode_uri(before["audio"])
  assert (rate_hz, len(clip)) == (24_000, 48_000)  # the page's own rate
  heard = convert_audio(*read_audio(tmp_path / "1_full_mix.wav"), codec.spec.sample_rate, 1)
  codes = codec.encode(heard[None])
  for levels, track in ((1, one), (4, every)):
    made, _ = decode_uri(track["audio"])
    decoded = codec.decode(codes[..., :levels])[0, :, : 2 * codec.decoded_rate_hz]
    expected = convert_audio(decoded, codec.decoded_rate_hz, rate_hz, 1)[0]
    np.testing.assert_allclose(made, expected.clip(-1, 1), atol=1e-3)


def test_a_demo_without_clips_is_refused(tmp_path):
  with pytest.raises(UserError, match="must hold clips for the codec"):
    report.find_codec_clips(tmp_path)
