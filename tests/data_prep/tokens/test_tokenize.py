# SPDX-License-Identifier: Apache-2.0
"""Corpus to shards with a stand-in codec whose codes tell what was encoded."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile
from small_corpus import (
  INSTRUMENTS,
  RATE,
  SETTINGS,
  MeanCodec,
  edit_stems,
  run,
  run_some,
  write_song,
)

from data_prep import tokenize
from data_prep.corpora import stem_audio
from data_prep.corpora.slakh import Slakh
from data_prep.tokens import jobs
from data_prep.tokens.job_runner import Engine
from data_prep.tokens.tokenizer import Tokenizer, TokenSettings, measure_levels
from stemgen_jax.categories import CATEGORIES, category_index
from stemgen_jax.codec.bundle import DEMO_BUNDLE
from stemgen_jax.config import DataConfig
from stemgen_jax.data.loader import make_loader
from stemgen_jax.data.records import Dataset
from stemgen_jax.errors import UserError, run_cli


def test_corpus_to_shards(corpus, tmp_path):
  out = tmp_path / "shards"
  directory = run(corpus, out)
  assert directory == out / "slakh" / "3.0.0"
  assert [p.name for p in directory.parent.iterdir()] == ["3.0.0"]  # nothing half-made is left
  dataset = Dataset.open(out)
  dataset.verify()
  meta = dataset.metadata
  assert (meta.n_levels, meta.n_codes, meta.frame_rate_hz, meta.level_frames) == (2, 4096, 100, 25)
  assert meta.codec_fingerprint == "0" * 64
  assert meta.sources == {"instrument": CATEGORIES}
  assert {split: len(shards) for split, shards in dataset.shards.items()} == {
    "train": 2,
    "validation": 1,
  }
  source = dataset.source("train")
  assert source.songs == ("Track00000", "Track00001", "Track00002", "Track00002")
  assert source.frames.tolist() == [
    300,
    400,
    250,
    250,
  ]  # 5 s is two equal parts, not 4 s and a tail
  assert [source[i].start_frame for i in range(4)] == [0, 0, 0, 250]
  assert [source[i].clip for i in range(4)] == [0, 0, 0, 1]
  for i in range(4):
    clip = source[i]
    values = np.array([50, 100, 200, 400])
    assert (clip.stem_codes[..., 0] == 2000 + values[:, None]).all()
    sums = clip.mix_members @ values
    assert (np.abs(clip.mix_codes[..., 0] - (2000.0 + sums[:, None])) <= 1).all()
    assert (clip.mix_codes[..., 1] == np.arange(source.frames[i])).all()
    names = [CATEGORIES[i] for i in clip.stem_conditions[:, 0]]
    assert names == ["drums", "bass", "piano", "strings"]
    assert np.allclose(clip.stem_level_db, 20 * np.log10(values / 1000)[:, None], atol=0.05)
    assert clip.mix_members.shape == (6, 4)
  assert not np.array_equal(source[2].mix_members, source[3].mix_members)
  batch = next(make_loader(dataset, "train", DataConfig(crop_frames=250, batch_size=4), seed=0))
  assert batch["target"].shape == (4, 250, 2)


def test_same_seed_same_bytes(corpus, tmp_path):
  one, two = run(corpus, tmp_path / "one"), run(corpus, tmp_path / "two")
  for path in one.iterdir():
    assert path.read_bytes() == (two / path.name).read_bytes(), path.name
  batched = run(corpus, tmp_path / "batches", engine=Engine(batch_size=3))
  for path in one.iterdir():
    assert path.read_bytes() == (batched / path.name).read_bytes(), path.name
  other = run(corpus, tmp_path / "three", settings=dataclasses.replace(SETTINGS, seed=1))
  a, b = (Dataset.open(d).source("train")[0] for d in (one, other))
  assert np.array_equal(a.stem_codes, b.stem_codes)
  assert not np.array_equal(a.mix_members, b.mix_members)


class Stopped(BaseException):
  pass


class StoppingCodec(MeanCodec):
  def __init__(self, calls):
    self.left = calls

  def encode(self, audio):
    if not self.left:
      raise Stopped
    self.left -= 1
    return super().encode(audio)


def test_resumes(corpus, tmp_path):
  whole = MeanCodec()
  expected = run(corpus, tmp_path / "whole", whole)
  out = tmp_path / "shards"
  with pytest.raises(Stopped):
    run(corpus, out, StoppingCodec(whole.calls - 2))
  assert not (out / "slakh" / "3.0.0").exists()
  codec = MeanCodec()
  directory = run(corpus, out, codec)
  assert codec.calls < whole.calls / 2
  for path in expected.iterdir():
    assert path.read_bytes() == (directory / path.name).read_bytes(), path.name


def test_unfinished_parts_of_other_settings_are_not_taken(corpus, tmp_path):
  with pytest.raises(Stopped):
    run(corpus, tmp_path / "a", StoppingCodec(6))
  soundfile.write(corpus / "train/Track00000/stems/S01.flac", np.full(12000, 0.3), RATE)
  settings = dataclasses.replace(SETTINGS, mixes=4)
  directory = run(corpus, tmp_path / "a", settings=settings)
  clip = Dataset.open(directory).source("train")[0]
  assert clip.mix_members.shape == (4, 4)
  assert (clip.stem_codes[1, :, 0] == 2300).all()


def test_whole_dataset_is_left_alone_and_another_refused(corpus, tmp_path):
  directory = run(corpus, tmp_path / "a")
  codec = MeanCodec()
  assert run(corpus, tmp_path / "a", codec) == directory
  assert codec.calls == 0
  with pytest.raises(UserError, match="must be new or made of the same"):
    run(corpus, tmp_path / "a", settings=dataclasses.replace(SETTINGS, seed=1))
  soundfile.write(corpus / "train/Track00000/stems/S01.flac", np.full(12000, 0.3), RATE)
  with pytest.raises(UserError, match="must be new or made of the same"):
    run(corpus, tmp_path / "a")
  assert run(corpus, tmp_path / "a", name="other").parent.name == "other"


def test_wrong_settings_are_found_before_the_work(corpus, tmp_path):
  codec = MeanCodec()
  with pytest.raises(UserError, match="name must match"):
    run(corpus, tmp_path / "a", codec, name="My Data")
  with pytest.raises(
    UserError, match=r"clip_s must be finite and above 0; got 0. mixes must be at least 3"
  ):
    run(corpus, tmp_path / "a", codec, settings=TokenSettings(clip_s=0, mixes=2))
  (tmp_path / "file").touch()
  with pytest.raises(UserError, match=f"--out must be a folder .*; got {tmp_path}/file"):
    run(corpus, tmp_path / "file", codec)
  assert codec.calls == 0
  assert not (tmp_path / "a").exists()


def test_a_track_that_fails_is_left_out_and_mended_later(corpus, tmp_path, caplog):
  path = corpus / "train/Track00001/stems/S02.flac"
  edit_stems(path.parents[1], S00={"audio_rendered": False}, S01={"audio_rendered": False})
  sound = path.read_bytes()
  path.write_bytes(b"not audio")
  directory, failed = run_some(corpus, tmp_path / "a")
  assert list(failed) == ["Track00001"]
  assert str(path) in failed["Track00001"]
  assert (
    "Track00001 is left out: a song must keep 2 stems that can be read; got 1 of 2" in caplog.text
  )
  dataset = Dataset.open(directory)
  assert dataset.source("train").songs == ("Track00000", "Track00002", "Track00002")
  assert dataset.metadata.settings["failed"] == failed
  again = MeanCodec()  # nothing has changed: only the broken track is tried
  manifest = (directory / "stemgen.json").stat()
  assert run_some(corpus, tmp_path / "a", again) == (directory, failed)
  assert again.calls == 0
  assert (directory / "stemgen.json").stat() == manifest

  with pytest.raises(UserError, match="must be new or made of the same"):
    run_some(corpus, tmp_path / "a", settings=dataclasses.replace(SETTINGS, seed=1))

  path.write_bytes(sound)
  codec = MeanCodec()
  assert run(corpus, tmp_path / "a", codec) == directory
  assert 0 < codec.calls <= 10  # one song of one clip, stem by stem
  whole = run(corpus, tmp_path / "whole")
  for path in whole.iterdir():
    assert path.read_bytes() == (directory / path.name).read_bytes(), path.name
  assert [p.name for p in directory.parent.iterdir()] == ["3.0.0"]


def test_when_every_track_fails_there_is_no_dataset(corpus, tmp_path):
  class Short(MeanCodec):
    def encode(self, audio):
      return super().encode(audio)[:, 1:]

  class Broken(MeanCodec):
    def encode(self, audio):
      raise MemoryError("too long")

  with pytest.raises(UserError, match="got 4 that cannot, as Track00000: codec must give codes"):
    run(corpus, tmp_path / "a", Short())
  with pytest.raises(UserError, match="as Track00000: MemoryError: too long"):
    run(corpus, tmp_path / "b", Broken())
  with pytest.raises(UserError, match="must hold one dataset"):
    Dataset.open(tmp_path / "a")


def test_an_unwritable_disk_ends_the_run(corpus, tmp_path, monkeypatch):
  def fail(*_):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(jobs, "write_shard", fail)
  with pytest.raises(OSError, match="No space left"):
    run(corpus, tmp_path / "a")


def assert_same_files(one, two):
  assert {p.name for p in one.iterdir()} == {p.name for p in two.iterdir()}
  for path in one.iterdir():
    assert path.read_bytes() == (two / path.name).read_bytes(), path.name


def test_a_stem_that_fails_is_left_out_of_its_song_and_mended_later(corpus, tmp_path, caplog):
  path = corpus / "train/Track00001/stems/S02.flac"
  sound = path.read_bytes()
  path.write_bytes(b"not audio")
  directory, failed = run_some(corpus, tmp_path / "a")
  assert list(failed) == ["Track00001/S02"]
  assert str(path) in failed["Track00001/S02"]
  assert "S02 of Track00001 is left out: audio file must be one" in caplog.text
  dataset = Dataset.open(directory)
  clip = dataset.source("train")[1]
  assert clip.song == "Track00001"
  assert clip.stem_codes[:, 0, 0].tolist() == [2050, 2100, 2400]
  names = [CATEGORIES[i] for i in clip.stem_conditions[:, 0]]
  assert names == ["drums", "bass", "strings"]
  assert clip.mix_members.shape == (6, 3)
  assert dataset.metadata.settings["failed"] == failed
  again = MeanCodec()  # nothing has changed
  assert run_some(corpus, tmp_path / "a", again) == (directory, failed)
  assert again.calls == 0

  path.write_bytes(sound)
  assert run(corpus, tmp_path / "a") == directory
  assert_same_files(directory, run(corpus, tmp_path / "whole"))
  assert [p.name for p in directory.parent.iterdir()] == ["3.0.0"]


def test_a_stem_that_could_not_be_read_here_is_tried_again(corpus, tmp_path, monkeypatch):
  """As an m4a without PyAV, which is installed later: the file is the same."""
  read = stem_audio.read_audio

  def refuse(path, stream=None):
    if path.name == "S02.flac":
      raise UserError(f"{path} must be read with PyAV")
    return read(path, stream)

  monkeypatch.setattr(stem_audio, "read_audio", refuse)
  directory, failed = run_some(corpus, tmp_path / "a")
  assert len(failed) == 4
  monkeypatch.undo()
  assert run(corpus, tmp_path / "a") == directory
  assert_same_files(directory, run(corpus, tmp_path / "whole"))


def test_processes_give_the_same_bytes(corpus, tmp_path):
  (corpus / "train/Track00001/stems/S02.flac").write_bytes(b"not audio")
  one, failed = run_some(corpus, tmp_path / "one")
  two, failed_too = run_some(corpus, tmp_path / "two", engine=Engine(workers=2))
  assert failed == failed_too
  assert_same_files(one, two)


def test_killed_again_and_again_it_ends_with_the_same_bytes(corpus, tmp_path):
  whole, out = run(corpus, tmp_path / "whole"), tmp_path / "killed"
  command = [sys.executable, Path(__file__).parents[2] / "killed_run.py", corpus, out]
  env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
  finished, parts = False, []
  for pause_s in (0.2, 0.5, 0.8, 0.3, 60):
    with subprocess.Popen(
      command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
      process.stdout.readline()
      try:
        finished = process.wait(timeout=pause_s + 1) == 0
      except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    parts.append(len([p for p in out.glob("slakh/.parts/*") if p.suffix != ".partial"]))
    if finished:
      break
  assert finished
  assert len(parts) > 2  # it was killed on the way, not only before or after
  assert_same_files(whole, out / "slakh" / "3.0.0")
  assert [p.name for p in (out / "slakh").iterdir()] == ["3.0.0"]


@pytest.mark.filterwarnings("ignore")  # of Beam's own making
def test_beam_gives_the_same_bytes(corpus, tmp_path):
  pytest.importorskip("apache_beam")
  (corpus / "train/Track00001/stems/S02.flac").write_bytes(b"not audio")
  one, failed = run_some(corpus, tmp_path / "one")
  two, failed_too = run_some(corpus, tmp_path / "two", engine=Engine(runner="DirectRunner"))
  assert failed == failed_too
  assert_same_files(one, two)


def test_gains_are_stored_as_they_were_applied(corpus, tmp_path):
  settings = dataclasses.replace(SETTINGS, gain_jitter_db=6.0, mix_jitter_db=6.0)
  source = Dataset.open(run(corpus, tmp_path / "a", settings=settings)).source("train")
  values = np.array([50, 100, 200, 400])
  gains = []
  for clip in source:
    sums = 10 ** (clip.mix_gain_db.astype(float) / 20) @ values
    assert (np.abs(clip.mix_codes[..., 0] - (2000.0 + sums[:, None])) <= 1.5).all()
    gains.append(clip.mix_gain_db[clip.mix_members])
  gains = np.concatenate(gains)
  assert np.abs(gains).max() <= 12.0
  assert gains.min() < -6
  assert gains.max() > 6


def test_augmented_versions_are_further_training_songs(corpus, tmp_path):
  plain = Dataset.open(run(corpus, tmp_path / "plain"))
  directory = run(corpus, tmp_path / "a", settings=dataclasses.replace(SETTINGS, augment=2))
  dataset = Dataset.open(directory)
  assert dataset.source("validation").songs == plain.source("validation").songs
  source = dataset.source("train")
  names = sorted(set(source.songs))
  originals = sorted(set(plain.source("train").songs))
  assert len(names) == 9
  assert {name[: len("Track00000")] for name in names} == set(originals)
  for clip in source:
    assert (clip.song in originals) or clip.song[len("Track00000")] in "+-_"
  lengths = {
    name: sum(source.frames[i] for i in range(len(source)) if source.songs[i] == name)
    for name in names
  }
  assert any(lengths[name] != lengths[name[: len("Track00000")]] for name in names)


def test_low_rate_and_uneven_stems(corpus, tmp_path, caplog):
  folder = write_song(corpus, "train", "Track00005", rate=2000, stems=INSTRUMENTS[:3])
  soundfile.write(folder / "stems/S01.flac", np.full(12010, 0.1), RATE)  # 300.25 frames
  source = Dataset.open(run(corpus, tmp_path / "a")).source("train")
  clip = source[source.songs.index("Track00005")]
  assert clip.stem_codes.shape == (3, 301, 2)
  assert np.abs(clip.stem_codes[0, 10:-10, 0] - 2050.0).max() <= 1
  assert (clip.stem_codes[0, 300:, 0] == 2000).all()  # 3 s long: padded
  assert (clip.stem_codes[1, :, 0] == [2100] * 300 + [2025]).all()
  assert [r.getMessage().split(": ")[0] for r in caplog.records] == [  # once, S02 is the same
    f"{folder / 'stems/S00.flac'} is at 2000 Hz, the codec at 4000 Hz"
  ]


def test_levels():
  audio = np.zeros((2, 2, 25), np.float32)
  audio[0, :, 10:20] = 0.1
  audio[1, 0] = 1.0  # one channel of two: half the power
  level_db = measure_levels(audio, (0, 10, 20))
  assert level_db.dtype == np.float16
  assert np.allclose(level_db, [[-120, -20, -120], [-3.01] * 3], atol=0.02)


def test_unknown_instrument_is_stored_as_unknown(corpus, tmp_path):
  edit_stems(corpus / "train/Track00000", S02={"inst_class": "Theremin", "program_num": None})
  clip = Dataset.open(run(corpus, tmp_path / "a")).source("train")[0]
  drums, bass, strings = map(category_index, ("drums", "bass", "strings"))
  assert clip.stem_conditions[:, 0].tolist() == [drums, bass, -1, strings]


def test_one_stem_song(tmp_path):
  write_song(tmp_path / "m", "train", "Track00000", stems=INSTRUMENTS[:1])
  clip = Dataset.open(run(tmp_path / "m", tmp_path / "a")).source("train")[0]
  assert np.array_equal(clip.mix_members, np.zeros((1, 1)))
  assert (clip.mix_codes[..., 0] == 2000).all()


def test_what_is_known_is_not_encoded_again(corpus):
  tracks = Slakh(corpus).tracks()
  metadata = types.SimpleNamespace(n_levels=2, sources=Slakh(corpus).sources, level_frames=50)
  tokenizer = Tokenizer(MeanCodec(), metadata, SETTINGS, 4)
  encoded = 1  # silence of this length, once
  for track in (tracks[0], tracks[3]):
    (clip,) = tokenizer.tokenize(track)
    encoded += 4 + int((clip.mix_members.sum(1) > 1).sum())  # stems, and sums of two or more
  assert tokenizer.encoded_s == pytest.approx(3.0 * encoded)


@pytest.mark.torch
def test_the_command_says_what_failed_and_returns_3(corpus, tmp_path, capsys):
  path = corpus / "train/Track00001/stems/S02.flac"
  path.write_bytes(b"not audio")
  words = ["--root", str(corpus), "--codec", str(DEMO_BUNDLE), "--out", str(tmp_path / "a")]
  words += ["--name", "mine", "--clip_s", "2", "--mixes", "3", "--workers", "1"]
  assert tokenize.main(words) == 3
  said = capsys.readouterr()
  directory = tmp_path / "a" / "mine" / "3.0.0"
  assert said.out.splitlines() == [
    "train: 3 songs, 7 clips, 0.00 h",
    "validation: 1 songs, 2 clips, 0.00 h",
    str(directory),
  ]
  assert "left out: Track00001/S02: audio file must be one that libsndfile reads" in said.err
  assert said.err.splitlines()[-1].startswith("1 song or stem is left out")
  shutil.rmtree(path.parents[1])
  assert tokenize.main(words) == 0


def test_flags_of_no_one_are_refused():
  with pytest.raises(UserError, match="unrecognized arguments: --flink_master=x"):
    tokenize.main(["--root=b", "--codec=c", "--out=d", "--flink_master=x"])


def test_help_opens_with_an_example(capsys):
  with pytest.raises(SystemExit) as exit_:
    tokenize.main(["--help"])
  assert exit_.value.code == 0
  assert "\n\nexample: python -m data_prep.tokenize --corpus" in capsys.readouterr().out
  with pytest.raises(UserError, match="--batch: must be a whole number above 0; got '0'"):
    tokenize.main(["--corpus=a", "--root=b", "--codec=c", "--out=d", "--batch=0"])


def test_a_corpus_of_unknown_instruments_is_refused_before_it_is_encoded(tmp_path, capsys):
  for song in ("one", "two"):
    (tmp_path / "music" / song).mkdir(parents=True)
    soundfile.write(tmp_path / f"music/{song}/Audio 1.wav", np.zeros(8000), 8000)
  words = ["--root", tmp_path / "music", "--codec", DEMO_BUNDLE, "--out", tmp_path / "shards"]
  assert run_cli(lambda: tokenize.main([str(word) for word in words])) == 2
  complaint = capsys.readouterr().err
  assert "some stem must be of a known instrument; got none among Audio 1" in complaint
  assert not (tmp_path / "shards").exists()
