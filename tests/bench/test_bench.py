# SPDX-License-Identifier: Apache-2.0
"""The bench: what its rows hold, its table, and that it runs where torch is missing or broken."""

import json
import math

import numpy as np
import pytest

from stemgen_jax import codec as codecs
from stemgen_jax.bench import codec as bench_codec
from stemgen_jax.bench import worker
from stemgen_jax.bench.__main__ import main
from stemgen_jax.bench.codec import PUBLISHED, save_random
from stemgen_jax.bench.table import count_threads, show_rows
from stemgen_jax.codec.architecture import CodecSpec
from stemgen_jax.errors import UserError

SMALL = CodecSpec(
  sample_rate=8_000,
  n_levels=2,
  n_codes=16,
  ratios=(4, 2),
  dimension=8,
  n_filters=4,
  lstm=1,
  licence="none",
  source="a test",
)


@pytest.fixture
def bundle(tmp_path):
  save_random(tmp_path / "small", SMALL)
  return tmp_path / "small"


def run(bundle, *flags):
  """Returns the rows that the command writes."""
  out = bundle.parent / "new folder" / "rows.json"
  main(["codec", "--codec", str(bundle), "--seconds", "0.1", "--json", str(out), *flags])
  return json.loads(out.read_text())


@pytest.mark.torch
def test_rows_hold_both_libraries_and_the_machine(bundle, capsys):
  torch = pytest.importorskip("torch")
  rows = run(bundle, "--repeats", "3")
  cases = [(row["call"], row["library"]) for row in rows]
  assert cases == [(c, lib) for c in ("encode", "decode") for lib in ("jax", "torch")]
  for row in rows:
    assert 0 < row["min_s"] <= row["median_s"]
    assert math.isclose(row["audio_s_per_s"], 0.1 / row["median_s"])
    assert (row["codec"], row["dtype"], row["repeats"]) == ("small", "float32", 3)
    assert row["threads"] == count_threads() >= 1
    assert row["cpu"]
  for jax_row, torch_row in (rows[:2], rows[2:]):
    assert math.isclose(jax_row["times_torch"], torch_row["median_s"] / jax_row["median_s"])
    assert torch_row["times_torch"] == 1
    assert torch_row["version"] == torch.__version__
  table = capsys.readouterr().out
  assert f"threads {count_threads()}" in table
  assert f"{rows[0]['median_s']:.3f}" in table


def test_without_torch_only_its_rows_are_empty(bundle, capsys, monkeypatch):
  monkeypatch.setattr(worker.importlib.util, "find_spec", lambda name: None)
  rows = run(bundle, "--repeats", "1")
  assert [row["note"] for row in rows] == ["", "torch not installed"] * 2
  assert all(("median_s" in row) == (row["library"] == "jax") for row in rows)
  assert not any("times_torch" in row for row in rows)
  assert "torch not installed" in capsys.readouterr().out


def test_the_first_call_is_apart(bundle, monkeypatch):
  monkeypatch.setattr(worker.importlib.util, "find_spec", lambda name: None)
  taken = iter([9, 8, 1, 4, 2, 5, 6, 7.0])  # encode and decode take turns
  monkeypatch.setattr(bench_codec.JaxTimer, "time", lambda self, call: next(taken))
  encode, _, decode, _ = run(bundle, "--repeats", "3")
  assert [encode[key] for key in ("first_s", "median_s", "min_s")] == [9, 2, 1]
  assert [decode[key] for key in ("first_s", "median_s", "min_s")] == [8, 5, 4]


@pytest.mark.parametrize("program", ["/bin/false", "/bin/cat"])
def test_a_torch_side_that_stops_costs_only_its_rows(bundle, program, monkeypatch):
  monkeypatch.setattr(worker.importlib.util, "find_spec", lambda name: True)
  monkeypatch.setattr(worker.sys, "executable", program)
  rows = run(bundle, "--repeats", "1")
  assert [row["note"] for row in rows] == ["", "stopped with code 1, see above"] * 2


def test_random_weights_carry_a_signal(bundle):
  codec = codecs.load(bundle)
  audio = np.random.default_rng(0).normal(0, 0.1, (1, 1, 4000)).astype(np.float32)
  codes = codec.encode(audio)
  assert len(np.unique(codes)) > 4
  assert 1e-3 < np.std(codec.decode(codes)) < 10


def test_published_architectures_are_the_published_ones():
  facts = {
    name: (spec.frame_rate_hz, spec.n_codes, spec.bits_per_s) for name, spec in PUBLISHED.items()
  }
  assert facts["encodec_24khz"] == (75, 1024, 24_000)
  assert facts["encodec_32khz"] == (50, 2048, 2_200)
  assert facts["encodec_48khz"][:2] == (150, 1024)
  assert not any(spec.problems() for spec in PUBLISHED.values())


@pytest.mark.parametrize("flag", [("--seconds", "0"), ("--seconds", "nan"), ("--repeats", "0")])
def test_numbers_out_of_range_are_refused(flag):
  with pytest.raises(UserError, match=f"{flag[0]}.*; got"):
    main(["codec", *flag])


def test_a_part_must_be_known():
  with pytest.raises(UserError, match="invalid choice: 'cake'"):
    main(["cake"])


def test_table_tells_shared_values_once(capsys):
  columns = {"name": ("name", ""), "call": ("call", ""), "x": ("x", ".1f"), "note": ("", "")}
  rows = [
    {"name": "one", "call": "go", "x": 1.25, "cores": 2},
    {"name": "one", "call": "come", "note": "ill", "cores": 2},
    {"name": "two", "call": "come", "x": 3.0, "cores": 2},
  ]
  assert show_rows(iter(rows), columns) == rows
  first, *lines = capsys.readouterr().out.splitlines()
  assert first == "cores 2"
  assert [line.split() for line in lines if line.split()[1:]] == [
    ["name", "call", "x"],
    ["one", "go", "1.2"],
    ["come", "ill"],
    ["two", "come", "3.0"],
  ]


def test_rows_are_saved_as_they_come(tmp_path, capsys):
  def measure():
    yield {"name": "one"}
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    show_rows(measure(), {"name": ("name", "")}, tmp_path / "rows.json")
  assert json.loads((tmp_path / "rows.json").read_text()) == [{"name": "one"}]
  assert "one" in capsys.readouterr().out
