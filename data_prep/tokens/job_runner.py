# SPDX-License-Identifier: Apache-2.0
"""Runs the jobs of a dataset that are not done yet, and tells how far they are."""

import dataclasses
import functools
import importlib.util
import logging
import os
import time
from collections.abc import Callable, Sequence

from rich.progress import TextColumn, TimeElapsedColumn

from data_prep.tokens.engines import run_pool
from data_prep.tokens.jobs import Job, TrackWorker
from data_prep.tokens.tokenizer import Codec, TokenSettings
from stemgen_jax.data.clips import Metadata
from stemgen_jax.errors import UserError
from stemgen_jax.shell.progress import make_bars

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Engine:
  """Where tracks are tokenised: in processes here, or by a Beam runner."""

  workers: int = 1  # processes; 1 is this one
  batch_size: int = 1  # signals encoded at once
  runner: str | None = None  # of Beam
  options: tuple[str, ...] = ()  # its own flags


def run_jobs(
  jobs: Sequence[Job],
  make_codec: Callable[[], Codec],
  metadata: Metadata,
  settings: TokenSettings,
  engine: Engine,
) -> None:
  """Runs the jobs that are not done yet: on Beam, or here under a progress bar."""
  todo = [job for job in jobs if not job.is_done()]
  if len(todo) < len(jobs):
    _log.info("%d of %d tracks are done already", len(jobs) - len(todo), len(jobs))
  for job in todo:
    for path in (job.part, job.failure, job.note):
      path.unlink(missing_ok=True)
  threads = 1 if engine.workers > 1 or engine.runner else os.cpu_count() or 1  # that read
  make_worker = functools.partial(
    TrackWorker, make_codec, metadata, settings, engine.batch_size, threads
  )
  if engine.runner:
    if importlib.util.find_spec("apache_beam") is None:
      raise UserError("--runner must have Apache Beam; got none. Install stemgen_jax[beam].")
    from data_prep.tokens.beam_engine import run_beam

    run_beam(make_worker, todo, engine.runner, engine.options)
    return
  began_s, encoded_s, warned = time.monotonic(), 0.0, set()
  with make_bars(TextColumn("{task.fields[speed]}"), TimeElapsedColumn()) as bars:
    total = sum(len(job.track.stems) for job in todo)
    task = bars.add_task("tokenising stems", total=total, speed="")
    for index, outcome in run_pool(make_worker, todo, engine.workers):
      if outcome.reason:
        _log.warning("%s is left out: %s", todo[index].song, outcome.reason)
      for stem, why in outcome.left_out.items():
        _log.warning("%s of %s is left out: %s", stem, todo[index].song, why)
      for rate_hz, path in outcome.low_rates.items():
        if rate_hz not in warned:
          warned.add(rate_hz)
          _log.warning(
            "%s is at %d Hz, the codec at %d Hz: nothing above %d Hz can be learnt from such files",
            *(path, rate_hz, metadata.sample_rate_hz, rate_hz // 2),
          )
      encoded_s += outcome.encoded_s
      speed = f"{encoded_s / (time.monotonic() - began_s):.1f}x real time"
      bars.update(task, advance=len(todo[index].track.stems), speed=speed)
  if todo:
    took_s = time.monotonic() - began_s
    _log.info(
      "encoded %.0f s of audio (stems and mixes) in %.0f s: %.1f times real time",
      *(encoded_s, took_s, encoded_s / took_s),
    )
