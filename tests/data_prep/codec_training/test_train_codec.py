# SPDX-License-Identifier: Apache-2.0
"""Codec training: music in, losses, codebooks, and that a run resumes as if never stopped."""

import dataclasses
import json
import os
import shutil
import signal

import numpy as np
import pytest
import soundfile

from stemgen_jax.errors import UserError

pytest.importorskip("torch", reason="codec training runs in PyTorch")

import torch

from data_prep import train_codec
from data_prep.codec_training import audio as codec_audio
from data_prep.codec_training import trainer as codec_trainer
from data_prep.codec_training.config import (
  CodecConfig,
  DataConfig,
  DiscriminatorConfig,
  ModelConfig,
  TrainConfig,
)
from data_prep.codecs.torch_codec import read_weights
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
    data=DataConfig(roots=(str(music_folder),), crop_s=0.32),
    train=TrainConfig(
      steps=8,
      batch=2,
      warmup_steps=2,
      quantize_from_step=3,
      init_vectors=32,
      bfloat16=False,
      checkpoint_every_s=1e9,
      eval_crops=4,
      eval_crop_s=0.64,
    ),
  )


@pytest.fixture
def songs(music_folder):
  folders = codec_audio.find_songs([str(music_folder)], "train")
  return [codec_audio.read_song(folder, RATE, 1) for folder in folders]


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


def test_each_root_must_hold_music(music_folder, tmp_path):
  assert len(codec_audio.find_songs([str(music_folder)] * 2, "train", max_songs=1)) == 2
  with pytest.raises(UserError, match=rf"data\.roots must hold songs .* got root={tmp_path} "):
    codec_audio.find_songs([str(music_folder), str(tmp_path)], "train")


def test_songs_are_decoded_once_and_again_when_they_change(music_folder, tmp_path, monkeypatch):
  folders = codec_audio.find_songs([str(music_folder)], "train")
  first = list(codec_audio.read_songs(folders, RATE, 1, tmp_path))
  decoded, read_song = [], codec_audio.read_song
  monkeypatch.setattr(codec_audio, "read_song", lambda f, *a: decoded.append(f) or read_song(f, *a))
  again = list(codec_audio.read_songs(folders, RATE, 1, tmp_path))
  assert not decoded
  for one, other, folder in zip(first, again, folders, strict=True):
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(one, read_song(folder, RATE, 1))
  os.utime(folders[1] / "stems" / "S01.flac")
  list(codec_audio.read_songs(folders, RATE, 1, tmp_path))
  assert decoded == folders[1:]
  list(codec_audio.read_songs(folders, RATE // 2, 1, tmp_path))
  assert sorted(decoded[1:]) == folders


def test_crops_change_in_level_by_stem_and_in_sign():
  one = [np.stack([np.full((1, 50), 4000, np.int16), np.full((1, 50), 4000, np.int16)])]
  plain = codec_audio.draw_crops(one, np.random.default_rng(0), 100, 20)[:, 0, 0] * 32767 / 4000
  assert set(np.round(plain, 4)) == {1, 2}
  tilted = codec_audio.draw_crops(one, np.random.default_rng(0), 300, 20, 0.0, 6.0)[:, 0, 0]
  levels = tilted * 32767 / 4000
  assert 0.5 < levels.min() < 0.55
  assert 3.3 < levels.max() < 4
  moved = codec_audio.draw_crops(one, np.random.default_rng(0), 300, 20, 6.0)[:, 0, 0]
  assert 0.4 < (moved < 0).mean() < 0.6


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


@pytest.mark.parametrize("from_step", [None, 2])
def test_resumed_run_equals_the_uninterrupted_one(config, songs, tmp_path, from_step):
  config.discriminator = DiscriminatorConfig(
    from_step=from_step, windows=(64, 32), filters=2, crop_s=0.1, alone_steps=1, warmup_steps=4
  )
  train_codec.train(config, tmp_path / "whole")
  trainer = codec_trainer.Trainer(config)
  trainer.start(songs)
  for _ in range(5):
    trainer.train_step(songs)
  (tmp_path / "parts").mkdir()
  trainer.save(tmp_path / "parts")
  train_codec.train(config, tmp_path / "parts")
  whole, parts = (load_bundle(tmp_path / name / "bundle") for name in ("whole", "parts"))
  assert whole.fingerprint == parts.fingerprint
  assert not [path for path in (tmp_path / "parts").iterdir() if path.name.startswith(".")]
  states = [torch.load(tmp_path / name / "state.pt") for name in ("whole", "parts")]
  adversaries = [state.pop("adversary", {}) for state in states]
  assert bool(adversaries[0]) == (from_step is not None)
  torch.testing.assert_close(*adversaries, rtol=0, atol=0)
  torch.testing.assert_close(*(state["optimizer"] for state in states), rtol=0, atol=0)


def test_a_state_without_an_adversary_is_resumed_with_a_fresh_one(config, songs, tmp_path):
  trainer = codec_trainer.Trainer(config)
  trainer.start(songs)
  for _ in range(4):
    trainer.train_step(songs)
  trainer.save(tmp_path)
  state = torch.load(tmp_path / "state.pt")
  old = {key: state[key] for key in ("model", "optimizer", "step", "architecture")}
  torch.save(old, tmp_path / "state.pt")
  config.discriminator.from_step, config.discriminator.alone_steps = 2, 0
  resumed = codec_trainer.Trainer(config)
  resumed.resume(tmp_path / "state.pt")
  assert resumed.step == 4
  figures = resumed.train_step(songs)
  assert {"adversarial", "feature"} < figures.keys()
  assert resumed.adversary.steps == 1


def test_a_stopped_run_saves_and_goes_on(config, tmp_path, monkeypatch, capsys):
  whole = train_codec.train(config, tmp_path / "whole")
  step = codec_trainer.Trainer.train_step

  def stop_after_five(trainer, songs):
    if trainer.step == 4:
      signal.raise_signal(signal.SIGTERM)
    return step(trainer, songs)

  monkeypatch.setattr(codec_trainer.Trainer, "train_step", stop_after_five)
  with pytest.raises(SystemExit) as stop:
    train_codec.train(config, tmp_path / "parts")
  assert stop.value.code == 143
  assert "stopped at step 5; the same command goes on" in capsys.readouterr().err
  assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
  assert train_codec.train(config, tmp_path / "parts") == whole


def test_steps_without_a_finite_gradient_change_nothing_and_end_the_run(config, songs, tmp_path):
  config.train.quantize_from_step = 0
  trainer = codec_trainer.Trainer(config)
  trainer.start(songs)
  trainer.train_step(songs)
  before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
  config.train.wave_weight = float("nan")
  for _ in range(codec_trainer.MAX_SKIPS - 1):
    assert np.isnan(trainer.train_step(songs)["norm"])
  torch.testing.assert_close(trainer.model.state_dict(), before, rtol=0, atol=0)
  with pytest.raises(UserError, match=r"training must stay finite; got 10 steps .* step=10\."):
    trainer.train_step(songs)


def test_training_starts_from_a_bundle_of_its_own_architecture(config, songs, tmp_path):
  first = codec_trainer.Trainer(config)
  first.start(songs)
  for _ in range(4):
    first.train_step(songs)
  first.save(tmp_path)
  bundle = load_bundle(tmp_path / "bundle")
  config.train.init = str(tmp_path / "bundle")
  second = codec_trainer.Trainer(config)
  second.start(songs)
  started = read_weights(second.model)
  assert all(np.array_equal(started[name], bundle.weights[name]) for name in started)
  assert second.train_step(songs)["commit"] > 0
  moved = read_weights(second.model)["quantizer.vq.layers.0._codebook.embed"]
  start = bundle.weights["quantizer.vq.layers.0._codebook.embed"]
  assert (np.abs(moved - start).max(axis=1) < 0.5 * np.abs(start).max(axis=1)).mean() > 0.7
  (tmp_path / "second").mkdir()
  second.save(tmp_path / "second")
  source = f"trained by data_prep.train_codec, from bundle {bundle.fingerprint[:16]}"
  assert load_bundle(tmp_path / "second" / "bundle").spec.source.startswith(source)
  resumed = codec_trainer.Trainer(config)
  resumed.resume(tmp_path / "second" / "state.pt")
  assert resumed.spec == second.spec
  config.model.licence, config.model.n_filters = "MIT", 8
  with pytest.raises(UserError, match=r"n_filters=4 instead of 8, licence='Apache-2.0'"):
    codec_trainer.Trainer(config).start(songs)


def test_reports_reach_tensorboard_and_the_ear(config, tmp_path):
  config.train = dataclasses.replace(config.train, log_every=2, eval_every=4, eval_clips=2)
  train_codec.train(config, tmp_path)
  assert sorted(path.name for path in (tmp_path / "listen").iterdir()) == [
    "original_clip1.wav",
    "original_clip2.wav",
    "step_000004_clip1.wav",
    "step_000004_clip2.wav",
    "step_000008_clip1.wav",
    "step_000008_clip2.wav",
  ]
  sound, rate_hz = soundfile.read(tmp_path / "listen" / "step_000008_clip1.wav")
  assert (len(sound), rate_hz) == (round(0.64 * RATE), RATE)
  written = b"".join(path.read_bytes() for path in (tmp_path / "tensorboard").iterdir())
  for tag in (
    "train/mel",
    "train/restarts",
    "train/lr",
    "perplexity/level_2",
    "clip_2/original",
    "clip_1/step",
    "held_out/si_sdr_db/levels_2",
  ):
    assert tag.encode() in written


def test_some_examples_keep_only_their_first_levels(config):
  config.model.n_levels, config.train.level_dropout = 4, 0.25
  levels = codec_trainer.Trainer(config)._draw_levels(4000, np.random.default_rng(0))
  shares = np.bincount(levels, minlength=5) / len(levels)
  np.testing.assert_allclose(shares, [0, 1 / 12, 1 / 12, 1 / 12, 0.75], atol=0.02)


def test_another_architecture_cannot_be_resumed(config, tmp_path):
  codec_trainer.Trainer(config).save(tmp_path)
  config.model.n_filters = 8
  with pytest.raises(UserError, match="Give another --workdir"):
    codec_trainer.Trainer(config).resume(tmp_path / "state.pt")


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # ml_collections
def test_command_line_prints_the_table_and_refuses_typos(config, tmp_path, monkeypatch, capsys):
  path = tmp_path / "tiny.py"
  text = f"from data_prep.codec_training.config import *\ndef get_config():\n  return {config!r}\n"
  path.write_text(text)
  command = ["train_codec", f"--config={path}", f"--workdir={tmp_path / 'run'}"]
  monkeypatch.setattr("sys.argv", [*command, "--config.train.steps=4"])
  train_codec.main()
  table = capsys.readouterr().out.splitlines()
  assert [line.split()[0] for line in table[1:]] == [
    "mel_distance_db",
    "si_sdr_db",
    "perplexity",
    "used_share",
  ]
  monkeypatch.setattr("sys.argv", [*command, "--config.train.stepz=4"])
  with pytest.raises(UserError, match="stepz"):
    train_codec.main()


def test_a_stem_that_cannot_be_read_is_named_and_left_out(music_folder, tmp_path, capsys):
  shutil.copytree(music_folder, tmp_path / "music")
  folders = codec_audio.find_songs([str(tmp_path / "music")], "train")
  first, *_ = sorted(folders[0].glob(codec_audio.STEMS))
  whole = codec_audio.read_song(folders[0], RATE, 1)
  first.unlink()
  first.symlink_to(tmp_path / "gone.flac")
  for path in folders[1].glob(codec_audio.STEMS):
    path.write_bytes(b"fLaC")
  found = list(codec_audio.read_songs(folders, RATE, 1, tmp_path / "cache"))
  assert len(found) == len(folders) - 1
  assert whole is not None
  assert len(found[0]) == len(whole) - 1
  error = capsys.readouterr().err
  assert f"got path={first}, a link to nothing" in error
  assert str(folders[1]) in error


def test_a_damaged_state_is_one_line_that_names_it(config, tmp_path):
  (tmp_path / "state.pt").write_bytes(b"PK\3\4" + bytes(50))
  with pytest.raises(
    UserError, match=rf"must be a whole PyTorch file; got path={tmp_path}/state.pt"
  ):
    codec_trainer.Trainer(config).resume(tmp_path / "state.pt")
