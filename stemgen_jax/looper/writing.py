# SPDX-License-Identifier: Apache-2.0
"""From a job to a take: what the model is asked for, and what becomes of what it makes."""

import asyncio
import dataclasses
import itertools
from collections.abc import Callable

from stemgen_jax.looper.document import RATE_HZ, Lane, Take
from stemgen_jax.looper.edits import add_take, need_lane
from stemgen_jax.looper.flags import Model, build_words
from stemgen_jax.looper.jobs import Job
from stemgen_jax.looper.messages import Make
from stemgen_jax.looper.session import TAKES, WORK, Session
from stemgen_jax.looper.sounds import Sounds


class Writing:
  """Prepares jobs and takes in what was made for them."""

  def __init__(
    self,
    session: Session,
    sounds: Sounds,
    model: Model,
    recorded: bool,
    changing: asyncio.Lock,
    queue: Callable[[], list[Job]],
    note: Callable[[str], None],
  ):
    """Begins with nothing to do.

    Args:
      session: whose takes they are.
      sounds: of the session.
      model: which model, with which steps.
      recorded: whether takes are recorded ones, which listen to nothing.
      changing: is held while the session is changed.
      queue: gives the jobs that wait or run.
      note: takes a sentence that the page shows with the next state.
    """
    self.session, self.sounds, self.model, self.recorded = session, sounds, model, recorded
    self._changing, self._queue, self._note = changing, queue, note

  def next_seed(self, lane: Lane) -> int:
    """Returns the seed of a take that is asked for now: the lane's own, unless a job has it."""
    waiting = {job.seed for job in self._queue() if job.lane == lane.id}
    return self._free_seed(lane) if lane.seed in waiting else lane.seed

  def _free_seed(self, lane: Lane) -> int:
    """Returns the first seed from the lane's own on that none of its takes or jobs has."""
    used = {self.session.takes[name].seed for name in lane.takes}
    used |= {job.seed for job in self._queue() if job.lane == lane.id}
    return next(n for n in itertools.count(lane.seed) if n % 2**32 not in used) % 2**32

  async def prepare(self, job: Job) -> Make:
    """Returns the task that a job comes to now, and writes the context that it hears.

    Raises:
      UserError: if its lane is gone, or the context cannot be written.
    """
    document = self.session.document
    lane = need_lane(document, job.lane)
    job.loop_samples = document.song.loop_samples
    if job.stem not in (None, *lane.takes):  # the loop was changed since, and its takes were cut
      loop_s = job.loop_samples / RATE_HZ
      job.stem = lane.active
      job.keep = tuple((a, min(b, loop_s)) for a, b in job.keep if a < loop_s)
    context = await asyncio.to_thread(
      self.sounds.write_context, document.list_sounding(but=lane.id), job.loop_samples
    )
    if self._is_known(job, lane, context):
      job.seed = self._free_seed(lane)
      self._note(f"'{lane.name}' has this very take already; seed {job.seed} was taken instead.")
    job.words = self._list_words(job, lane, context)
    return Make(job.number, job.words, self.session.folder / WORK / job.name, job.loop_samples)

  def _is_known(self, job: Job, lane: Lane, context: str) -> bool:
    """Whether a lane has the very take that a job would give."""
    takes = [self.session.takes[name] for name in lane.takes]
    if self.recorded:
      return any(take.seed == job.seed for take in takes)
    words = self._list_words(job, lane, context)
    return any(take.words == words for take in takes)

  def _list_words(self, job: Job, lane: Lane, context: str) -> tuple[str, ...]:
    stem = f"{TAKES}/{job.stem}.wav" if job.stem else None
    return build_words(
      self.model, context, lane.instrument, job.seed, lane.guidance, stem, job.keep, job.vary
    )

  async def keep(self, job: Job, seconds: float) -> None:
    """Takes in what was made for a job; it is cut where the loop was changed meanwhile."""
    async with self._changing:
      lane = self.session.document.find(job.lane)
      if job.cancelled or lane is None:
        return
      name, work = self.session.name("t"), self.session.folder / WORK / job.name
      await asyncio.to_thread(self.sounds.take_in, work, name)
      origin = "varied" if job.vary is not None else "kept" if job.keep else "generated"
      words = None if self.recorded else job.words
      take = Take(name, "", origin, job.seed, round(seconds, 3), words)
      made = [take]
      song = self.session.document.song
      if song.loop_samples != job.loop_samples:
        take = await asyncio.to_thread(self.sounds.recut_take, take, song, 0.0)
        made.append(take)
        self._note(
          f"The loop was changed while '{lane.name}' was written; the take was fitted to it."
        )
      lane = dataclasses.replace(lane, seed=self._free_seed(lane))
      document = self.session.document.put(lane)
      document, take = add_take(document, lane.id, take, self.session.takes)
      self.session.commit(document, *made[:-1], take)
