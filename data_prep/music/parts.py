# SPDX-License-Identifier: Apache-2.0
"""What a renderer is given: songs of parts, parts of timed MIDI messages, and General MIDI words.

Nothing here knows where the notes came from or how they will sound.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import mido
from pretty_midi import constants

Message = Any  # mido's, whose fields follow from its `type` at run time
Event = tuple[float, Message]
"""Time from the start of the song in seconds, and the channel message sent then."""

DRUM_CHANNEL = 9

# Slakh2100's `inst_class` for each block of eight General MIDI programs.
_CLASSES = (
  "Piano",
  "Chromatic Percussion",
  "Organ",
  "Guitar",
  "Bass",
  "Strings",
  "Strings (continued)",
  "Brass",
  "Reed",
  "Pipe",
  "Synth Lead",
  "Synth Pad",
  "Synth Effects",
  "Ethnic",
  "Percussive",
  "Sound Effects",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Note:
  """One note; times in beats before a tempo is chosen."""

  beat: float
  length: float
  pitch: int
  velocity: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
  """Everything one instrument plays.

  Attributes:
    program: General MIDI program 0-127; the kit's number for drums.
    events: in order of time; the channels used are the part's own.
    level_db: loudness wanted in the mix (LUFS before the mix is scaled); None keeps what the
      velocities and controllers give.
  """

  program: int
  is_drum: bool
  events: tuple[Event, ...]
  level_db: float | None = None

  @property
  def has_notes(self) -> bool:
    """True if at least one note sounds."""
    return any(message.type == "note_on" for _, message in self.events)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Song:
  """Parts that sound together.

  Attributes:
    source: where the notes came from, e.g. `bach/bwv269` or `freedoom2.wad:D_RUNNIN`.
    length_s: from the start to where the last note may still ring.
  """

  source: str
  tempo_bpm: float
  length_s: float
  parts: tuple[Part, ...]


def inst_class(program: int, is_drum: bool) -> str:
  """Returns Slakh2100's class word for a General MIDI program."""
  return "Drums" if is_drum else _CLASSES[program // 8]


def program_name(program: int, is_drum: bool) -> str:
  """Returns the General MIDI name of a program, "Drums" for any kit."""
  return "Drums" if is_drum else constants.INSTRUMENT_MAP[program]


def note_events(notes: Iterable[tuple[float, float, int, int]], channel: int) -> list[Event]:
  """Returns note-on and note-off events of (start_s, end_s, pitch, velocity) notes.

  A note still sounding when its pitch is struck again ends at that stroke, so that no note-off
  cuts the newer note.
  """
  by_pitch: dict[int, list[tuple[float, float, int]]] = {}
  for start_s, end_s, pitch, velocity in sorted(notes):
    by_pitch.setdefault(pitch, []).append((start_s, end_s, velocity))
  events: list[Event] = []
  for pitch, played in by_pitch.items():
    nexts = [start_s for start_s, _, _ in played[1:]] + [float("inf")]
    for (start_s, end_s, velocity), next_s in zip(played, nexts, strict=True):
      if next_s == start_s:
        continue
      on = mido.Message("note_on", channel=channel, note=pitch, velocity=velocity)
      off = mido.Message("note_off", channel=channel, note=pitch)
      events += [(start_s, on), (min(end_s, next_s), off)]
  return sort_events(events)


def sort_events(events: Iterable[Event]) -> list[Event]:
  """Returns events by time; at one time note-offs first, then controllers, then note-ons."""
  order = {"note_off": 0, "note_on": 2}
  return sorted(events, key=lambda event: (event[0], order.get(event[1].type, 1)))
