# SPDX-License-Identifier: Apache-2.0
"""What the looper and the one who writes its takes say to each other, between processes too."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable


@dataclasses.dataclass(frozen=True)
class Warm:
  """Asks to make ready for loops of so many samples."""

  loop_samples: int


@dataclasses.dataclass(frozen=True)
class Make:
  """Asks for a take.

  Attributes:
    job: its number.
    words: flags of `python -m stemgen_jax.sample`, with paths relative to the session.
    out: a folder of the session for take_00.wav and settings.json.
    loop_samples: how long the take is to be.
  """

  job: int
  words: tuple[str, ...]
  out: Path
  loop_samples: int


@dataclasses.dataclass(frozen=True)
class Ready:
  """The model is there.

  Attributes:
    instruments: those it can play.
    steps: for its flag --steps; "" to leave it out.
    guidance: of the context, its own; None where it takes none.
    preset: what the settings of the page trade, in one sentence.
  """

  instruments: tuple[str, ...]
  steps: str
  guidance: float | None
  preset: str


@dataclasses.dataclass(frozen=True)
class Warmed:
  """It is ready for loops of so many samples; a take of one now lasts about so long."""

  loop_samples: int
  seconds: float


@dataclasses.dataclass(frozen=True)
class Advanced:
  """So many parts of a job are done."""

  job: int
  done: int
  total: int


@dataclasses.dataclass(frozen=True)
class Made:
  """A job is done, and its files are written."""

  job: int
  seconds: float


@dataclasses.dataclass(frozen=True)
class Failed:
  """A job, or with job 0 the model as a whole, came to nothing, for the reason of a sentence."""

  job: int
  sentence: str


@dataclasses.dataclass(frozen=True)
class Died:
  """The process ended by itself."""

  code: int | None


Task = Warm | Make
Report = Ready | Warmed | Advanced | Made | Failed | Died


@runtime_checkable
class Maker(Protocol):
  """Who writes takes, one at a time, while everything else goes on."""

  def start(self, tell: Callable[[Report], None]) -> None:
    """Begins; reports come on the event loop that runs now."""

  def ask(self, task: Task) -> None:
    """Asks for a task; the next one only after its report came."""

  def cancel(self, job: int) -> None:
    """Says that a job is no longer wanted; it is reported all the same, made or failed."""

  def stop(self) -> None:
    """Ends it."""
