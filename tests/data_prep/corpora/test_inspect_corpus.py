# SPDX-License-Identifier: Apache-2.0
"""The corpus half of `data_prep.inspect`: what it prints, writes and exits with."""

import json
import re

import pytest
from small_trees import write_tone
from test_corpora_auto import LAYOUTS
from test_corpora_moisesdb import write_song as write_moises_song

from data_prep import inspect
from stemgen_jax.errors import UserError


def run(capsys, *argv):
  """Returns the exit code and what was printed, with runs of spaces as one."""
  code = inspect.main([str(word) for word in argv])
  return code, re.sub(r" +", " ", capsys.readouterr().out)


def test_a_folder(tmp_path, capsys):
  root = tmp_path / "music"
  write_tone(root / "train/a/gtr.wav", seconds=36, channels=2)
  write_tone(root / "train/a/kick.wav", seconds=72)
  write_tone(root / "train/a/snare.flac", seconds=36)
  write_tone(root / "train/b/thing [1].wav", seconds=36, rate=4000)
  write_tone(root / "train/b/mix.wav")
  write_tone(root / "test/c/bass.wav", seconds=36)
  code, out = run(capsys, root, "--json", tmp_path / "out" / "report.json")
  assert code == 0
  assert f"{root}: folder, folders of audio files" in out
  assert "split songs hours stems of unknown instrument\n" in out
  assert "train 2 0.03 3 1\nvalidation 0 0.00 0 0\ntest 1 0.01 1 0" in out
  assert "instrument songs stems hours of stems\ndrums 1 1 0.02" in out
  assert "unknown 1 1 0.01" in out
  assert "8000 Hz 1 2\n8000 Hz 2 1\n4000 Hz 1 1" in out
  assert "a mix of all, by its name 1" in out
  assert "Only headers were read: " in out
  assert "train/b/thing [1].wav: unknown instrument: 'thing [1]', kept without a category\n" in out
  report = json.loads((tmp_path / "out" / "report.json").read_text())
  assert report["corpus"] == "folder"
  assert report["splits"]["train"] == {
    "songs": 2,
    "hours": pytest.approx(0.03),
    "stems": 3,
    "stem_hours": pytest.approx(0.04),
    "unknown_stems": 1,
  }
  assert report["conditions"]["instrument"]["drums"]["stem_hours"] == pytest.approx(0.02)
  assert report["audio"][0] == {"rate_hz": 8000, "channels": 1, "stems": 2}
  assert report["problem_kinds"] == {"a mix of all, by its name": 1, "unknown instrument": 1}
  assert len(report["problems"]) == 2
  assert report["unreadable"] == []


def test_genres_and_a_table_of_ones_own(tmp_path, capsys):
  write_moises_song(tmp_path / "m", "a", genre="Rock", bass=[("bass_guitar", 0.1)])
  write_moises_song(tmp_path / "m", "b", genre="pop", bass=[("bass_guitar", 0.1)])
  (tmp_path / "own.yaml").write_text("categories: [low]\ncorpora: {moisesdb: {bass guitar: low}}")
  code, out = run(capsys, tmp_path / "m", "--categories", tmp_path / "own.yaml")
  assert code == 0
  assert "low 2 2 0.00" in out
  assert "genre songs stems hours of stems\npop 1 1 0.00\nrock 1 1 0.00" in out


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout(tmp_path, capsys, name):
  LAYOUTS[name](tmp_path)
  code, out = run(capsys, tmp_path, "--corpus", "auto")
  assert code == 0
  assert out.startswith(f"{tmp_path}: {name}, ")


def test_unreadable_audio_is_told_by_the_exit_code(tmp_path, capsys):
  write_tone(tmp_path / "a/gtr.wav")
  path = write_tone(tmp_path / "a/bass.wav")
  path.write_bytes(path.read_bytes()[:-100])
  code, out = run(capsys, tmp_path)
  assert code == 3
  assert "stems that cannot be read: 1\ntrain/a/bass: audio file must be whole; got path=" in out
  assert "instrument songs stems hours of stems\nguitar 1 1 0.00" in out


def test_long_lists_are_cut(tmp_path, capsys):
  for i in range(25):
    write_tone(tmp_path / f"a/part {i}.wav")
  _, out = run(capsys, tmp_path)
  assert out.count("kept without a category") == 20
  assert "... and 5 more: --all lists them" in out
  _, out = run(capsys, tmp_path, "--all")
  assert out.count("kept without a category") == 25
  assert "more:" not in out


def test_mistakes_and_help(tmp_path, capsys):
  with pytest.raises(UserError, match="path must be a folder; got path="):
    inspect.main([str(tmp_path / "none")])
  with pytest.raises(UserError, match="laid out as one corpus"):
    inspect.main([str(tmp_path)])
  with pytest.raises(UserError, match="corpus must be one of auto"):
    inspect.main([str(tmp_path), "--corpus", "x"])
  with pytest.raises(SystemExit):
    inspect.main(["--help"])
  assert "example: python -m data_prep.inspect music" in capsys.readouterr().out


@pytest.mark.parametrize("depth", ["", "a/", "a/b/"])
def test_a_dataset_is_no_corpus(tmp_path, depth):
  write_tone(tmp_path / "a/b/gtr.wav")
  (tmp_path / f"{depth}stemgen.json").touch()
  with pytest.raises(UserError, match="dataset metadata must be whole"):
    inspect.main([str(tmp_path)])
