# SPDX-License-Identifier: Apache-2.0
"""The queue of takes to be written: one is made at a time, and any can be cancelled at once.

A job that runs is gone from the queue as soon as it is cancelled; what its maker still brings of it
is thrown away. A maker whose process dies is started again.
"""

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import soundfile

from stemgen_jax.errors import UserError
from stemgen_jax.looper.events import Events
from stemgen_jax.looper.messages import (
  Advanced,
  Died,
  Failed,
  Made,
  Make,
  Maker,
  Ready,
  Report,
  Warm,
  Warmed,
)  # fmt: skip

FAULTS = (UserError, OSError, soundfile.LibsndfileError)  # that are said on the page
MOST_JOBS = 32
MOST_DEATHS = 3  # in a row, without anything made
TICK_S = 0.25  # between two words on progress


@dataclasses.dataclass
class Job:
  """A take that is asked for.

  Attributes:
    number: of the job.
    lane: id of its lane.
    kind: generate, another or vary.
    seed: of its chance.
    stem: id of the take of which something stays.
    keep: stretches of it that stay, in seconds.
    vary: share of it to write anew.
    words: its flags, once it runs.
    loop_samples: its length, once it runs.
    status: waiting or running.
    progress: from 0 to 1.
    seconds_left: None where nobody knows.
    cancelled: nobody wants it any more.
  """

  number: int
  lane: str
  kind: str
  seed: int
  stem: str | None = None
  keep: tuple[tuple[float, float], ...] = ()
  vary: float | None = None
  words: tuple[str, ...] = ()
  loop_samples: int = 0
  status: str = "waiting"
  progress: float = 0.0
  seconds_left: float | None = None
  cancelled: bool = False

  @property
  def name(self) -> str:
    """What the page calls it."""
    return f"job{self.number}"

  def describe(self) -> dict[str, Any]:
    """Returns what the page is told of it."""
    names = ("lane", "kind", "status", "progress", "seconds_left")
    return {"job": self.name, **{name: getattr(self, name) for name in names}}


class Jobs:
  """The queue, and how the model is."""

  def __init__(
    self,
    maker: Maker,
    events: Events,
    prepare: Callable[[Job], Awaitable[Make]],
    keep: Callable[[Job, float], Awaitable[None]],
    length: Callable[[], int],
    complain: Callable[[str], None],
    met: Callable[[Ready], None],
  ):
    """Begins with nothing to do.

    Args:
      maker: who makes takes.
      events: where progress is told.
      prepare: gives the task that a job comes to; a UserError if it cannot be.
      keep: takes in what was made for a job in so many seconds.
      length: of the loop now, in samples, or of the one that is likely.
      complain: shows on the page what went wrong.
      met: hears what the model can do.
    """
    self.maker, self.events = maker, events
    self._prepare, self._keep, self._length, self._complain, self._met = (
      prepare,
      keep,
      length,
      complain,
      met,
    )
    self.queue: list[Job] = []
    self.status, self.message = "loading", "The model is being loaded."
    self.seconds_last: float | None = None
    self.refusal: str | None = None
    self.refused: Callable[[], None] = lambda: None  # called where the model cannot be loaded
    self._number, self._deaths = 0, 0
    self._running: Job | None = None
    self._warming = False
    self._expected: dict[int, float] = {}  # seconds of a take, by length of loop
    self._tasks: set[asyncio.Task] = set()

  def start(self) -> None:
    """Starts the maker."""
    self.maker.start(self.hear)

  def add(self, **asked: Any) -> Job:
    """Puts a job at the end of the queue and returns it.

    Raises:
      UserError: if the queue is full.
    """
    if len(self.queue) >= MOST_JOBS:
      raise UserError(f"At most {MOST_JOBS} takes can wait. Cancel one, or let them be written.")
    self._number += 1
    job = Job(self._number, **asked)
    self.queue.append(job)
    self.advance()
    return job

  def cancel(self, name: str) -> bool:
    """Takes a job out of the queue at once; False if there is none of that name."""
    for job in self.queue:
      if job.name == name:
        job.cancelled = True
        self.queue.remove(job)
        if job is self._running:
          self.maker.cancel(job.number)
        return True
    return False

  def drop(self, lane: str) -> None:
    """Cancels all jobs of a lane."""
    for job in [job for job in self.queue if job.lane == lane]:
      self.cancel(job.name)

  def advance(self) -> None:
    """Begins the next job, or makes ready for the loop, if nothing else is being done."""
    if self.status in ("loading", "failed") or self._running or self._warming:
      return
    if self.queue:
      self._running = self.queue[0]
      self._running.status = "running"
      self._do(self._run(self._running))
    elif (length := self._length()) not in self._expected:
      self._warming = True
      if self.status != "recorded":
        self.status = "compiling"
        self.message = "The model is being compiled for this length of loop, once."
      self.maker.ask(Warm(length))

  def hear(self, report: Report) -> None:
    """Takes in what the maker says."""
    if isinstance(report, Ready):
      self.status, self.message = "ready", ""
      self._met(report)
    elif isinstance(report, Warmed):
      self._deaths, self._warming = 0, False
      self._expected[report.loop_samples] = report.seconds
      self.status = "ready" if self.status == "compiling" else self.status
      self.message = "" if self.status == "ready" else self.message
    elif isinstance(report, Advanced):
      if self._running and self._running.number == report.job:
        self._running.progress = max(self._running.progress, report.done / report.total)
      return
    elif isinstance(report, Made):
      self._end(report)
      return
    elif isinstance(report, Failed):
      self._fail(report)
    elif isinstance(report, Died):
      self._revive(report)
    self.events.tell_state()
    self.advance()

  async def stop(self) -> None:
    """Ends the maker and all that runs."""
    for task in list(self._tasks):
      task.cancel()
    self.maker.stop()

  def _do(self, work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.get_running_loop().create_task(work)
    self._tasks.add(task)
    task.add_done_callback(self._tasks.discard)

  async def _run(self, job: Job) -> None:
    began = time.monotonic()
    try:
      task = await self._prepare(job)
    except FAULTS as error:
      self._complain(describe_error(error))
      self._leave(job)
      return
    except BaseException:  # a fault of ours: the queue goes on
      self._leave(job)
      raise
    if job.cancelled:
      self._leave(job)
      return
    self.maker.ask(task)
    self.events.tell_state()
    while self._running is job and not job.cancelled:
      spent, expected = time.monotonic() - began, self._expected.get(task.loop_samples)
      if expected:
        job.progress = max(job.progress, min(0.95, spent / expected))
        job.seconds_left = expected - spent if spent < expected else None
      self.events.tell_progress(job.name, job.progress, job.seconds_left)
      await asyncio.sleep(TICK_S)

  def _end(self, report: Made) -> None:
    job = self._running
    if job is None or job.number != report.job:
      return
    self._deaths = 0
    self._expected[job.loop_samples] = self.seconds_last = report.seconds
    self._do(self._take_in(job, report.seconds))

  async def _take_in(self, job: Job, seconds: float) -> None:
    try:
      if not job.cancelled:
        await self._keep(job, seconds)
    except FAULTS as error:
      self._complain(describe_error(error))
    finally:
      self._leave(job)

  def _leave(self, job: Job) -> None:
    """Lets a job go, and begins the next."""
    if job in self.queue:
      self.queue.remove(job)
    if self._running is job:
      self._running = None
    self.events.tell_state()
    self.advance()

  def _fail(self, report: Failed) -> None:
    if report.job:
      job = self._running
      if job is not None and job.number == report.job:
        if not job.cancelled:
          self._complain(report.sentence)
        self._leave(job)
      return
    if self.status == "loading" and not self._deaths:
      self.refusal = report.sentence
      self.refused()
    self.status, self.message = "failed", report.sentence
    self._running, self._warming = None, False
    self.queue.clear()

  def _revive(self, report: Died) -> None:
    lost, self._running, self._warming = self._running, None, False
    self._deaths += 1
    self._expected.clear()
    if lost in self.queue:
      self.queue.remove(lost)
    how = "" if report.code is None else f" (exit code {report.code})"
    if self._deaths >= MOST_DEATHS:
      sentence = f"The model's process ended {MOST_DEATHS} times in a row{how}; restart the looper."
      self.status, self.message = "failed", sentence
      self.queue.clear()
      return
    self._complain(
      f"The model's process ended by itself{how} and is being started again."
      + (" Ask for the take again." if lost and not lost.cancelled else "")
    )
    self.status, self.message = "loading", "The model is being loaded again."
    self.maker.start(self.hear)


def describe_error(error: Exception) -> str:
  """Returns one of FAULTS as a sentence for the page."""
  if isinstance(error, UserError):
    return str(error)
  reason = getattr(error, "strerror", None) or str(error).rstrip(".")
  return f"That cannot be saved: {reason}. Nothing was changed; free some room and try again."
