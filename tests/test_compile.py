# SPDX-License-Identifier: Apache-2.0
"""What is read out of programs compiled for CPU devices, and for TPU where libtpu is at hand."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from stemgen_jax.compile import hlo
from stemgen_jax.compile.__main__ import main
from stemgen_jax.compile.chips import CHIPS
from stemgen_jax.config import ModelConfig
from stemgen_jax.errors import UserError
from stemgen_jax.model.flops import forward_flops, train_flops
from stemgen_jax.model.network import build

ROOT = Path(__file__).parents[1]
HAS_LIBTPU = "TPU_LIBRARY_PATH" in os.environ or importlib.util.find_spec("libtpu")


@pytest.mark.parametrize("turns", [3, 7])
def test_a_loops_body_counts_as_often_as_it_turns(turns):
  def program(x):
    return jax.lax.fori_loop(0, turns, lambda _, y: jnp.sort(y * 2), x)

  text = jax.jit(program).lower(jnp.ones(64)).compile().as_text()
  (sort,) = [op for op in hlo.count_ops(text) if op.kind == "sort"]
  assert sort.repeats == turns


def test_collectives_are_counted_with_their_bytes_and_groups():
  mesh = Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("a", "b"))
  split = NamedSharding(mesh, PartitionSpec("b"))

  def program(x):
    def body(_, y):
      return jax.lax.psum(y, "b") / 2

    return jax.shard_map(
      lambda x: jax.lax.fori_loop(0, 5, body, x),
      mesh=mesh,
      in_specs=PartitionSpec("b"),
      out_specs=PartitionSpec("b"),
      check_vma=False,
    )(x)

  shape = jax.ShapeDtypeStruct((256,), jnp.float32, sharding=split)
  ops = hlo.count_ops(jax.jit(program).lower(shape).compile().as_text())
  (found,) = hlo.count_collectives(ops, 4)
  assert (found.kind, found.size, found.group, found.repeats) == ("all-reduce", 128 * 4, 2, 5)
  assert found.seconds(1e9) == pytest.approx(2 * 512 / 2 / 1e9)  # twice (n-1)/n of the bytes


def test_flops_are_those_of_the_compilers_own_count():
  config = ModelConfig(
    n_levels=4, n_codes=256, dim=256, n_layers=3, n_heads=4, mlp_dim=512, unroll=3, remat="none"
  )
  model, rows, frames = build(config), 4, 100
  params = jax.eval_shape(model.init, jax.random.key(0))
  codes = jax.ShapeDtypeStruct((rows, frames, 4), jnp.int32)
  conditions = jax.ShapeDtypeStruct((rows, 0), jnp.int32)
  keep = jax.ShapeDtypeStruct((rows, 1), bool)
  forward = jax.jit(
    lambda p, t, c, n, k: model.read_asked(p, model.apply(p, t, c, n, k), (0, 1, 2, 3))
  )
  counted = forward.lower(params, codes, codes, conditions, keep).cost_analysis()["flops"]
  needed = rows * forward_flops(config, frames)
  assert needed < counted < 1.06 * needed  # what is not a matrix product
  assert train_flops(config, frames) == 3 * forward_flops(config, frames)


def compile_tiny(tiny_dataset, out, *words):
  """Runs the command in a process of its own, and returns its rows and what it printed."""
  command = [sys.executable, "-m", "stemgen_jax.compile", "--config", "tests/tiny_run.py"]
  done = subprocess.run(
    [*command, "--program", "train", "sample", "--json", str(out), *words],
    cwd=ROOT,
    env=os.environ | {"TINY_DATASET": str(tiny_dataset)},
    capture_output=True,
    text=True,
    check=True,
    timeout=300,
  )
  return json.loads(out.read_text()), done.stdout


@pytest.mark.slow
def test_this_machines_programs_are_compiled_without_times(tiny_dataset, tmp_path):
  words = ("--topology", "cpu", "--mesh", "4x2x1", "--batch_chip", "2")
  (train, sample), text = compile_tiny(tiny_dataset, tmp_path / "new/rows.json", *words)
  assert (train["program"], train["mesh"], train["chips"]) == ("train", "4x2x1", 8)
  assert train["batch_chip"] == 2
  assert 0 < train["argument_gb"] < 0.01
  assert train["tflop"] > sample["tflop"] > 0
  assert "all-reduce" in train["collectives"]
  assert "estimate_ms" not in train
  assert "4x2x1" in text


@pytest.mark.skipif(not HAS_LIBTPU, reason="needs libtpu")
def test_a_tpu_slice_that_is_not_there(tiny_dataset, tmp_path):
  words = ("--topology", "v5e:2x2", "--mesh", "2x2x1")
  for row in compile_tiny(tiny_dataset, tmp_path / "rows.json", *words)[0]:
    assert row["chips"] == 4
    assert 0 < row["bound_mfu"] < 1
    assert row["estimate_ms"] > 0
    assert 0 < row["hbm_share"] < 0.1


@pytest.mark.parametrize(
  ("words", "match"),
  [
    (["--topology", "v9:2x2"], "--topology must be cpu, or.*'v9:2x2'"),
    (["--topology", "cpu", "--mesh", "4"], "must be DATAxFSDPxTENSOR"),
    (["--topology", "cpu", "--mesh", "3x1x1"], "must multiply to the number of devices"),
    (["--topology", "cpu", "--batch_chip", "0"], "batch_size"),
  ],
)
def test_mistakes_are_named(tiny_dataset, monkeypatch, words, match):
  monkeypatch.setenv("TINY_DATASET", str(tiny_dataset))
  with pytest.raises(UserError, match=match):
    main(["--config", "tests/tiny_run.py", *words])


def test_chips_peaks_are_their_makers():
  assert CHIPS["v5e"].flops == 197e12
  assert CHIPS["v5e"].spread_bytes_per_s(16, 16) == 2 * CHIPS["v5e"].spread_bytes_per_s(4, 16)
