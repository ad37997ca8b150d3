# SPDX-License-Identifier: Apache-2.0
"""A session is a folder: every sound in it, what was done with them, and what can be undone.

`session.json` is written whole at every change, before the change is told to anybody. Sounds never
change once they are there, so an undo needs no sound to be written.
"""

import contextlib
import dataclasses
import datetime
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from stemgen_jax.errors import UserError
from stemgen_jax.looper.document import Document, Lane, Song, Take, first_document
from stemgen_jax.shell.folders import make_folder, write_text

FILE, FORMAT = "session.json", 1
TAKES, CONTEXTS, SOURCES, WORK = "takes", "contexts", "sources", "work"
MOST_STEPS = 200  # that can be undone
_ID = re.compile(r"[a-z]{1,8}[0-9]{1,9}")
_SOURCE = re.compile(r"[a-z]{1,8}[0-9]{1,9}\.[a-z0-9]{1,5}")


class NotSaved(UserError):
  """The disk did not take a sound."""


@contextlib.contextmanager
def saving(what: str) -> Iterator[None]:
  """Raises NotSaved, which names `what`, where a sound cannot be written."""
  try:
    yield
  except (UserError, OSError) as error:
    reason = getattr(error, "strerror", None) or "the disk is full, or may not be written"
    raise NotSaved(
      f"{what} cannot be written: {reason}. Nothing was changed; free some room and try again."
    ) from error


class Session:
  """The documents of a folder, one of them current, and all its takes."""

  def __init__(self, folder: Path, first: Document | None = None):
    """Opens a folder, or begins a session there, with `first` or with empty lanes.

    Raises:
      UserError: if it cannot be written, holds something else, or another process has it open.
    """
    make_folder(folder, "--session")
    self.folder = folder.resolve()
    self._lock = _claim(self.folder)
    self.revision, self.number = 0, 0
    self._steps: list[Document] = [first or first_document()]
    self._at = 0
    self.takes: dict[str, Take] = {}
    self.lost: list[str] = []  # takes whose sounds are gone
    self.number = len(self.document.lanes)
    if (self.folder / FILE).is_file():
      self._read()
    elif any(path.name != LOCK for path in self.folder.iterdir()):
      raise UserError(
        f"--session must be a session's folder or an empty one; got {folder}, which holds other"
        " files. Choose another."
      )
    shutil.rmtree(self.folder / WORK, ignore_errors=True)  # of jobs that were cut short
    for name in (TAKES, CONTEXTS, SOURCES, WORK):
      (self.folder / name).mkdir(exist_ok=True)
    self._write(self._steps, self._at, self.takes)

  @property
  def document(self) -> Document:
    """What the session is now."""
    return self._steps[self._at]

  @property
  def can_undo(self) -> bool:
    """Whether there is a step to take back."""
    return self._at > 0

  @property
  def can_redo(self) -> bool:
    """Whether a step was taken back."""
    return self._at + 1 < len(self._steps)

  def name(self, kind: str) -> str:
    """Returns an id that nothing in the session has had."""
    self.number += 1
    return f"{kind}{self.number}"

  def commit(self, document: Document, *takes: Take) -> None:
    """Makes a document current, with the takes that are new in it; what was undone is forgotten.

    Raises:
      OSError: if it cannot be saved; then nothing is changed, and no sound of `takes` stays.
    """
    if document == self.document and not takes:
      return
    steps = [*self._steps[: self._at + 1], document][-MOST_STEPS - 1 :]
    try:
      self._write(steps, len(steps) - 1, {**self.takes, **{take.id: take for take in takes}})
    except OSError:
      self.remove(takes)
      raise

  def undo(self) -> bool:
    """Goes a step back; False if there is none. Raises as `commit`."""
    if self.can_undo:
      self._write(self._steps, self._at - 1, self.takes)
      return True
    return False

  def redo(self) -> bool:
    """Goes a step forth again; False if there is none. Raises as `commit`."""
    if self.can_redo:
      self._write(self._steps, self._at + 1, self.takes)
      return True
    return False

  def path_of(self, take: str) -> Path:
    """Returns where the sound of a take lies."""
    return self.folder / TAKES / f"{take}.wav"

  def remove(self, takes: Iterable[Take]) -> None:
    """Removes the sounds of takes that the session was to have, and does not."""
    for take in takes:
      for path in (self.path_of(take.id), self.path_of(take.id).with_suffix(".json")):
        path.unlink(missing_ok=True)

  def close(self) -> None:
    """Lets another process open the folder."""
    with contextlib.suppress(OSError):
      os.close(self._lock)

  def _write(self, steps: list[Document], at: int, takes: dict[str, Take]) -> None:
    known = {name for step in steps for lane in step.lanes for name in lane.takes}
    parents = {take.parent for take in takes.values() if take.id in known and take.parent}
    kept = {name: take for name, take in takes.items() if name in known | parents}
    record = {
      "format": FORMAT,
      "revision": self.revision + 1,
      "number": self.number,
      "position": at,
      "takes": [dataclasses.asdict(take) for take in kept.values()],
      "documents": [dataclasses.asdict(step) for step in steps],
    }
    write_text(self.folder / FILE, json.dumps(record, allow_nan=False) + "\n")
    self._steps, self._at, self.takes = steps, at, kept
    self.revision += 1

  def _read(self) -> None:
    path = self.folder / FILE
    try:
      record = json.loads(path.read_text(encoding="utf-8"))
      if record["format"] != FORMAT:
        raise ValueError(f"format {record['format']}, not {FORMAT}")
      takes = [_build(Take, entry) for entry in record["takes"]]
      steps = [
        Document(_build(Song, entry["song"]), tuple(_build(Lane, lane) for lane in entry["lanes"]))
        for entry in record["documents"]
      ]
      self.revision, self.number = int(record["revision"]), int(record["number"])
      self._at = int(record["position"])
      if not 0 <= self._at < len(steps):
        raise ValueError(f"position {self._at} of {len(steps)}")
      there = {take.id for take in takes if self.path_of(take.id).is_file()}
      self.lost = sorted({*_names(takes, steps)} - there)
      self.takes = {take.id: _part(take, there) for take in takes if take.id in there}
      self._steps = [_keep(step, there) for step in steps]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
      raise UserError(
        f"{path} must be a session that the looper saved; got {type(error).__name__}: {error}."
        " Its sounds lie beside it; begin a new session to use them."
      ) from error


def new_folder(root: Path = Path("looper")) -> Path:
  """Returns a folder for a new session, which it makes: today's date and the first free number."""
  make_folder(root, "--session")
  today = datetime.date.today().isoformat()
  for number in range(1, 10_000):
    folder = root / f"{today}-loop-{number}"
    try:
      folder.mkdir()
    except FileExistsError:
      continue
    return folder
  raise UserError(f"{root} must have room for a session of today; got none. Give --session.")


LOCK = ".lock"


def _claim(folder: Path) -> int:
  """Returns an open lock of a folder, which the system lets go when this process ends."""
  lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
  try:
    import fcntl
  except ImportError:  # Windows
    return lock
  try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError as error:
    os.close(lock)
    raise UserError(
      f"--session must be open in one looper at a time; got {folder}, which another has open."
      " Use its page, or end it first."
    ) from error
  return lock


def _build(kind: type, entry: dict[str, Any]) -> Any:
  """Returns a dataclass of what JSON holds of it, whose names are no paths."""
  values: dict[str, Any] = {
    name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()
  }
  for name, form in (("id", _ID), ("source", _SOURCE)):
    if values.get(name) is not None and not form.fullmatch(values[name]):
      raise ValueError(f"{name} {values[name]!r}")
  return kind(**values)


def _part(take: Take, there: set[str]) -> Take:
  """Returns a take without a parent whose sound is gone."""
  return take if take.parent in there else dataclasses.replace(take, parent=None)


def _keep(step: Document, there: set[str]) -> Document:
  """Returns a document with those takes alone whose sounds are there."""
  for lane in step.lanes:
    takes = tuple(name for name in lane.takes if name in there)
    active = lane.active if lane.active in there else takes[-1] if takes else None
    step = step.put(dataclasses.replace(lane, takes=takes, active=active))
  return step


def _names(takes: list[Take], steps: list[Document]) -> Iterator[str]:
  yield from (take.id for take in takes)
  yield from (name for step in steps for lane in step.lanes for name in lane.takes)
  yield from (lane.active for step in steps for lane in step.lanes if lane.active)
