# SPDX-License-Identifier: Apache-2.0
"""The process that holds the model, and the looper's side of it.

A process of its own, so that nothing that the model does can make the page wait, and so that one
that dies takes nothing with it. It runs what `python -m stemgen_jax.sample` would run, by the same
flags, so that the command gives each take again.
"""

import asyncio
import contextlib
import io
import multiprocessing
import multiprocessing.context
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stemgen_jax.audio import alignment
from stemgen_jax.audio.files import write_audio
from stemgen_jax.errors import UserError
from stemgen_jax.looper.document import GUIDANCE, RATE_HZ
from stemgen_jax.looper.flags import Model, build_words
from stemgen_jax.looper.messages import (
  Advanced,
  Died,
  Failed,
  Made,
  Make,
  Ready,
  Report,
  Task,
  Warm,
  Warmed,
)  # fmt: skip
from stemgen_jax.looper.session import saving

if TYPE_CHECKING:
  from stemgen_jax.sampling.stemgen import StemGen

NICE = 5  # so that the browser's sound goes before it where cores are few


class Cancelled(Exception):
  """The job is wanted no more."""


class Worker:
  """The looper's side: starts the process, asks it, and tells what it says."""

  def __init__(self, folder: Path, model: Model):
    """`folder` is the session's; `model` says which weights and codec."""
    self.folder, self.model = folder, model
    self._context = multiprocessing.get_context("spawn")
    self._process: multiprocessing.context.SpawnProcess | None = None
    self._connection: Any = None
    self._cancelled: Any = None
    self._stopped = False

  @property
  def pid(self) -> int | None:
    """Of the process."""
    return self._process.pid if self._process else None

  def start(self, tell: Callable[[Report], None]) -> None:
    """Starts the process; `tell` hears its reports on the event loop that runs now."""
    loop = asyncio.get_running_loop()
    ours, theirs = self._context.Pipe()
    self._cancelled = self._context.Value("q", 0, lock=False)
    self._process = self._context.Process(
      target=work, args=(theirs, self._cancelled, self.folder, self.model), daemon=True
    )
    self._process.start()
    theirs.close()
    self._connection = ours
    threading.Thread(target=self._hear, args=(self._process, ours, loop, tell), daemon=True).start()

  def ask(self, task: Task) -> None:
    """Asks for a task; where the process is gone, that is heard by itself."""
    if self._connection is not None:
      with contextlib.suppress(OSError):
        self._connection.send(task)

  def cancel(self, job: int) -> None:
    """Lets a job end at its next window."""
    if self._cancelled is not None:
      self._cancelled.value = job

  def stop(self) -> None:
    """Ends the process."""
    self._stopped = True
    if self._process is not None:
      self._process.terminate()
      self._process.join(5)
      if self._process.is_alive():
        self._process.kill()

  def _hear(
    self,
    process: multiprocessing.context.SpawnProcess,
    connection: Any,
    loop: asyncio.AbstractEventLoop,
    tell: Callable[[Report], None],
  ) -> None:
    """Passes on what the process says until it ends; runs in a thread of its own."""

    def say(report: Report) -> None:
      with contextlib.suppress(RuntimeError):  # the loop is closed
        if not self._stopped:
          loop.call_soon_threadsafe(tell, report)

    failed = False
    with connection, contextlib.suppress(EOFError, OSError):
      while True:
        report = connection.recv()
        failed = failed or (isinstance(report, Failed) and not report.job)
        say(report)
    process.join()
    if not failed:
      say(Died(process.exitcode))


def work(connection: Any, cancelled: Any, folder: Path, model: Model) -> None:
  """Loads the model and does tasks until nobody asks any more: the process's whole life."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C is the looper's to handle
  if hasattr(os, "nice"):
    os.nice(NICE)
  os.chdir(folder)
  threading.Thread(target=alignment.load, daemon=True).start()
  try:
    loaded, ready = load(model)
  except (UserError, OSError, RuntimeError) as error:
    connection.send(Failed(0, " ".join(str(error).split())))
    return
  connection.send(ready)
  pace = None
  with contextlib.suppress(EOFError, OSError):
    while True:
      task = connection.recv()
      if isinstance(task, Warm):
        report = warm(loaded, ready, model, task.loop_samples, pace)
      else:
        report = make(loaded, task, connection, cancelled)
      if isinstance(report, Warmed | Made):
        pace = report.seconds / task.loop_samples
      connection.send(report)


def load(model: Model) -> "tuple[StemGen, Ready]":
  """Returns the model, and what it can do."""
  from stemgen_jax.sampling.stemgen import StemGen

  loaded = StemGen.from_checkpoint(model.checkpoint, model.codec)
  own, sources = loaded.config.sample, loaded.config.model.sources
  steps = choose_steps(own.steps, own.guidance_mode)
  guided = own.guidance_mode != "joint"
  preset = (
    f"{_list(steps)} steps where the model's own are {_list(own.steps)}: sooner heard,"
    " with fewer second thoughts about each note."
    if steps != own.steps
    else f"The model's own steps, {_list(steps)}: nothing is traded."
  )
  return loaded, Ready(
    tuple(sources.get("instrument", ())),
    _list(steps),
    float(own.guidance.get("context", GUIDANCE)) if guided else None,
    preset,
  )


def choose_steps(own: tuple[int, ...], guidance_mode: str) -> tuple[int, ...]:
  """Returns the page's steps for a model's own: all of them where a step is one pass, as distilled.

  Otherwise two fifths of them, rounded up.
  """
  return own if guidance_mode == "distilled" else tuple(-(-2 * n // 5) for n in own)


def _list(steps: tuple[int, ...]) -> str:
  return ",".join(map(str, steps))


def warm(
  loaded: "StemGen", ready: Ready, model: Model, loop_samples: int, pace: float | None = None
) -> Warmed | Failed:
  """Compiles what a loop of this length needs, and returns how long a take of it lasts then.

  Args:
    loaded: the model.
    ready: what it can do.
    model: which one it is.
    loop_samples: of the loop.
    pace: seconds that a take lasts for each of its samples, where that is known. None has it
      measured, by a second take. That which compiles has one step a level, which is the same
      program.
  """
  rng = np.random.default_rng(0)
  clicks = 0.01 * rng.standard_normal((2, loop_samples), np.float32)
  clicks[:, :: RATE_HZ // 2] = 0.5
  fewest = ",".join("1" for _ in ready.steps.split(","))
  seconds = 0.0
  with tempfile.TemporaryDirectory() as folder:
    write_audio(context := Path(folder) / "context.wav", clicks, RATE_HZ)
    instrument = ready.instruments[0] if ready.instruments else ""
    try:
      for steps in (fewest, ready.steps) if pace is None else (fewest,):
        own = Model(model.checkpoint, model.codec, steps, ready.guidance is not None)
        words = build_words(own, str(context), instrument, 0, ready.guidance or 0.0)
        began = time.monotonic()
        write_take(loaded, words, Path(folder), lambda text: None)
        seconds = time.monotonic() - began
    except UserError as error:
      return Failed(0, " ".join(str(error).split()))
  return Warmed(loop_samples, seconds if pace is None else pace * loop_samples)


def make(loaded: "StemGen", task: Make, connection: Any, cancelled: Any) -> Made | Failed:
  """Writes a take and its settings, and returns how it went."""
  began, total = time.monotonic(), 1

  def advance(text: str) -> None:
    nonlocal total
    if cancelled.value == task.job:
      raise Cancelled
    done = 0
    if "window" in text:  # "... window 1 of 2"
      done, total = (int(word) for word in text.split() if word.isdecimal())
    elif "decoding" in text:
      done = total
    connection.send(Advanced(task.job, done, total + 1))

  try:
    write_take(loaded, task.words, task.out, advance)
  except Cancelled:
    return Failed(task.job, "It was cancelled.")
  except UserError as error:
    return Failed(task.job, " ".join(str(error).split()))
  return Made(task.job, time.monotonic() - began)


def write_take(
  loaded: "StemGen", words: tuple[str, ...], out: Path, advance: Callable[[str], None]
) -> None:
  """Does what `python -m stemgen_jax.sample` does with these flags, with a model that is loaded."""
  from stemgen_jax import sample
  from stemgen_jax.audio.files import find_subtype
  from stemgen_jax.sampling.request_files import plan_jobs

  given = sample.list_given(sample.parse(words))
  (planned,) = plan_jobs(given, None, loaded.plan)
  (result,) = loaded.run([planned.job], advance=advance)
  stem = planned.read.get("--stem")
  with saving("The take"), contextlib.redirect_stderr(io.StringIO()):
    out.mkdir(parents=True, exist_ok=True)
    sample.write_result(result, out, planned.source, find_subtype(stem) if stem else "PCM_16")
