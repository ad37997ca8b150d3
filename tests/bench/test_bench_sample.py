# SPDX-License-Identifier: Apache-2.0
"""The sampler's bench: its rows, and that the PyTorch yardstick does the same work."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stemgen_jax.bench import worker
from stemgen_jax.bench.__main__ import main
from stemgen_jax.config import ModelConfig
from stemgen_jax.model import guidance
from stemgen_jax.model.network import build

SIZES = {"dim": "64", "layers": "1", "frames": "12", "repeats": "1"}
SMALL = [word for name, size in SIZES.items() for word in (f"--{name}", size)]


def run(tmp_path, *flags):
  steps, out = ["--steps", "2", "1", "1", "1"], tmp_path / "rows.json"
  main(["sample", *SMALL, *steps, "--json", str(out), *flags])
  return json.loads(out.read_text())


def check(row):
  assert math.isclose(row["times_torch"], row["torch_s"] / row["stem_s"])
  assert row["stem_s"] > 0
  assert math.isclose(row["overhead"], row["iteration_ms"] / row["forward_ms"] - 1)
  assert row["gflops_per_s"] > 0


@pytest.mark.torch
def test_a_row_stands_beside_torch(tmp_path):
  (row,) = run(tmp_path, "--only_base")
  assert row["case"] == "base"
  check(row)


@pytest.mark.slow
@pytest.mark.torch
def test_each_row_changes_one_number_of_the_first(tmp_path):
  rows = run(tmp_path)
  assert [row["case"] for row in rows] == [
    "base", "6 frames", "24 frames", "10 iterations", "0 guided sources", "1 guided sources",
    "2 takes", "4 takes",
  ]  # fmt: skip
  for row in rows:
    check(row)


def test_without_torch_its_columns_are_empty(tmp_path, monkeypatch):
  monkeypatch.setattr(worker.importlib.util, "find_spec", lambda name: None)
  (row,) = run(tmp_path, "--only_base")
  assert "times_torch" not in row
  assert row["stem_s"] > 0


@pytest.mark.torch
def test_the_yardsticks_network_is_ours():
  torch = pytest.importorskip("torch")
  from data_prep.yardsticks.torch_sampler import TorchNetwork, decode

  config = ModelConfig(
    n_levels=3, n_codes=16, dim=32, n_layers=2, n_heads=2, mlp_dim=48,
    sources={"instrument": ("a", "b"), "genre": ("c", "d", "e")},
  )  # fmt: skip
  model = build(config)
  params = model.init(jax.random.key(0))
  rng = np.random.default_rng(0)
  target, context = rng.integers(0, 17, (2, 2, 9, 3)).astype(np.int32)
  context %= 16
  conditions = np.array([[0, 2], [1, -1]], np.int32)
  theirs = TorchNetwork(params, list(config.sources))
  for keep in (*guidance.branches([True] * 3, "independent"), np.ones(3, bool)):
    features = model.apply(
      params, jnp.asarray(target), jnp.asarray(context), jnp.asarray(conditions),
      jnp.tile(jnp.asarray(keep)[None], (2, 1)),
    )  # fmt: skip
    ours = model.read_all(params, features)
    got = theirs(*(torch.from_numpy(x).long() for x in (target, context, conditions)), list(keep))
    np.testing.assert_allclose(got.numpy(), ours, rtol=2e-4, atol=2e-4)
  tokens = decode(
    theirs, *(torch.from_numpy(x).long() for x in (context, conditions)), [4, 2, 1], [2.0, 1.0, 1.0]
  )
  assert ((tokens >= 0) & (tokens < 16)).all()
