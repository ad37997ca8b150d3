# SPDX-License-Identifier: Apache-2.0
"""A decoder of the Vocos kind: what it gives, what it is given, and that training goes on."""

import json
import shutil

import numpy as np
import pytest
import soundfile
import torch

from data_prep import train_decoder
from data_prep.codec_training.decoder_music import MARGIN_FRAMES, Crops, FrozenCodec, read_music
from data_prep.codec_training.spectra import Spectra
from data_prep.codecs.torch_codec import TorchCodec
from data_prep.codecs.torch_vocos import Vocos
from stemgen_jax.audio.files import convert_audio
from stemgen_jax.codec.architecture import CODEBOOK
from stemgen_jax.codec.bundle import DEMO_BUNDLE, load_bundle
from stemgen_jax.codec.decoder import DecoderSpec
from stemgen_jax.errors import UserError

RATE_HZ = 32_000


@pytest.fixture
def songs(tmp_path, music):
  """A song of two stems for training and one for validation, at 32 kHz."""
  sound = convert_audio(music, 16_000, RATE_HZ, 1)[0]
  sound = np.tile(sound, 4)[: 11 * RATE_HZ]
  for split in ("train", "validation"):
    folder = tmp_path / "music" / split / "Track00001" / "stems"
    folder.mkdir(parents=True)
    for name, stem in (("S00", sound), ("S01", 0.3 * sound[::-1])):
      soundfile.write(folder / f"{name}.wav", 0.5 * stem, RATE_HZ, subtype="PCM_16")
  return tmp_path / "music"


def test_a_spectrum_comes_back_as_the_audio_that_it_is_of():
  spec = DecoderSpec()
  model, frames = Vocos(spec), 12
  audio = torch.randn(1, frames * spec.hop_samples)
  pad = (spec.n_fft - spec.hop_samples) // 2
  cut = torch.nn.functional.pad(audio, (pad, pad)).unfold(1, spec.n_fft, spec.hop_samples)
  back = model._invert(cut * model.window**2)  # once by each transform
  assert back.shape == audio.shape
  torch.testing.assert_close(back, audio, atol=1e-5, rtol=1e-5)
  assert model(torch.randn(2, spec.dimension, frames)).shape == (2, frames * spec.hop_samples)


def test_a_tone_in_each_band_is_no_noise():
  spectra = Spectra(RATE_HZ, "cpu")
  rng = np.random.default_rng(0)
  noise, other = torch.from_numpy(rng.normal(size=(2, 1, 16_000)).astype(np.float32) / 10)
  time_s = np.arange(16_000)[:, None] / RATE_HZ
  places_hz = np.arange(500, 15_500, 250)
  comb = np.sin(2 * np.pi * (places_hz * time_s + rng.random(len(places_hz)))).sum(axis=1)
  comb = torch.from_numpy((comb / comb.std() / 10).astype(np.float32))[None]
  near, far = spectra.loss(other, noise), spectra.loss(comb, noise)
  assert far["bins"] > 2 * near["bins"]
  same = spectra.loss(noise, noise)
  assert max(float(value) for value in same.values()) < 1e-5


def test_a_crop_has_the_vectors_of_the_whole_song(songs):
  bundle = load_bundle(DEMO_BUNDLE)
  music = read_music([songs], "train", RATE_HZ, "cpu")
  crops = Crops(music, FrozenCodec(bundle, "cpu"), RATE_HZ, 40, "cpu")
  places, gains = np.zeros((1, 6), np.int64), np.zeros((1, 6), np.float32)
  places[0, 0], gains[0, 0] = 100 * crops.hop, 1.0
  audio, vectors = crops.cut(places, gains)
  whole = music.samples[: music.songs[0][2]].float().numpy() / 32767
  first = 100 + MARGIN_FRAMES
  inside = slice(first * crops.hop, (first + 40) * crops.hop)
  np.testing.assert_allclose(audio[0], whole[inside], atol=1e-4)
  low = convert_audio(whole[None], RATE_HZ, 16_000, 1)
  codes = TorchCodec(DEMO_BUNDLE).encode(low[None])[0, first : first + 40]
  books = [bundle.weights[CODEBOOK.format(q)] for q in range(4)]
  want = sum(book[codes[:, q]] for q, book in enumerate(books)).T
  near = np.abs(vectors[0].numpy() - want).mean() / np.abs(want).mean()
  assert near < 0.5  # finer levels flip where the encoder has heard less


def test_it_trains_for_its_minutes_and_goes_on(songs, tmp_path):
  words = ["--data", str(songs), "--workdir", str(tmp_path / "run"), "--batch", "2"]
  words += ["--frames", "16", "--judge_from", "0.5"]
  train_decoder.main([*words, "--minutes", "0.04"])
  log = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
  assert {"mel", "bins", "phase", "judge", "stems_mel_db", "sums_si_sdr_db"} <= set(log[-1])
  demo, made = load_bundle(DEMO_BUNDLE), load_bundle(tmp_path / "run/bundle")
  assert made.fingerprint == demo.fingerprint
  assert made.decoder.spec.sample_rate == RATE_HZ
  train_decoder.main([*words, "--minutes", str(log[-1]["elapsed_s"] / 60 + 0.03)])
  more = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
  assert more[-1]["step"] > log[-1]["step"]
  words += ["--workdir", str(tmp_path / "other"), "--init_from", str(tmp_path / "run/bundle")]
  train_decoder.main([*words, "--minutes", "1e-4"])
  other = load_bundle(tmp_path / "other/bundle").decoder.weights
  kept = load_bundle(tmp_path / "run/bundle").decoder.weights
  for name, array in kept.items():
    np.testing.assert_allclose(other[name], array, atol=3e-3, err_msg=name)


def test_music_of_another_rate_is_refused(songs):
  with pytest.raises(UserError, match="stems must have 44100 Hz; got 32000"):
    read_music([songs], "train", 44_100, "cpu")
  with pytest.raises(UserError, match="must hold songs in test/"):
    read_music([songs], "test", RATE_HZ, "cpu")


def test_a_rate_that_does_not_fit_the_codec_is_refused(songs, tmp_path):
  words = ["--data", str(songs), "--workdir", str(tmp_path / "run"), "--rate", "44100"]
  with pytest.raises(UserError, match="--rate must be a multiple of the codec's 16000 Hz"):
    train_decoder.main(words)


def test_a_bundle_without_a_decoder_is_nothing_to_begin_with(songs, tmp_path):
  bare = shutil.copytree(DEMO_BUNDLE, tmp_path / "bare", ignore=shutil.ignore_patterns("decoder.*"))
  words = ["--data", str(songs), "--workdir", str(tmp_path / "run"), "--init_from"]
  with pytest.raises(UserError, match="must be a bundle with a decoder"):
    train_decoder.main([*words, str(bare)])
