# SPDX-License-Identifier: Apache-2.0
"""The queue by itself: who goes first, what is thrown away, and a maker that fails or dies."""

import asyncio
from pathlib import Path

import pytest

from stemgen_jax.errors import UserError
from stemgen_jax.looper import jobs as module
from stemgen_jax.looper.events import Events
from stemgen_jax.looper.jobs import Jobs
from stemgen_jax.looper.messages import Advanced, Died, Failed, Made, Make, Ready, Warm, Warmed

READY = Ready(("bass",), "", 3.0, "")


class Maker:
  """Remembers what it was asked."""

  def __init__(self):
    self.asked, self.cancelled, self.starts = [], [], 0

  def start(self, tell):
    self.starts += 1

  def ask(self, task):
    self.asked.append(task)

  def cancel(self, job):
    self.cancelled.append(job)

  def stop(self):
    pass


class Table:
  """A queue over a maker that only the test answers for."""

  def __init__(self):
    self.maker, self.said, self.kept, self.length = Maker(), [], [], 100
    self.jobs = Jobs(
      self.maker, Events(dict), self.prepare, self.keep, lambda: self.length, self.said.append,
      lambda ready: None,
    )  # fmt: skip

  async def prepare(self, job):
    if job.lane == "broken":
      raise UserError("It cannot be.")
    job.loop_samples = self.length
    return Make(job.number, ("--seed", "0"), Path("out"), self.length)

  async def keep(self, job, seconds):
    if job.lane == "full":
      raise OSError(28, "No space left on device")
    self.kept.append((job.lane, seconds))

  def add(self, lane):
    return self.jobs.add(lane=lane, kind="generate", seed=0)

  async def hear(self, report):
    self.jobs.hear(report)
    await settle()


async def settle():
  for _ in range(5):
    await asyncio.sleep(0)


def play(scene):
  """Runs a scene with a table, and ends what is left of it."""

  async def run():
    table = Table()
    table.jobs.start()
    await scene(table)
    await table.jobs.stop()

  asyncio.run(run())


def test_the_loop_is_made_ready_once_and_jobs_wait_for_it():
  async def scene(table):
    await table.hear(READY)
    assert table.maker.asked == [Warm(100)]
    assert table.jobs.status == "compiling"
    table.add("a")
    table.add("b")
    await settle()
    assert len(table.maker.asked) == 1
    await table.hear(Warmed(100, 1.5))
    assert table.jobs.status == "ready"
    assert [task.job for task in table.maker.asked[1:]] == [1]
    await table.hear(Made(1, 2.0))
    await table.hear(Made(2, 3.0))
    assert table.kept == [("a", 2.0), ("b", 3.0)]
    assert table.jobs.queue == []
    assert len(table.maker.asked) == 3  # and is not made ready again
    table.length = 200
    table.jobs.advance()
    assert table.maker.asked[-1] == Warm(200)

  play(scene)


def test_a_cancelled_job_is_gone_and_what_comes_of_it_is_thrown_away():
  async def scene(table):
    await table.hear(READY)
    await table.hear(Warmed(100, 1.0))
    running, waiting = table.add("a"), table.add("b")
    await settle()
    assert table.jobs.cancel(running.name)
    assert not table.jobs.cancel(running.name)
    assert table.jobs.queue == [waiting]
    assert table.maker.cancelled == [1]
    await table.hear(Made(1, 2.0))
    assert table.kept == []
    assert table.maker.asked[-1].job == 2
    await table.hear(Advanced(2, 1, 2))
    assert waiting.progress == 0.5
    table.jobs.drop("b")
    await table.hear(Failed(2, "It was cancelled."))
    assert table.said == []
    assert table.jobs.queue == []

  play(scene)


def test_what_fails_is_said_and_the_next_goes_on():
  async def scene(table):
    await table.hear(READY)
    await table.hear(Warmed(100, 1.0))
    for lane in ("broken", "full", "a", "b"):
      table.add(lane)
    await settle()
    await table.hear(Made(2, 1.0))
    await table.hear(Failed(3, "No such instrument."))
    await table.hear(Made(4, 1.0))
    assert [lane for lane, _ in table.kept] == ["b"]
    assert table.said[0] == "It cannot be."
    assert "No space left" in table.said[1]
    assert table.said[2] == "No such instrument."

  play(scene)


def test_a_maker_that_dies_is_started_again_but_not_for_ever():
  async def scene(table):
    await table.hear(READY)
    await table.hear(Warmed(100, 1.0))
    table.add("a")
    table.add("b")
    await settle()
    await table.hear(Died(-9))
    assert "exit code -9" in table.said[0]
    assert "Ask for the take again" in table.said[0]
    assert [job.lane for job in table.jobs.queue] == ["b"]
    await table.hear(READY)
    await settle()
    await table.hear(Died(-9))
    await table.hear(Died(-9))
    assert table.maker.starts == 3
    assert table.jobs.status == "failed"
    assert table.jobs.queue == []

  play(scene)


def test_a_model_that_cannot_be_loaded_ends_the_looper():
  async def scene(table):
    ended = []
    table.jobs.refused = lambda: ended.append(True)
    await table.hear(Failed(0, "There is no such checkpoint."))
    assert table.jobs.refusal == "There is no such checkpoint."
    assert ended == [True]

  play(scene)


def test_the_queue_is_bounded(monkeypatch):
  monkeypatch.setattr(module, "MOST_JOBS", 2)

  async def scene(table):
    table.add("a")
    table.add("b")
    with pytest.raises(UserError, match="At most 2"):
      table.add("c")

  play(scene)
