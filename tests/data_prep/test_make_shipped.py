# SPDX-License-Identifier: Apache-2.0
"""The recipe of what lies in the package: its commands, its arithmetic, and that it runs."""

import json

import pytest

from data_prep import make_shipped
from data_prep.make_shipped import STAGES, Recipe, count_steps
from data_prep.music.render import default_soundfont
from stemgen_jax.errors import run_cli
from stemgen_jax.sampling.stemgen import StemGen


class Recorded:
  """Stands in for `Stages`: the commands that would be run."""

  def __init__(self):
    self.commands = []

  def run(self, name, module, *words):
    self.commands.append((name, module, [str(word) for word in words]))


def recipe(tmp_path, **changes):
  fields = {
    "workdir": tmp_path, "soundfonts": (default_soundfont(),) * 2, "midi": (), "songs": 21,
    "minutes": 10.0, "device": "cpu", "seed": 3,
  }  # fmt: skip
  return Recipe(**fields | changes)


def test_soundfonts_share_the_songs_and_no_arrangement_comes_twice(tmp_path):
  stages = Recorded()
  STAGES["music"](recipe(tmp_path), stages)
  STAGES["tokens"](recipe(tmp_path), stages)
  flags = [dict(zip(words[::2], words[1::2], strict=True)) for _, _, words in stages.commands[:2]]
  assert [(flag["--songs"], flag["--seed"]) for flag in flags] == [("11", "3"), ("11", "4")]
  assert [module.rpartition(".")[2] for _, module, _ in stages.commands[2:]] == [
    "tokenize", "tokenize", "join"
  ]  # fmt: skip
  assert all(str(tmp_path / "decoder/bundle") in words for _, _, words in stages.commands[2:4])


def test_every_soundfont_plays_the_midi_songs_too(tmp_path):
  stages = Recorded()
  STAGES["music"](recipe(tmp_path, midi=(tmp_path / "songs",)), stages)
  assert [name for name, _, _ in stages.commands] == [
    "music 0", "music 1", "music midi0", "music midi1"
  ]  # fmt: skip
  assert [("--songs" in words, "--midi" in words) for _, _, words in stages.commands] == [
    (True, False), (True, False), (False, True), (False, True)
  ]  # fmt: skip
  assert len({words[words.index("--seed") + 1] for _, _, words in stages.commands}) == 4


@pytest.mark.parametrize(("minutes", "steps"), [(6.0, 36), (0.01, 4)])
def test_steps_fill_the_minutes_at_the_speed_that_was_measured(tmp_path, minutes, steps):
  sizes = {"data": {"batch_size": 24, "crop_frames": 500}}
  (tmp_path / "config.json").write_text(json.dumps({"config": sizes}))
  rows = [{"step": 2, "frames_per_s": 10.0}, {"step": 4, "frames_per_s": 1200.0}, {"step": 4}]
  (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  assert count_steps(tmp_path, minutes) == steps


@pytest.mark.parametrize(
  ("words", "complaint"),
  [
    (["--minutes", "0"], "must be positive and finite; got 0 and 400"),
    (["--songs", "0"], "must be positive and finite; got 120 and 0"),
    (["--minutes", "nan"], "must be positive and finite; got nan and 400"),
    (["--midi", "none.mid"], "none.mid"),
    (["--stage", "model"], "--stage model must come after --stage music"),
    (["--soundfont", "none.sf2"], "must be a file that exists; got none.sf2"),
  ],
)
def test_mistakes_are_one_line_and_begin_nothing(tmp_path, capsys, words, complaint):
  flags = ["--workdir", str(tmp_path / "run"), *words]
  assert run_cli(lambda: make_shipped.main(flags)) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert complaint in line
  assert not (tmp_path / "run").exists()


def test_another_recipe_does_not_go_on_in_the_same_folder(tmp_path, capsys, monkeypatch):
  for name in STAGES:
    monkeypatch.setitem(STAGES, name, lambda recipe, stages: None)
  flags = ["--workdir", str(tmp_path / "run")]
  assert run_cli(lambda: make_shipped.main(flags)) == 0
  (tmp_path / "run/music").mkdir()
  capsys.readouterr()
  assert run_cli(lambda: make_shipped.main([*flags, "--seed", "1"])) == 2
  assert "seed" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.torch
def test_from_nothing_to_a_model_that_plays(tmp_path, music):
  make_shipped.main(["--workdir", str(tmp_path), "--minutes", "0.2", "--songs", "20"])
  model = StemGen.from_checkpoint(tmp_path / "shipped/model", tmp_path / "shipped/codec")
  result = model.generate(music, sample_rate=16_000, instrument="bass", steps=(1, 1, 1, 1))
  assert result.stems.shape == (1, *music.shape)
  assert {p.name for p in (tmp_path / "shipped/codec").iterdir()} >= {"decoder.json", "log.jsonl"}
