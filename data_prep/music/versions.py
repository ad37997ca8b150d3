# SPDX-License-Identifier: Apache-2.0
"""Versions of a song: another stretch of it, in another key, at another tempo."""

import dataclasses

import mido
import numpy as np

from data_prep.music.parts import Event, Part, Song, sort_events

TAIL_S = 2.0
_SEMITONES = (-5, 7)  # of the key: five down to six up
_TEMPO = (0.88, 1.14)  # of the song's own


def vary(song: Song, rng: np.random.Generator, max_s: float) -> Song:
  """Returns a stretch of a song that begins with a note, drawn by `rng`; drums keep their pitches.

  Args:
    max_s: its longest, tail included; a shorter song stays whole.
  """
  tempo, semitones = float(rng.uniform(*_TEMPO)), int(rng.integers(*_SEMITONES))
  kept_s = (max_s - TAIL_S) * tempo
  onsets = [t for part in song.parts for t, message in part.events if message.type == "note_on"]
  early = [onset for onset in onsets if onset <= max(onsets) - kept_s]
  start_s = float(rng.choice(sorted(early))) if early else min(onsets)
  cut = [_cut(part, start_s, start_s + kept_s, tempo, semitones) for part in song.parts]
  parts = tuple(part for part in cut if part.has_notes)
  last_s = max(time_s for part in parts for time_s, _ in part.events)
  return dataclasses.replace(
    song, tempo_bpm=song.tempo_bpm * tempo, length_s=last_s + TAIL_S, parts=parts
  )


def _cut(part: Part, start_s: float, end_s: float, tempo: float, semitones: int) -> Part:
  """Returns a part's notes that begin within [start_s, end_s), and end by then; from time 0.

  What shaped its sound before the stretch, programs, controllers and bends, shapes it from 0 on.
  """
  events: list[Event] = []
  sounding: set[tuple[int, int]] = set()
  for time_s, message in part.events:
    if time_s >= end_s:
      break
    if message.type in ("note_on", "note_off"):
      pitch = message.note if part.is_drum else message.note + semitones
      key = (message.channel, pitch)
      if message.type == "note_on" and time_s >= start_s and 0 <= pitch <= 127:
        sounding.add(key)
      elif key in sounding and message.type == "note_off":
        sounding.discard(key)
      else:
        continue
      message = message.copy(note=pitch)
    events.append((max(0.0, time_s - start_s) / tempo, message))
  for channel, pitch in sorted(sounding):
    off = mido.Message("note_off", channel=channel, note=pitch)
    events.append(((end_s - start_s) / tempo, off))
  return dataclasses.replace(part, events=tuple(sort_events(events)))
