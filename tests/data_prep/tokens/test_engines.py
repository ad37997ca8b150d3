# SPDX-License-Identifier: Apache-2.0
"""The engines: the same work in this process, in several, and on Beam."""

import functools
import multiprocessing

import pytest
from engine_worker import Writer, fail_to_make

from data_prep.tokens.engines import run_pool
from stemgen_jax.errors import UserError

ITEMS = list("abcdefghij")


def written(folder):
  return {p.name: p.read_text() for p in folder.iterdir() if not p.name.startswith("made-")}


@pytest.mark.parametrize("workers", [1, 2])
def test_pool(tmp_path, workers):
  outcomes = dict(run_pool(functools.partial(Writer, tmp_path), ITEMS, workers))
  assert outcomes == dict(enumerate("ABCDEFGHIJ"))
  assert written(tmp_path) == {item: item.upper() for item in ITEMS}
  assert 1 <= len(list(tmp_path.glob("made-*"))) <= workers


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_cannot_be_made(workers):
  with pytest.raises(UserError, match=r"^codec must be whole; got half\.$"):
    list(run_pool(fail_to_make, ITEMS, workers))
  assert list(run_pool(fail_to_make, [], workers)) == []


def test_a_process_that_dies(tmp_path):
  with pytest.raises(UserError, match="one of 2 died, perhaps for lack of memory"):
    list(run_pool(functools.partial(Writer, tmp_path), ["a", "die", "b"], 2))
  assert multiprocessing.active_children() == []


def test_stopping_early_leaves_no_process(tmp_path):
  running = run_pool(functools.partial(Writer, tmp_path), ITEMS * 50, 2)
  next(running)
  running.close()
  assert multiprocessing.active_children() == []


class TestBeam:
  @pytest.fixture
  def run_beam(self):
    pytest.importorskip("apache_beam")
    from data_prep.tokens.beam_engine import run_beam

    return run_beam

  def test_direct_runner(self, tmp_path, run_beam):
    run_beam(functools.partial(Writer, tmp_path), ITEMS, "DirectRunner")
    assert written(tmp_path) == {item: item.upper() for item in ITEMS}

  def test_its_flags_are_passed_on(self, tmp_path, run_beam):
    options = ["--direct_num_workers=2", "--direct_running_mode=multi_threading"]
    run_beam(functools.partial(Writer, tmp_path), ITEMS, "DirectRunner", options)
    assert written(tmp_path) == {item: item.upper() for item in ITEMS}
    assert len(list(tmp_path.glob("made-*"))) == 2

  def test_mistakes_are_one_line(self, tmp_path, run_beam):
    worker = functools.partial(Writer, tmp_path)
    with pytest.raises(UserError, match="runner and its flags must be Beam's; got NoRunner"):
      run_beam(worker, ITEMS, "NoRunner")
    with pytest.raises(UserError, match=r"got --nonsense=3\. See --help"):
      run_beam(worker, ITEMS, "DirectRunner", ["--nonsense=3"])
    with pytest.raises(UserError, match=r"--direct_num_workers=x \(see above\)"):
      run_beam(worker, ITEMS, "DirectRunner", ["--direct_num_workers=x"])
    with pytest.raises(UserError, match=r"the pipeline must succeed; got .*codec must be whole"):
      run_beam(fail_to_make, ITEMS, "DirectRunner")
    assert written(tmp_path) == {}
