# SPDX-License-Identifier: Apache-2.0
"""The looper as the page sees it: a session, its jobs, and what can be asked of both.

Everything that changes the session happens on the event loop, one change after the other; reading,
decoding, cutting and mixing happen in threads.
"""

import asyncio
import dataclasses
import threading
from pathlib import Path
from typing import Any

from stemgen_jax.categories import CATEGORIES
from stemgen_jax.errors import UserError
from stemgen_jax.looper import edits, song
from stemgen_jax.looper.document import (
  RATE_HZ,
  Lane,
  Take,
  describe_document,
  is_number,
)  # fmt: skip
from stemgen_jax.looper.edits import Conflict, NotFound, need_lane
from stemgen_jax.looper.events import Events
from stemgen_jax.looper.flags import Model, show_command
from stemgen_jax.looper.jobs import Job, Jobs
from stemgen_jax.looper.messages import Maker, Ready
from stemgen_jax.looper.session import Session
from stemgen_jax.looper.sounds import Sounds
from stemgen_jax.looper.writing import Writing

KINDS = ("generate", "another", "vary")


class Desk:
  """What the routes call."""

  def __init__(self, session: Session, maker: Maker, model: Model, recorded: bool):
    """`model` is the one that `maker` holds; `recorded` says that it holds none."""
    self.session, self.recorded = session, recorded
    self.sounds, self._changing = Sounds(session), asyncio.Lock()
    self.events = Events(self.describe)
    self.writing = Writing(
      session, self.sounds, model, recorded, self._changing, lambda: self.jobs.queue, self._note
    )
    self.jobs = Jobs(
      maker, self.events, self.writing.prepare, self._keep, self._likely_length,
      self.complain, self._meet,
    )  # fmt: skip
    self.instruments, self.preset = CATEGORIES, ""
    self._note(None)
    if session.lost:
      names = ", ".join(session.lost)
      self._note(f"Sounds are missing, and left out: {names}.wav of takes/.", is_error=True)
    self.revision = session.revision

  def start(self) -> None:
    """Starts the maker, and loads what finds tempos, so that the first sound need not wait."""
    self.jobs.start()
    threading.Thread(target=song.load, daemon=True).start()  # whose end nobody waits for

  def describe(self) -> dict[str, Any]:
    """Returns the whole state, of JSON types."""
    return {
      "revision": self.revision,
      "session": self.session.folder.name,
      **describe_document(self.session.document, self.session.takes, self.writing.next_seed),
      "model": {
        "status": self.jobs.status,
        "message": self.jobs.message,
        "instruments": list(self.instruments),
        "preset": self.preset,
        "seconds_last": self.jobs.seconds_last,
      },
      "queue": [job.describe() for job in self.jobs.queue],
      "notice": self.notice,
      "notice_is_error": self.notice_is_error,
      "can_add": len(self.session.document.lanes) < edits.MOST_LANES,
      "can_undo": self.session.can_undo,
      "can_redo": self.session.can_redo,
    }

  def complain(self, sentence: str) -> None:
    """Shows on the page what went wrong."""
    self._note(sentence, is_error=True)
    self.tell()

  def _note(self, sentence: str | None, is_error: bool = False) -> None:
    self.notice, self.notice_is_error = sentence, is_error

  def tell(self) -> None:
    """Lets every page have the state, under a new number."""
    self.revision = max(self.revision + 1, self.session.revision)
    self.events.tell_state()

  async def edit(self, asked: dict[str, Any]) -> dict[str, Any]:
    """Makes a change that the page asks for; returns the new state.

    Raises:
      UserError: if it cannot be.
    """
    async with self._changing:
      before = self.session.document
      lane_id = self.session.name("lane") if asked.get("op") == "add_lane" else ""
      after, takes = edits.edit(before, asked, self.instruments, lane_id), []
      if after.song != before.song and not after.is_empty:
        after, takes = await asyncio.to_thread(self.sounds.recut, before, after)
      self.session.commit(after, *takes)
    for lane in {lane.id for lane in before.lanes} - {lane.id for lane in after.lanes}:
      self.jobs.drop(lane)
    return self._changed()

  async def undo(self) -> dict[str, Any]:
    """Takes the last step back; returns the new state."""
    async with self._changing:
      if not self.session.undo():
        raise Conflict("There is nothing to undo.")
    return self._changed()

  async def redo(self) -> dict[str, Any]:
    """Makes the step again that was taken back last; returns the new state."""
    async with self._changing:
      if not self.session.redo():
        raise Conflict("There is nothing to redo.")
    return self._changed()

  def _changed(self, notice: str | None = None) -> dict[str, Any]:
    self._note(notice)
    self.tell()
    self.jobs.advance()
    return self.describe()

  async def upload(
    self, source: Path, lane: str, name: str, latency_s: float | None
  ) -> dict[str, Any]:
    """Makes a sound that was sent a take; returns the new state.

    Args:
      source: where it lies, in the session's folder of sources.
      lane: id of its lane, or "new".
      name: what its sender calls it.
      latency_s: of a recording, by how much it comes too late; None for a file.

    Raises:
      UserError: if it is no sound, or there is no such lane.
    """
    async with self._changing:
      document = self.session.document
      if lane == "new":
        edits.need_room(document)
      elif (found_lane := need_lane(document, lane)).lock:
        raise Conflict(f"Lane '{found_lane.name}' is locked. Unlock it to put a sound in it.")
      seconds = await asyncio.to_thread(song.check, source, name)
      found = document.song
      first = document.is_empty and (latency_s is None or not found.loop_samples)
      if first:
        found, heard = await asyncio.to_thread(song.find_song, source, name, seconds, found)
        start_s = found.offset_s + (latency_s or 0.0)
        notice = song.tell(found, seconds, heard)
      else:
        start_s, notice = song.place(found, name, seconds, latency_s)
      take = Take(
        self.session.name("t"),
        "",
        "file" if latency_s is None else "recording",
        source=source.name,
        start_s=start_s,
      )
      await asyncio.to_thread(self.sounds.cut, take, name, found)
      document = dataclasses.replace(document, song=found)
      if lane == "new":
        made = Lane(self.session.name("lane"), song.title(name)[: edits.MOST_NAME], "other")
        lanes = (made, *document.lanes) if first else (*document.lanes, made)
        document = dataclasses.replace(document, lanes=lanes)  # on top: what all others listen to
        lane = made.id
      document, take = edits.add_take(document, lane, take, self.session.takes)
      self.session.commit(document, take)
    return self._changed(notice)

  async def generate(self, asked: dict[str, Any]) -> dict[str, str]:
    """Puts a take that is asked for into the queue; returns the name of its job.

    Raises:
      UserError: if it cannot be.
    """
    fields = {"lane", "kind", "amount", "keep"}
    if unknown := sorted(set(asked) - fields):
      raise UserError(f"Fields must be among {sorted(fields)}; got {str(unknown)[:80]}.")
    if self.jobs.status == "failed":
      raise edits.Unavailable(self.jobs.message)
    async with self._changing:
      document = self.session.document
      lane = need_lane(document, asked.get("lane"))
      if lane.lock:
        raise Conflict(f"Lane '{lane.name}' is locked. Unlock it to have a take written.")
      kind = asked.get("kind", "generate")
      if kind not in KINDS:
        raise UserError(f"kind must be one of {', '.join(KINDS)}; got {str(kind)[:40]!r}.")
      if not document.song.loop_samples:  # from silence
        document = dataclasses.replace(document, song=document.song.begin())
        self.session.commit(document)
      keep = edits.read_keep(asked.get("keep", []), document.song.loop_samples / RATE_HZ)
      amount = asked.get("amount", 0.3)
      if not is_number(amount) or not 0 < amount <= 1:
        raise UserError(f"amount must be over 0 and at most 1; got {str(amount)[:40]!r}.")
      if (keep or kind == "vary") and lane.active is None:
        raise Conflict(f"Lane '{lane.name}' has no take yet. Generate one first.")
      job = self.jobs.add(
        lane=lane.id,
        kind=kind,
        seed=self.writing.next_seed(lane),
        stem=lane.active if keep or kind == "vary" else None,
        keep=keep,
        vary=float(amount) if kind == "vary" else None,
      )
    self._note(None)
    self.tell()
    return {"job": job.name}

  async def cancel(self, asked: dict[str, Any]) -> dict[str, Any]:
    """Takes a job out of the queue; returns the new state."""
    if not self.jobs.cancel(str(asked.get("job"))):
      raise NotFound("There is no such job; it may have been done already.")
    self.tell()
    return self.describe()

  async def _keep(self, job: Job, seconds: float) -> None:
    await self.writing.keep(job, seconds)
    self.tell()

  def _likely_length(self) -> int:
    song_now = self.session.document.song
    return song_now.loop_samples or song_now.begin().loop_samples

  def _meet(self, ready: Ready) -> None:
    """Takes in what the model can do."""
    self.instruments, self.preset = ready.instruments, ready.preset
    self.writing.model = dataclasses.replace(
      self.writing.model, steps=ready.steps, guided=ready.guidance is not None
    )
    if self.recorded:
      self.jobs.status, self.jobs.message = "recorded", ready.preset

  def need_take(self, name: str) -> Take:
    """Returns a take by its id; raises NotFound if there is none."""
    take = self.session.takes.get(name)
    if take is None:
      raise NotFound("There is no such take.")
    return take

  def show_command(self, take: Take) -> str | None:
    """Returns the command line that gives a take again; None if none does."""
    return show_command(take.words, f"again/{take.id}") if take.words else None
