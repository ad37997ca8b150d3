# SPDX-License-Identifier: Apache-2.0
"""What a session is at one moment: a song, and lanes with their takes. Knows no file."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

RATE_HZ = 44_100  # of all takes
LOOP_S = (0.5, 120.0)  # the shortest and the longest loop
FIRST_LANES = ("drums", "bass", "piano", "synth_lead")
GUIDANCE = 3.0  # of the context, where a model does not tell its own


@dataclasses.dataclass(frozen=True)
class Song:
  """The loop that all lanes play.

  Attributes:
    name: of the file it began with.
    tempo_bpm: beats a minute.
    beats_per_bar: as it says.
    bars: of the loop.
    offset_s: where in a file the first bar begins.
    loop_samples: length of each take; 0 while nothing was begun.
  """

  name: str = ""
  tempo_bpm: float = 120.0
  beats_per_bar: int = 4
  bars: int = 4
  offset_s: float = 0.0
  loop_samples: int = 0

  @property
  def bar_s(self) -> float:
    """Seconds of a bar."""
    return self.beats_per_bar * 60 / self.tempo_bpm

  def begin(self) -> "Song":
    """Returns the song with the length that its tempo and bars come to."""
    return dataclasses.replace(self, loop_samples=round(self.bars * self.bar_s * RATE_HZ))


@dataclasses.dataclass(frozen=True)
class Lane:
  """One instrument of the loop, and how it sounds."""

  id: str
  name: str
  instrument: str
  level_db: float = 0.0
  pan: float = 0.0
  mute: bool = False
  solo: bool = False
  lock: bool = False
  guidance: float = GUIDANCE
  seed: int = 0
  takes: tuple[str, ...] = ()
  active: str | None = None


@dataclasses.dataclass(frozen=True)
class Take:
  """One recording of a whole loop; its sound lies in the session's folder and never changes.

  Attributes:
    id: its name there.
    label: A, B, C ... in its lane.
    origin: generated, varied, kept, file or recording.
    seed: of its chance; None where there was none.
    seconds: that writing it took; None where nothing was written.
    words: flags of `python -m stemgen_jax.sample` that give it again; None where none do.
    source: the file of the session that it was cut from.
    start_s: where in it the loop begins.
    parent: the take that it was cut from, where the song's length was changed since.
  """

  id: str
  label: str
  origin: str
  seed: int | None = None
  seconds: float | None = None
  words: tuple[str, ...] | None = None
  source: str | None = None
  start_s: float = 0.0
  parent: str | None = None


@dataclasses.dataclass(frozen=True)
class Document:
  """All that an edit can change, and an undo bring back."""

  song: Song
  lanes: tuple[Lane, ...]

  def find(self, lane: Any) -> Lane | None:
    """Returns the lane of an id, if there is one."""
    return next((one for one in self.lanes if one.id == lane), None)

  def put(self, lane: Lane) -> "Document":
    """Returns the document with a lane in the place of the one of its id."""
    lanes = tuple(lane if one.id == lane.id else one for one in self.lanes)
    return dataclasses.replace(self, lanes=lanes)

  @property
  def is_empty(self) -> bool:
    """Whether no lane has a take."""
    return not any(lane.takes for lane in self.lanes)

  def list_sounding(self, but: str | None = None) -> list[Lane]:
    """Returns the lanes that are heard, without one: a solo silences all lanes that have none."""
    others = [lane for lane in self.lanes if lane.id != but and lane.active]
    soloed = any(lane.solo for lane in self.lanes if lane.id != but)
    return [lane for lane in others if not lane.mute and (lane.solo or not soloed)]


def first_document() -> Document:
  """Returns what a new session begins with: empty lanes."""
  lanes = (Lane(f"lane{i}", name.replace("_", " "), name) for i, name in enumerate(FIRST_LANES, 1))
  return Document(Song(), tuple(lanes))


def describe_document(
  document: Document, takes: dict[str, Take], next_seed: Callable[[Lane], int]
) -> dict[str, Any]:
  """Returns the song and the lanes with their takes, of JSON types, as the page is told them.

  Args:
    document: what is told.
    takes: all takes by their ids.
    next_seed: gives the seed of a lane's next take.
  """
  words = dataclasses.asdict(document.song)
  length, shown = words.pop("loop_samples"), ("id", "label", "origin", "seed", "seconds")
  lanes = [
    {
      **dataclasses.asdict(lane),
      "seed": next_seed(lane),
      "takes": [{name: getattr(takes[take], name) for name in shown} for take in lane.takes],
    }
    for lane in document.lanes
  ]
  return {"song": words, "sample_rate": RATE_HZ, "loop_samples": length, "lanes": lanes}


def next_label(count: int) -> str:
  """Returns the label of a lane's take by its number from 0: A to Z, then AA."""
  label = ""
  count += 1
  while count:
    count, letter = divmod(count - 1, 26)
    label = chr(ord("A") + letter) + label
  return label


def is_number(value: Any) -> bool:
  """Whether a value of JSON is a finite number."""
  return (type(value) is int and abs(value) < 2**53) or (
    type(value) is float and math.isfinite(value)
  )
