# SPDX-License-Identifier: Apache-2.0
"""Codec training: music in, losses, codebooks, and that a run resumes as if never stopped."""

import dataclasses
import json

import numpy as np
import pytest
import soundfile

from stemgen_jax.errors import UserError

pytest.importorskip("torch", reason="codec training runs in PyTorch")

import torch

from data_prep import codec_audio, codec_init, codec_losses, codec_quantizer, train_codec
from data_prep.codec_config import CodecConfig, DataConfig, ModelConfig, TrainConfig
from data_prep.torch_codec import build_model
from stemgen_jax.codec.bundle import load_bundle

pytestmark = pytest.mark.torch
RATE = 16_000


@pytest.fixture(scope="session")
def music_folder(tmp_path_factory):
  """Two splits of two songs with three stems of decaying tones, one stem shorter."""
  root = tmp_path_factory.mktemp("music")
  rng = np.random.default_rng(0)
  for split in ("train", "validation"):
    for song in range(2):
      stems = root / split / f"Track0000{song}" / "stems"
      stems.mkdir(parents=True)
      for stem in range(3):
        time_s = np.arange(RATE * (3 if stem else 2)) / RATE
        pitch_hz = rng.choice([110, 165, 220, 330]) * (stem + 1)
        tone = 0.3 * np.sin(2 * np.pi * pitch_hz * time_s) * np.exp(-4 * (time_s % 0.5))
        soundfile.write(stems / f"S0{stem}.flac", tone, RATE)
      (stems / "._S00.flac").write_bytes(b"left by another system")
  return root


@pytest.fixture
def config(music_folder):
  """A run of seconds."""
  return CodecConfig(
    model=ModelConfig(
      sample_rate=RATE, n_levels=2, n_codes=16, ratios=(5, 4), dimension=8, n_filters=4
    ),
    data=DataConfig(root=str(music_folder), crop_s=0.32),
    train=TrainConfig(
      steps=8, batch=2, warmup_steps=2, quantize_from_step=3, init_vectors=32,
      bfloat16=False, checkpoint_every_s=1e9, eval_crops=4, eval_crop_s=0.64,
    ),
  )  # fmt: skip


@pytest.fixture
def songs(music_folder):
  folders = codec_audio.find_songs(str(music_folder), "train")
  return [codec_audio.read_song(folder, RATE, 1) for folder in folders]


def codebooks(spec):
  return [layer._codebook for layer in build_model(spec).quantizer.vq.layers]


def test_songs_are_read_and_padded_to_one_length(songs):
  assert len(songs) == 2
  assert [song.shape for song in songs] == [(3, 1, 3 * RATE)] * 2
  assert not songs[0][0, :, 2 * RATE + 100 :].any()
  assert songs[0][1, :, 2 * RATE :].any()


def test_crops_are_sums_of_stems_and_repeat_with_the_seed(songs):
  drawn = [codec_audio.draw_crops(songs, np.random.default_rng(1), 6, 400, 3.0) for _ in range(2)]
  np.testing.assert_array_equal(*drawn)
  assert drawn[0].shape == (6, 1, 400)
  assert drawn[0].dtype == np.float32
  one = [np.stack([np.full((1, 500), 1000 * 2**stem, np.int16) for stem in range(3)])]
  sums = codec_audio.draw_crops(one, np.random.default_rng(0), 200, 100)[:, 0, 50] * 32767 / 1000
  assert set(np.round(sums)) == {1, 2, 4, 3, 5, 6, 7}


def test_crops_longer_than_the_song_end_in_silence_and_never_clip():
  loud = [np.full((2, 1, 50), 30_000, np.int16)]
  crop = codec_audio.draw_crops(loud, np.random.default_rng(0), 20, 80, 6.0)
  assert not crop[..., 50:].any()
  assert np.abs(crop).max() == 1


def test_no_music_is_one_clear_line(tmp_path):
  with pytest.raises(UserError, match=r"data\.root must hold songs"):
    codec_audio.find_songs(str(tmp_path), "train")


def test_losses_are_zero_for_the_same_sound_and_positive_for_another():
  audio = torch.randn(2, 4096, generator=torch.Generator().manual_seed(0)) * 0.3
  assert codec_losses.mel_loss(audio, audio, RATE) == 0
  assert codec_losses.wave_loss(audio, audio) == 0
  assert codec_losses.mel_loss(audio * 0.5, audio, RATE) == pytest.approx(np.log(2), abs=0.05)
  assert codec_losses.wave_loss(0 * audio, audio) == pytest.approx(0.24 / 0.25, abs=0.01)
  assert codec_losses.mel_distance_db(audio * 0.5, audio, RATE) == pytest.approx(6.02, abs=0.4)


def test_si_sdr_ignores_scale_and_measures_noise():
  time = torch.arange(8000) / 8000
  tone, noise = torch.sin(2 * torch.pi * 100 * time), torch.sin(2 * torch.pi * 170 * time)
  value = codec_losses.si_sdr_db((3 * (tone + 0.1 * noise))[None], tone[None])
  assert value.item() == pytest.approx(20, abs=0.01)


@pytest.mark.parametrize(("window", "bands"), [(64, 10), (2048, 80)])
def test_mel_filters_have_unit_sum_and_rising_centres(window, bands):
  filters = codec_losses.mel_filters(16_000, window, bands)
  assert filters.shape == (window // 2 + 1, bands)
  torch.testing.assert_close(filters.sum(0), torch.ones(bands))
  assert (filters.argmax(0).diff() >= 0).all()


def test_quantizer_chooses_the_nearest_and_passes_the_gradient_through(config):
  books = codebooks(config.spec())
  generator = torch.Generator().manual_seed(0)
  for book in books:
    book.embed.copy_(torch.randn(16, 8, generator=generator))
  x = torch.randn(20, 8, generator=generator, requires_grad=True)
  chosen, commit, indices = codec_quantizer.quantize(x, books)
  expected = torch.cdist(x, books[0].embed).argmin(1)
  assert torch.equal(indices[0], expected)
  total = books[0].embed[indices[0]] + books[1].embed[indices[1]]
  torch.testing.assert_close(chosen, total)
  chosen.sum().backward(retain_graph=True)
  torch.testing.assert_close(x.grad, torch.ones_like(x))
  x.grad = None
  commit.backward()
  assert x.grad.abs().sum() > 0


def test_codebooks_start_at_the_centres_of_clusters(config):
  torch.manual_seed(0)
  books = codebooks(config.spec())
  centres = torch.randn(16, 8) * 10
  points = centres.repeat_interleave(20, 0) + torch.randn(320, 8) * 0.01
  codec_quantizer.start_codebooks(books, points)
  error = (points - books[0].embed[codec_quantizer.nearest(points, books[0].embed)]).norm(dim=1)
  assert (error < 0.1).float().mean() > 0.4  # k-means may join a few clusters
  left = points - books[0].embed[codec_quantizer.nearest(points, books[0].embed)]
  again = left - books[1].embed[codec_quantizer.nearest(left, books[1].embed)]
  assert again.square().sum() < 0.1 * left.square().sum()


def test_used_codes_move_to_their_vectors_and_dead_ones_come_back(config):
  torch.manual_seed(0)
  book = codebooks(config.spec())[0]
  book.embed.copy_(torch.eye(16, 8) * 5)
  book.cluster_size.fill_(1.0)
  book.cluster_size[9] = 0.0
  book.embed_avg.copy_(book.embed * book.cluster_size[:, None])
  x = book.embed[3].expand(64, 8) + 0.5
  index = torch.full((64,), 3)
  restarted = codec_quantizer.update_codebooks(x, [book], [index], decay=0.9, dead_share=0.1)
  assert restarted == 1
  torch.testing.assert_close(book.embed[9], x[0])
  assert book.cluster_size[9] == pytest.approx(float(book.cluster_size.mean()), rel=0.2)
  before = (torch.eye(16, 8) * 5)[3]
  share = 6.4 / 7.3  # 0.1 * 64 new vectors beside 0.9 * 1 old one
  torch.testing.assert_close(book.embed[3], before + 0.5 * share)
  torch.testing.assert_close(book.embed[0], torch.eye(16, 8)[0] * 5)


def test_scaled_layers_let_the_signal_through(config):
  torch.manual_seed(0)
  config.model = ModelConfig(n_filters=8, ratios=(4, 4, 2), dimension=32)
  model = build_model(config.spec())
  audio = torch.randn(16, 1, 2560) * 0.1

  @torch.no_grad()
  def heard():  # share of the output that differs from crop to crop
    out = model.decoder(model.encoder(audio))
    return float(out.std(0).mean() / out.std())

  before = heard()
  codec_init.scale_layers(model, audio)
  assert before < 0.05 < 0.3 < heard()
  with torch.no_grad():
    latents = model.encoder(audio)
    out = model.decoder(latents)
  assert latents.std().item() == pytest.approx(codec_init.LAYER_STD, rel=0.05)
  assert out.std().item() == pytest.approx(codec_init.AUDIO_STD, rel=0.05)
  torch.testing.assert_close(latents.mean((0, 2)), torch.zeros(32), atol=1e-3, rtol=0)


def test_padding_by_joining_gives_the_same_numbers():
  from data_prep import torch_codec

  x = torch.randn(2, 3, 20)
  for pads in [(3, 0), (0, 4), (5, 2), (0, 0), (25, 3)]:
    for mode in ("reflect", "constant"):
      expected = torch_codec._slow_pad1d(x, pads, mode)
      assert torch.equal(torch_codec._pad1d(x, pads, mode), expected)


def test_training_learns_writes_a_bundle_and_reports(config, tmp_path, capsys):
  config.train = dataclasses.replace(config.train, steps=60, batch=4, learning_rate=3e-3)
  figures = train_codec.train(config, tmp_path / "run")
  losses = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step")]
  assert len(losses) == 1
  bundle = load_bundle(tmp_path / "run" / "bundle")
  assert bundle.spec == config.spec()
  assert json.loads((tmp_path / "run" / "round_trip.json").read_text()) == figures
  assert figures.keys() == {"mel_distance_db", "si_sdr_db", "perplexity", "used_share"}
  assert all(len(values) == 2 for values in figures.values())
  assert figures["perplexity"][0] > 2
  assert np.isfinite(list(figures.values())).all()


def test_resumed_run_equals_the_uninterrupted_one(config, songs, tmp_path):
  train_codec.train(config, tmp_path / "whole")
  trainer = train_codec.Trainer(config)
  trainer.start(songs)
  for _ in range(5):
    trainer.train_step(songs)
  (tmp_path / "parts").mkdir()
  trainer.save(tmp_path / "parts")
  train_codec.train(config, tmp_path / "parts")
  whole, parts = (load_bundle(tmp_path / name / "bundle") for name in ("whole", "parts"))
  assert whole.fingerprint == parts.fingerprint
  assert not [path for path in (tmp_path / "parts").iterdir() if path.name.startswith(".")]


def test_another_architecture_cannot_be_resumed(config, tmp_path):
  train_codec.Trainer(config).save(tmp_path)
  config.model.n_filters = 8
  with pytest.raises(UserError, match="Give another --workdir"):
    train_codec.Trainer(config).resume(tmp_path / "state.pt")


def test_learning_rate_warms_up_and_falls(config):
  train = TrainConfig(steps=1000, warmup_steps=100, learning_rate=1e-3)
  rates = [train_codec.learning_rate(step, train) for step in (0, 99, 100, 550, 1000)]
  np.testing.assert_allclose(rates, [1e-5, 1e-3, 1e-3, 5.05e-4, 1e-5], rtol=1e-6)


@pytest.mark.parametrize(
  ("part", "field", "value"),
  [
    ("train", "steps", 0), ("train", "batch", 0), ("train", "threads", 0),
    ("train", "ema_decay", 1.0), ("train", "level_dropout", 2.0), ("train", "init_vectors", 8),
    ("data", "crop_s", 0.0), ("model", "n_codes", 100),
  ],
)  # fmt: skip
def test_config_rules(config, part, field, value):
  setattr(getattr(config, part), field, value)
  with pytest.raises(UserError, match=f"{part}.{field} must"):
    config.validate()


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # ml_collections
def test_command_line_prints_the_table_and_refuses_typos(config, tmp_path, monkeypatch, capsys):
  path = tmp_path / "tiny.py"
  text = f"from data_prep.codec_config import *\ndef get_config():\n  return {config!r}\n"
  path.write_text(text)
  command = ["train_codec", f"--config={path}", f"--workdir={tmp_path / 'run'}"]
  monkeypatch.setattr("sys.argv", [*command, "--config.train.steps=4"])
  train_codec.main()
  table = capsys.readouterr().out.splitlines()
  assert [line.split()[0] for line in table[1:]] == [
    "mel_distance_db", "si_sdr_db", "perplexity", "used_share",
  ]  # fmt: skip
  monkeypatch.setattr("sys.argv", [*command, "--config.train.stepz=4"])
  with pytest.raises(UserError, match="stepz"):
    train_codec.main()
