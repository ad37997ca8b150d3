# SPDX-License-Identifier: Apache-2.0
"""The audio of true stems, written beside shards and found again by the evaluation."""

import numpy as np
import pytest
import soundfile
from small_corpus import HOP, RATE, MeanCodec, run, run_some

from data_prep import originals
from stemgen_jax.codec import Codec
from stemgen_jax.config import DataConfig
from stemgen_jax.data.loader import make_loader
from stemgen_jax.data.records import Dataset
from stemgen_jax.errors import UserError, run_cli
from stemgen_jax.evaluate.examples import read_originals

CODEC = Codec(MeanCodec.spec, MeanCodec.fingerprint, params={})


@pytest.fixture
def data(corpus, tmp_path):
  return run(corpus, tmp_path / "shards")


def words_of(root, data, out):
  flags = {"root": root, "data": data, "split": "train", "out": out}
  return [word for name, value in flags.items() for word in (f"--{name}", str(value))]


def windows_of(data):
  dataset = Dataset.open(data)
  loader = make_loader(
    dataset,
    "train",
    DataConfig(crop_frames=50, batch_size=8, silence_gate_db=-60.0, silence_prob=0.0),
    seed=0,
    sources=["instrument"],
  )
  windows = next(iter(loader))
  songs = np.array(dataset.source("train").songs)
  return windows | {"song": songs[windows["clip"]]}


def test_a_window_of_the_audio_is_that_of_the_codes(corpus, data, tmp_path):
  for path in sorted(corpus.glob("train/*/stems/*.flac")):  # no two windows alike
    samples, rate = soundfile.read(path, dtype="float32")
    ramp = np.linspace(0, 0.1, len(samples), dtype=np.float32)
    soundfile.write(path, samples + ramp, rate)
  fresh = run(corpus, tmp_path / "fresh")
  originals.main(words_of(corpus, fresh, tmp_path / "out"))
  windows = windows_of(fresh)
  found = read_originals(CODEC, windows, tmp_path / "out")
  assert found.shape == (8, 1, 50 * HOP)
  means = found.reshape(8, 50, HOP).mean(-1)
  assert np.abs(2000 + 1000 * means - windows["target"][..., 0]).max() <= 1
  assert len(set(windows["start_frame"])) > 1


def test_stems_that_tokenising_left_out_have_no_audio(corpus, tmp_path):
  path = corpus / "train/Track00001/stems/S02.flac"
  sound = path.read_bytes()
  path.write_bytes(b"not audio")
  data, _ = run_some(corpus, tmp_path / "shards")
  path.write_bytes(sound)  # mended since, which the dataset does not know
  originals.main(words_of(corpus, data, tmp_path / "out"))
  levels = [soundfile.read(tmp_path / f"out/Track00001/{row:02d}.wav")[0][0] for row in range(3)]
  np.testing.assert_allclose(levels, [0.05, 0.1, 0.4], atol=1e-3)
  assert not (tmp_path / "out/Track00001/03.wav").exists()


def test_other_music_and_other_files_are_refused(corpus, data, tmp_path, capsys):
  empty = tmp_path / "empty"
  (empty / "train").mkdir(parents=True)
  words = [*words_of(empty, data, tmp_path / "out"), "--corpus", "slakh"]
  assert run_cli(lambda: originals.main(words)) == 2
  capsys.readouterr()
  originals.main(words_of(corpus, data, tmp_path / "out"))
  windows = windows_of(data)
  path = tmp_path / "out" / windows["song"][0] / f"{windows['stem'][0]:02d}.wav"
  soundfile.write(path, np.zeros(RATE), 2 * RATE)
  with pytest.raises(UserError, match="--originals must have the codec's 4000 Hz"):
    read_originals(CODEC, windows, tmp_path / "out")
