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
from stemgen_jax.bench.growth import list_alike, plot_growth
from stemgen_jax.config import ModelConfig, SampleConfig
from stemgen_jax.model import guidance
from stemgen_jax.model.decode import decode, options_of
from stemgen_jax.model.network import build

SIZES = {"dim": "64", "layers": "1", "frames": "12", "repeats": "1"}
SMALL = [word for name, size in SIZES.items() for word in (f"--{name}", size)]


def run(tmp_path, *flags):
  steps, out = ["--steps", "2", "1", "1", "1"], tmp_path / "rows.json"
  main(["sample", *SMALL, *steps, "--json", str(out), *flags])
  return json.loads(out.read_text())


def check(row):
  assert math.isclose(row["times_torch"], row["torch_s"] / row["stem_s"])
  assert math.isclose(row["overhead"], row["iteration_ms"] / row["forward_ms"] - 1)


@pytest.mark.torch
def test_a_row_stands_beside_torch(tmp_path):
  (row,) = run(tmp_path, "--only_base")
  assert row["case"] == "base"
  check(row)


def test_growth_is_drawn_over_rows_that_differ_in_one_number(tmp_path):
  numbers = [(8, 1), (4, 1), (8, 3), (16, 1), (4, 3)]
  shared = {"seconds": 1.5, "matmul_share": 0.5, "cpu": "Xeon", "threads": 2, "layers": 4}
  rows = [{"frames": frames, "branches": branches, **shared} for frames, branches in numbers]
  over = {"frames": "frames", "branches": "branches"}
  alike = {name: [row[name] for row in list_alike(rows, over, name)] for name in over}
  assert alike == {"frames": [8, 4, 16], "branches": [1, 3]}
  path = tmp_path / "growth.svg"
  plot_growth(rows, over, "seconds", "seconds a stem", path)
  assert path.read_text().startswith("<?xml")


@pytest.mark.slow
@pytest.mark.torch
def test_each_row_changes_one_number_of_the_first(tmp_path):
  rows = run(tmp_path, "--plot", str(tmp_path / "new/sample.svg"))
  assert (tmp_path / "new/sample.svg").is_file()
  assert [row["case"] for row in rows] == [
    "base",
    "6 frames",
    "24 frames",
    "10 iterations",
    "0 guided sources",
    "1 guided sources",
    "2 takes",
    "4 takes",
  ]
  for row in rows:
    check(row)


def test_without_torch_its_columns_are_empty(tmp_path, monkeypatch):
  monkeypatch.setattr(worker.importlib.util, "find_spec", lambda name: None)
  (row,) = run(tmp_path, "--only_base")
  assert {"times_torch", "torch_s"}.isdisjoint(row)


@pytest.fixture
def networks():
  """Our model, its parameters, the yardstick of both, and what they are asked."""
  pytest.importorskip("torch")
  from data_prep.yardsticks.torch_sampler import TorchNetwork

  config = ModelConfig(
    n_levels=3,
    n_codes=16,
    dim=32,
    n_layers=2,
    n_heads=2,
    mlp_dim=48,
    sources={"instrument": ("a", "b"), "genre": ("c", "d", "e")},
  )
  model = build(config)
  params = model.init(jax.random.key(0))
  rng = np.random.default_rng(0)
  target, context = rng.integers(0, 17, (2, 2, 9, 3)).astype(np.int32)
  context %= 16
  conditions = np.array([[0, 2], [1, -1]], np.int32)
  return model, params, TorchNetwork(params, list(config.sources)), target, context, conditions


@pytest.mark.torch
def test_the_yardsticks_network_is_ours(networks):
  import torch

  model, params, theirs, target, context, conditions = networks
  for keep in (*guidance.branches([True] * 3, "independent"), np.ones(3, bool)):
    features = model.apply(
      params,
      jnp.asarray(target),
      jnp.asarray(context),
      jnp.asarray(conditions),
      jnp.tile(jnp.asarray(keep)[None], (2, 1)),
    )
    ours = model.read_all(params, features)
    got = theirs(*(torch.from_numpy(x).long() for x in (target, context, conditions)), list(keep))
    np.testing.assert_allclose(got.numpy(), ours, rtol=2e-4, atol=2e-4)


@pytest.mark.torch
@pytest.mark.parametrize("weights", [(1.0, 0.0, 0.0), (1.0, 0.5, 0.0), (0.1, 3.0, 0.0)])
def test_we_decode_as_the_plain_algorithm_does(networks, weights):
  """Its decoding, written as section 2.1 of the paper reads, is the oracle of ours."""
  import torch

  from data_prep.yardsticks import torch_sampler

  model, params, theirs, _, context, conditions = networks
  steps, scales = (4, 3, 1), [2.0, 1.0, 1.5]
  plain = torch_sampler.decode(
    theirs,
    *(torch.from_numpy(x).long() for x in (context, conditions)),
    steps,
    scales,
    weights,
    temperature=0,
  )
  heard, asked = jnp.asarray(context), jnp.asarray(conditions)
  keeps = guidance.branches([True] * 3, "independent")
  shares = guidance.branch_weights(jnp.array(scales), [True] * 3, "independent")

  def network(tokens, level):
    logits = [  # of each branch B T Q V
      model.read_all(params, model.apply(params, tokens, heard, asked, jnp.array([keep] * 2)))
      for keep in keeps
    ]
    return guidance.guide(jnp.take(jnp.stack(logits), level, axis=3), shares)

  w_c, w_s, w_r = weights
  settings = SampleConfig(
    steps=steps, w_c=w_c, w_s=w_s, w_r=w_r, temperature=0.0, fine_temperature=0.0
  )
  ours = decode(
    network,
    jnp.zeros_like(heard),
    jnp.zeros(heard.shape, bool),
    jax.random.split(jax.random.key(0), 2),
    options_of(settings),
    16,
  )
  np.testing.assert_array_equal(ours, plain)
