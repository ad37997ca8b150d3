# SPDX-License-Identifier: Apache-2.0
"""The benches of the pipeline: their arithmetic, and rows made of what was measured."""

import json

import numpy as np
import pytest

from stemgen_jax.bench import data as bench_data
from stemgen_jax.bench import train as bench_train
from stemgen_jax.bench.__main__ import main
from stemgen_jax.bench.random_shards import METADATA, write_random
from stemgen_jax.config import ModelConfig
from stemgen_jax.data.records import Dataset
from stemgen_jax.errors import UserError
from stemgen_jax.model.flops import train_flops
from stemgen_jax.model.network import build


def test_random_shards(tmp_path):
  dataset = Dataset.open(write_random(tmp_path, 3, song_s=90.0, stems=2, mixes=3))
  source = dataset.source("train")
  assert source.songs == ("song 0", "song 0", "song 1", "song 1", "song 2", "song 2")
  assert source.frames.tolist() == [2250] * 6
  assert source[1].start_frame == 2250
  assert not source[0].mix_members[0].any()
  assert (source.target_db == -20).all() or (source.target_db > -50).all()
  assert source[0].stem_codes.max() < METADATA.n_codes
  assert not np.array_equal(source[0].stem_codes, source[2].stem_codes)


def test_flops_of_an_example():
  import jax

  config = ModelConfig(sources={})
  params = jax.eval_shape(build(config).init, jax.random.key(0))
  count = sum(leaf.size for leaf in jax.tree.leaves(params))
  frames = 1000
  flops = bench_data.MFU * bench_data.H100_FLOPS / bench_data.h100_examples(config, frames)
  attention = 12 * config.n_layers * frames**2 * config.dim
  multiplied = (flops - attention) / 6 / frames
  # All parameters but those of no matrix product (codebooks, norms) and the heads not asked.
  unused = config.n_levels * (config.n_codes + 1) * config.dim // 2
  unused += (config.n_levels - 1) * config.n_codes * config.dim
  assert multiplied == pytest.approx(count - unused, rel=1e-3)


def test_rows(tmp_path, capsys, monkeypatch):
  path = write_random(tmp_path, 40, stems=2, mixes=3)
  out = tmp_path / "rows.json"
  words = ["data", "--data", str(path), "--batches", "50", "--workers", "0", "--json", str(out)]
  main([*words, "--batch", "1"])
  assert [row["state"] for row in json.loads(out.read_text())] == ["warm"]  # too few clips
  monkeypatch.setattr(bench_data, "COLD_LEAST", 2)
  main([*words, "--batch", "1"])
  rows = json.loads(out.read_text())
  assert [(row["state"], row["workers"]) for row in rows] == [("cold", 0), ("warm", 0)]
  for row in rows:
    assert row["times_h100"] == pytest.approx(
      row["examples_per_s"] / bench_data.h100_examples(ModelConfig(), 1000)
    )
    assert row["song_kb"] == pytest.approx(
      sum(s.size for s in Dataset.open(path).shards["train"]) / 40e3
    )
    assert 0 < row["example_kb"] < row["song_kb"]
  assert "examples / s" in capsys.readouterr().out


def test_mistakes():
  with pytest.raises(UserError, match="must be positive"):
    main(["data", "--batch", "0"])
  with pytest.raises(UserError, match="must be at least 1"):
    main(["scale", "--songs", "0"])


@pytest.mark.slow
def test_scale(tmp_path):
  out = tmp_path / "rows.json"
  main(["scale", "--songs", "2", "--stems", "2", "--mixes", "2", "--folder", str(tmp_path),
        "--json", str(out)])  # fmt: skip
  (row,) = json.loads(out.read_text())
  assert (row["songs"], row["records"], row["shards"]) == (2, 8, 1)
  assert row["start_s"] > row["step_s"]
  assert row["peak_mb"] > 100
  assert [p.name for p in tmp_path.iterdir()] == ["rows.json"]


@pytest.mark.parametrize(
  ("dims", "frames", "batches", "sizes"),
  [
    ("64", "20", "4", [(64, 20, 4)]),
    pytest.param(
      "64 128",
      "20 40",
      "4 8",
      [(64, 20, 4), (128, 20, 4), (64, 40, 4), (64, 20, 8)],
      marks=pytest.mark.slow,
    ),
  ],
)
def test_training_steps_are_timed_over_width_length_and_batch(
  tmp_path, dims, frames, batches, sizes
):
  out, plot = tmp_path / "rows.json", tmp_path / "new/train.svg"
  main([
    "train", "--dim", *dims.split(), "--frames", *frames.split(), "--batch", *batches.split(),
    "--layers", "1", "--steps", "2", "--matmul", "256", "--plot", str(plot), "--json", str(out),
  ])  # fmt: skip
  rows = json.loads(out.read_text())
  assert [(row["dim"], row["frames"], row["batch"]) for row in rows] == sizes
  for row in rows:
    assert row["compilations"] == 1
    assert 0 <= row["wait_share"] < 1
    assert row["matmul_share"] == pytest.approx(row["gflops_per_s"] / row["matmul_gflops_per_s"])
    model = bench_train.build_config(
      bench_train.METADATA, row["dim"], row["frames"], row["batch"], 1
    ).model
    flops = row["batch"] * train_flops(model, row["frames"])
    assert row["gflops_per_s"] == pytest.approx(flops / row["step_s"] / 1e9)
  text = plot.read_text()
  assert text.startswith("<?xml")


@pytest.mark.parametrize("flag", [("--dim", "100"), ("--steps", "0"), ("--batch", "-1")])
def test_sizes_out_of_range_are_refused(flag):
  with pytest.raises(UserError, match="every number must be positive and --dim a multiple of 64"):
    main(["train", *flag])
