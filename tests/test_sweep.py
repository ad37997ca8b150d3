# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json
import re
from pathlib import Path

import pytest

from stemgen_jax import sweep
from stemgen_jax.bench import random_shards
from stemgen_jax.errors import run_cli
from stemgen_jax.sampling.stemgen import StemGen

ROOT = Path(__file__).parents[1]
LINES = (
  {"name": "own"},
  {"name": "no guidance", "guidance_mode": "joint", "steps": [2, 1, 1, 1]},
)


@pytest.fixture
def run(stemgen, tmp_path, monkeypatch):
  """A function that runs the command on random codes and returns its rows by name."""
  like_the_demo = dataclasses.replace(random_shards.METADATA, n_codes=1024)
  monkeypatch.setattr(random_shards, "METADATA", like_the_demo)
  data = random_shards.write_random(tmp_path, 12, song_s=3.0, stems=3, mixes=3)
  monkeypatch.setattr(StemGen, "from_checkpoint", lambda *_: stemgen)

  def call(*lines, **changes):
    (tmp_path / "settings.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    flags = {
      "checkpoint": "none",
      "data": data,
      "split": "train",
      "examples": 3,
      "out": tmp_path / "out",
      "settings": tmp_path / "settings.jsonl",
    } | changes
    sweep.main([word for key, value in flags.items() for word in (f"--{key}", str(value))])
    return dict(sweep.read_rows(tmp_path / "out" / sweep.ROWS))

  return call


def test_rows_tables_and_what_is_done_is_not_done_again(run, tmp_path, capsys, monkeypatch):
  rows = run(LINES[0])
  assert list(rows) == ["true stems", "other songs' stems", "own"]
  assert rows["true stems"]["stem_s"] is None
  assert rows["true stems"]["FAD"] == pytest.approx(0, abs=1e-2)
  assert all(rows[name]["FAD"] > 1 for name in ("other songs' stems", "own"))
  for row in rows.values():
    assert row["low"] <= row["score"] <= row["high"]
    assert row["n"] == 3
    assert row["MIRDD"] >= 0
    assert 0 <= row["rhythm"] <= 1
    assert 0 <= row["pitched"] <= 1
  made = []
  write = sweep.write_stems
  monkeypatch.setattr(sweep, "write_stems", lambda *a: made.append(a) or write(*a))
  again = run(*LINES)
  assert len(made) == 2  # once to compile
  rows_file = tmp_path / "out" / sweep.ROWS
  old = [json.loads(line) for line in rows_file.read_text().splitlines()]
  del old[0]["MIRDD"]  # as an older version wrote it
  rows_file.write_text("".join(json.dumps(row) + "\n" for row in old))
  assert str(run(*LINES)) == str(again)
  assert len(made) == 2
  assert {name: str(row) for name, row in rows.items()}.items() <= {
    name: str(row) for name, row in again.items()
  }.items()
  table = capsys.readouterr().out.strip().splitlines()
  assert table[-1].startswith("| no guidance |")
  assert (tmp_path / "out/pareto.png").stat().st_size > 1000


def test_mistakes_are_one_line(run, capsys):
  for lines, complaint in (
    ([{"steps": [1, 1, 1, 1]}], "object with a name"),
    ([{"name": "a", "heat": 1}], "settings must be among"),
    ([{"name": "a", "steps": [1]}], "line 1 of .*4 positive numbers"),
    ([{"name": "a"}, {"name": "a"}], "line 2 of .*no other has; got 'a'"),
    ([{"name": "true stems"}], "line 1 of .*no other has"),
  ):
    assert run_cli(lambda lines=lines: run(*lines)) == 2
    assert re.search(complaint, capsys.readouterr().err)
  for changes, complaint in (
    ({"examples": 1}, "--examples must be at least 2; got 1"),
    ({"seed": -1}, "seed must lie in"),
    ({"settings": "nowhere.jsonl"}, "--settings must be a text file"),
  ):
    assert run_cli(lambda changes=changes: run({"name": "a"}, **changes)) == 2
    assert complaint in capsys.readouterr().err


def test_other_windows_are_not_mixed_and_changed_settings_are_measured_anew(run, capsys):
  first = run(LINES[0])
  assert run_cli(lambda: run(LINES[0], seed=1)) == 2
  assert "made with other seed (0, not 1)" in capsys.readouterr().err
  again = run({"name": "own", "temperature": 2.0})
  assert again["own"]["settings"] != first["own"]["settings"]
  assert again["true stems"] == first["true stems"]


def test_the_papers_figures_stand_beside_ours(run, tmp_path, capsys):
  run(LINES[0] | {"paper": {"FAD": 3.12, "MIRDD": 0.14}})
  table = (tmp_path / "out/table.md").read_text()
  assert "FAD, the paper's | MIRDD, the paper's |" in table
  assert next(line for line in table.splitlines() if line.startswith("| own |")).endswith(
    "| 3.12 | 0.14 |"
  )
  assert "another model, with other extractors" in table
  capsys.readouterr()
  assert run_cli(lambda: run({"name": "own", "paper": {"FAD": 3.12}})) == 2
  assert "must give paper as numbers FAD and MIRDD" in capsys.readouterr().err


def test_the_papers_tables_are_its_grids(stemgen):
  tables = {n: sweep.read_settings(ROOT / f"configs/table{n}.jsonl", stemgen) for n in (1, 2, 3)}
  for settings, paper in tables.values():
    made = {name: options for name, options in settings.items() if options is not None}
    assert made.keys() == paper.keys()
    assert {options.steps for options in made.values()} == {(128, 64, 32, 32)}
    assert {(options.w_c, options.w_r) for options in made.values()} == {(0.1, 1.0)}
  scales = [options.guidance for options in tables[1][0].values() if options is not None]
  assert {tuple(scale.values()) for scale in scales} == {
    *((1.0, 1.0), (1.0, 2.0), (1.0, 3.0), (1.0, 4.0), (2.0, 1.0), (3.0, 1.0), (4.0, 1.0)),
    *((2.0, 2.0), (3.0, 3.0), (4.0, 4.0)),
  }
  own = [options.w_s for options in tables[2][0].values() if options is not None]
  assert own == [0.0, 0.1, 0.2, 0.5]
