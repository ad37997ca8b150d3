# SPDX-License-Identifier: Apache-2.0
"""Runs that are stopped, killed, damaged or out of disk: real processes, and what they leave."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import FAST_COMPILE

from stemgen_jax.config import MeshConfig
from stemgen_jax.config_json import to_dict
from stemgen_jax.errors import UserError
from stemgen_jax.model import losses
from stemgen_jax.model.network import build
from stemgen_jax.model.sharding import build_mesh
from stemgen_jax.train import train
from stemgen_jax.training import checkpoint
from stemgen_jax.training.checkpoint import Checkpoints
from stemgen_jax.training.digests import find_damage
from stemgen_jax.training.metrics import read_metrics
from stemgen_jax.training.step import init_state
from stemgen_jax.training.weights import load_average

ROOT = Path(__file__).parents[2]
TIMES = ("frames_per_s", "data_wait_share")


@pytest.fixture(scope="module")
def environment(tiny_dataset):
  return os.environ | {
    "TINY_DATASET": str(tiny_dataset),
    "XLA_FLAGS": FAST_COMPILE,
    "PYTHON": sys.executable,
  }


def start(environment, workdir, *flags, prefix=()):
  command = [sys.executable, "-m", "stemgen_jax.train", *prefix]
  if prefix:
    command = [str(word) for word in prefix]
  return subprocess.Popen(
    [*command, "--config", "tests/tiny_run.py", "--workdir", str(workdir), *flags],
    cwd=ROOT,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def finish(process):
  text, _ = process.communicate(timeout=300)
  return process.returncode, text


def curve(workdir):
  return {
    step: {name: x for name, x in row.items() if name not in TIMES}
    for step, row in read_metrics(workdir).items()
  }


def average(workdir):
  _, params, meta = load_average(workdir, build_mesh(MeshConfig(), jax.devices()[:1]))
  return jax.device_get(params), meta["step"]


def assert_same_run(one, other):
  assert curve(one) == curve(other)
  (a, step), (b, again) = average(one), average(other)
  assert step == again
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module")
def whole(environment, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("whole")
  code, text = finish(start(environment, workdir))
  assert code == 0, text
  assert "done: step 60/60" in text
  return workdir


def wait_for_step(workdir, step):
  path = workdir / "metrics.jsonl"
  for _ in range(3000):
    if path.exists() and len(path.read_bytes().splitlines()) >= step:
      return
    time.sleep(0.02)
  raise AssertionError(f"no step {step} within a minute")


def test_sigterm_saves_and_the_same_command_goes_on(environment, whole, tmp_path):
  process = start(environment, tmp_path)
  wait_for_step(tmp_path, 10)
  process.send_signal(signal.SIGTERM)
  code, text = finish(process)
  assert code == 0
  last = max(read_metrics(tmp_path))
  assert f"stopped by SIGTERM after step {last}, and saved: the same command goes on" in text
  assert 10 <= last < 60
  code, text = finish(start(environment, tmp_path))
  assert code == 0
  assert f"from step {last}" in text
  assert_same_run(tmp_path, whole)


@pytest.mark.parametrize(
  "kills", [2, pytest.param(10, marks=pytest.mark.slow)], ids=lambda n: f"{n} kills"
)
def test_killed_at_any_moment_a_run_loses_no_bit(environment, whole, tmp_path, kills):
  rng = random.Random(kills)
  seen = []
  for _ in range(kills):
    process = start(environment, tmp_path)
    done = max(read_metrics(tmp_path), default=0) if seen else 0
    wait_for_step(tmp_path, min(60, done + rng.randrange(1, 8)))
    time.sleep(rng.random() * 0.2)  # anywhere in a step, in a save, in a line of the log
    process.kill()
    finish(process)
    seen.append(max(read_metrics(tmp_path)))
  code, text = finish(start(environment, tmp_path))
  assert code == 0, text
  assert_same_run(tmp_path, whole)


def cut_short(path):
  path.write_bytes(path.read_bytes()[:-9])


def flip_a_bit(path):
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 16
  path.write_bytes(content)


@pytest.mark.parametrize(
  ("damage", "digest"),
  [
    (cut_short, False),
    (flip_a_bit, True),
    (Path.unlink, True),
    pytest.param(cut_short, True, marks=pytest.mark.slow),
    pytest.param(flip_a_bit, False, marks=pytest.mark.slow),
    pytest.param(Path.unlink, False, marks=pytest.mark.slow),
  ],
)
def test_a_damaged_checkpoint_is_named_and_passed_over(
  tiny_config, tmp_path, capsys, damage, digest
):
  config = tiny_config()
  train(config, tmp_path)
  good = curve(tmp_path)
  newest = tmp_path / "checkpoints/6"
  victim = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
  if not digest:  # killed before it was noted: only what cannot be read is known
    (tmp_path / "digests/6.json").unlink()
    victim = newest / "meta/metadata"
    if damage is flip_a_bit:
      pytest.skip("may still be read")
  damage(victim)
  capsys.readouterr()
  mesh = build_mesh(MeshConfig(), jax.devices()[:1])
  _, _, meta = load_average(tmp_path, mesh)
  assert meta["step"] == 4
  assert f"{newest} is damaged" in capsys.readouterr().err
  train(config, tmp_path)
  error = capsys.readouterr().err
  assert f"checkpoint {newest} is damaged" in error
  assert (tmp_path / "damaged/6.0").is_dir()
  assert f"resuming {tmp_path} from step 4" in error
  assert curve(tmp_path) == good
  assert load_average(tmp_path, mesh)[2]["step"] == 6


def test_what_cannot_be_read_back_does_not_count_as_saved(tiny_config, tmp_path, monkeypatch):
  config = tiny_config()
  config.optim.steps, config.optim.warmup_steps, config.eval_batches = 2, 1, 0
  workdir = tmp_path / "run[1]"  # in which Orbax merges nothing, and says nothing
  with pytest.raises(UserError, match="--workdir must have no"):
    train(config, workdir)
  (tmp_path / "link").symlink_to(workdir)
  with pytest.raises(UserError, match="--workdir must have no"):
    train(config, tmp_path / "link")
  assert not workdir.exists()
  monkeypatch.setattr("stemgen_jax.train.refuse_patterns", lambda *a: None)
  with pytest.raises(UserError, match=r"must take a whole checkpoint.*whole one is of step none"):
    train(config, workdir)
  assert not list((workdir / "digests").glob("*"))


def test_a_checkpoint_without_a_digest_is_read_back(tiny_config, tmp_path):
  config = tiny_config()
  config.optim.steps, config.optim.warmup_steps, config.eval_batches = 2, 1, 0
  train(config, tmp_path)
  (tmp_path / "digests/2.json").unlink()
  assert find_damage(tmp_path, 2) is None
  for path in (tmp_path / "checkpoints/2/average").rglob("d/*"):
    path.write_bytes(b"")
  assert find_damage(tmp_path, 2)


def test_only_the_first_process_reads_checkpoints_through(monkeypatch, tmp_path):
  from jax.experimental import multihost_utils

  monkeypatch.setattr(jax, "process_count", lambda: 2)
  looked, said = [], []
  monkeypatch.setattr(
    checkpoint, "find_damage", lambda *a: looked.append(a) or "file state/d/é is missing"
  )
  monkeypatch.setattr(multihost_utils, "broadcast_one_to_all", lambda x: said.append(x) or said[0])
  for number in range(2):
    monkeypatch.setattr(jax, "process_index", lambda number=number: number)
    assert checkpoint._find_damage(tmp_path, 3) == "file state/d/é is missing"
  assert len(looked) == 1
  assert len(said) == 2


def test_a_half_written_checkpoint_counts_for_nothing(tiny_config, tmp_path):
  config = tiny_config()
  config.optim.steps = 4
  train(config, tmp_path)
  half = tmp_path / "checkpoints/6.orbax-checkpoint-tmp"
  (half / "state").mkdir(parents=True)
  config.optim.steps = 6
  assert int(train(config, tmp_path).step) == 6


def test_the_best_checkpoint_stays_and_is_what_is_sampled_from(tiny_config, tmp_path):
  config = tiny_config()
  state = init_state(config, build(config.model))
  meta = {"config": to_dict(config), "dataset": {}}
  checkpoints = Checkpoints(tmp_path, kept=1)
  for step, loss in enumerate((None, 3.0, 1.0, 2.0, 2.5)):
    state = state.replace(
      step=jnp.int32(step), average=jax.tree.map(lambda x: x + 1, state.average)
    )
    checkpoints.save(state, meta, loss)
  checkpoints.close()
  assert sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == [2, 4]
  assert Checkpoints(tmp_path, kept=1).latest_step() == 4
  assert average(tmp_path)[1] == 2


@pytest.mark.slow
def test_no_whole_checkpoint_is_an_error_once(tiny_config, tmp_path):
  config = tiny_config()
  config.optim.steps = 3
  config.checkpoints_kept = 1
  train(config, tmp_path)
  (tmp_path / "checkpoints/3/meta/metadata").unlink()
  with pytest.raises(UserError, match=r"must have a whole checkpoint.*step 3.*begin at step 0"):
    train(config, tmp_path)
  train(config, tmp_path)


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_leaves_the_last_checkpoint(environment, tmp_path):
  code, text = finish(start(environment, tmp_path, "--config.optim.steps=8"))
  assert code == 0, text
  # No file may grow beyond this (in blocks of 512 bytes): what a full disk is to one that writes.
  # Orbax shares arrays out among files by timing, but a state's list of arrays is one file.
  listing = next((tmp_path / "checkpoints").glob("*/state/_METADATA")).stat().st_size
  limited = f'ulimit -f {listing // 512}; exec "$@"'
  command = ["sh", "-c", limited, "sh", sys.executable, "-m", "stemgen_jax.train"]
  code, text = finish(start(environment, tmp_path, prefix=command))
  assert code == 2, text
  lines = [line for line in text.splitlines() if line.startswith("error: ")]
  assert len(lines) == 1, text
  assert "must take a whole checkpoint" in lines[0]
  assert "The last whole one is of step 8" in lines[0]
  assert "Traceback" not in text
  code, text = finish(start(environment, tmp_path, "--config.optim.steps=10"))
  assert code == 0
  assert "from step 8" in text


def test_a_loss_that_stays_infinite_ends_the_run(tiny_config, tmp_path, monkeypatch):
  config = tiny_config()
  config.optim.max_skipped, config.eval_batches = 2, 0
  config.optim.steps = 9
  nll = losses.token_nll
  with monkeypatch.context() as patch:
    patch.setattr(losses, "token_nll", lambda *a: nll(*a) * np.inf)
    with pytest.raises(UserError, match=r"2 steps in a row.*up to step 2.*train\d.*learning_rate"):
      train(config, tmp_path)
  row = read_metrics(tmp_path)[1]
  assert row["skipped_steps"] == 1
  assert "loss" not in row
  assert np.isfinite(curve(tmp_path)[1]["skipped_steps"])
  assert int(train(config, tmp_path).step) == 9


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_together_are_one_run(environment, tmp_path, count):
  flags = ("--config.optim.steps=12", "--config.eval_batches=1", "--config.eval_every_steps=6")
  alone, together = tmp_path / "alone", tmp_path / "together"
  code, text = finish(start(environment, alone, *flags))
  assert code == 0, text
  code, text = finish(start(environment, together, *flags, prefix=("launch/local.sh", count)))
  assert code == 0, text
  one, many = curve(alone), curve(together)
  assert one.keys() == many.keys()
  for step, row in one.items():
    for name, value in row.items():
      np.testing.assert_allclose(many[step][name], value, rtol=1e-3, atol=1e-4, err_msg=name)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4),
    average(alone)[0],
    average(together)[0],
  )
  # Each goes on from the other's checkpoints; the processes on another mesh.
  more = (*flags, "--config.optim.steps=16")
  code, text = finish(start(environment, together, *more))
  assert code == 0, text
  mesh = ("--config.mesh.fsdp=2", f"--config.mesh.tensor={count // 2}")
  code, text = finish(start(environment, alone, *more, *mesh, prefix=("launch/local.sh", count)))
  assert code == 0, text
  assert "from step 12" in text
  np.testing.assert_allclose(curve(alone)[16]["loss"], curve(together)[16]["loss"], atol=1e-4)


def test_fine_tuning_starts_from_another_runs_average(tiny_config, tmp_path, capsys):
  config = tiny_config()
  train(config, tmp_path / "first")
  config.optim.steps, config.optim.warmup_steps = 1, 0
  config.optim.learning_rate = 1e-12
  state = train(config, tmp_path / "second", init_from=tmp_path / "first")
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
    jax.device_get(state.params),
    average(tmp_path / "first")[0],
  )
  assert "--init_from" not in capsys.readouterr().err
  train(config, tmp_path / "second", init_from=tmp_path / "first")
  assert "goes on from its own step 1: --init_from" in capsys.readouterr().err
  with pytest.raises(
    UserError, match=r"--init_from .* must hold the same model.*dim was 32, got 64"
  ):
    train(tiny_config(dim=64), tmp_path / "third", init_from=tmp_path / "first")


@pytest.mark.slow
def test_a_profile_is_written(tiny_config, tmp_path):
  config = tiny_config()
  config.optim.steps, config.eval_batches = 9, 0
  config.train.profile = True
  train(config, tmp_path)
  assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_weights_and_biases_gets_every_scalar(tiny_config, tmp_path, monkeypatch):
  config = tiny_config()
  config.train.wandb = "stems"
  monkeypatch.setitem(sys.modules, "wandb", None)
  with pytest.raises(UserError, match=r"without the package.*stemgen_jax\[wandb\]"):
    train(config, tmp_path / "a")
  seen = {}

  class Run:
    def log(self, scalars, step):
      seen.setdefault(step, {}).update(scalars)

    def finish(self):
      seen["finished"] = True

  class Wandb:
    @staticmethod
    def init(**settings):
      seen["settings"] = settings
      return Run()

  monkeypatch.setitem(sys.modules, "wandb", Wandb)
  train(config, tmp_path / "b")
  assert seen.pop("finished")
  assert seen.pop("settings")["project"] == "stems"
  assert seen[6]["loss"] == read_metrics(tmp_path / "b")[6]["loss"]
