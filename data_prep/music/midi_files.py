# SPDX-License-Identifier: Apache-2.0
"""Multi-track MIDI files and Doom WADs as songs, one part a General MIDI program.

Finds the files, parses them (mido; `doom` for MUS), splits channels by program, and takes music
that several files hold only once.
"""

import dataclasses
import hashlib
import io
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import mido
from mido.midifiles.meta import KeySignatureError

from data_prep.music.doom import MIDI_MAGIC, MUS_MAGIC, music_lumps, read_mus
from data_prep.music.parts import DRUM_CHANNEL, Event, Part, Song, sort_events
from stemgen_jax.errors import UserError

SUFFIXES = (".mid", ".midi", ".mus", ".wad")
_TAIL_S = 2.0
_BANK_SELECT = (0, 32)
# What mido is seen to raise on bytes that are not a well-formed MIDI file.
_PARSE_ERRORS = (OSError, EOFError, ValueError, IndexError, KeyError, TypeError, KeySignatureError)


@dataclasses.dataclass(frozen=True)
class Score:
  """One piece of music as bytes: a MIDI file, or a lump of a WAD."""

  source: str
  content: bytes


def find_scores(paths: Iterable[Path]) -> list[Score]:
  """Returns the scores in files and, recursively, directories; equal bytes once.

  A file inside a directory that cannot be read is reported on stderr and left out.

  Raises:
    UserError: if a path is missing, a named file holds no music, or nothing is found at all.
  """
  scores: dict[str, Score] = {}
  for path in paths:
    if not path.exists():
      raise UserError(f"--midi must name files or directories that exist; got {path}.")
    inside = path.is_dir()
    files = [path]
    if inside:
      files = sorted(f for f in path.rglob("*") if f.is_file() and f.suffix.lower() in SUFFIXES)
    for file in files:
      try:
        found = _open_file(file)
      except UserError as error:
        if not inside:
          raise
        print(f"warning: {error} Left out.", file=sys.stderr)
        continue
      for score in found:
        scores.setdefault(hashlib.sha256(score.content).hexdigest(), score)
  if not scores:
    raise UserError(
      f"--midi must name at least one {', '.join(SUFFIXES)} file with music; found none in"
      f" {', '.join(map(str, paths))}."
    )
  return list(scores.values())


def _open_file(file: Path) -> list[Score]:
  content = file.read_bytes()
  if content[:4] in (b"IWAD", b"PWAD"):
    try:
      return [Score(f"{file.name}:{name}", lump) for name, lump in music_lumps(content)]
    except ValueError as error:
      raise UserError(f"a WAD file must be whole; got {file} ({error}).") from error
  if content[:4] in (MIDI_MAGIC, MUS_MAGIC):
    return [Score(file.name, content)]
  raise UserError(f"music must be a MIDI, MUS or WAD file; got {file}, which is none of them.")


def read_song(score: Score, max_s: float) -> Song | UserError:
  """Returns a score's song, or, so that a worker process can hand it back, what is wrong with it.

  Silence before the first note is cut; notes that would pass `max_s` less the tail end there.
  """
  try:
    if score.content[:4] == MUS_MAGIC:
      events, tempo_bpm = read_mus(score.content), 120.0
    else:
      events, tempo_bpm = _read_midi(score.content)
  except _PARSE_ERRORS as error:
    return UserError(f"MIDI must be well formed; got {score.source} ({error}).")
  parts = split_parts(_trim(events, max_s - _TAIL_S))
  if not parts:
    return UserError(f"a song must have at least one note; got {score.source} with none.")
  end_s = max(time_s for part in parts for time_s, m in part.events if m.type == "note_off")
  return Song(
    source=score.source, tempo_bpm=tempo_bpm, length_s=end_s + _TAIL_S, parts=tuple(parts)
  )


def notes_digest(song: Song) -> str:
  """Returns a hash of which pitches a song plays when (20 ms grid): equal for equal music."""
  notes = sorted(
    (round(time_s * 50), message.note, part.program, part.is_drum)
    for part in song.parts
    for time_s, message in part.events
    if message.type == "note_on"
  )
  return hashlib.sha256(repr(notes).encode()).hexdigest()


def split_parts(events: list[Event]) -> list[Part]:
  """Returns one part a program, and one for all drums, in the order they first play.

  A note belongs to the program its channel has when it starts, and so does its end. Controllers
  and bends go to every part that plays on their channel.
  """
  programs = [0] * 16
  played: dict[tuple[bool, int], list[Event]] = {}
  channels: dict[tuple[bool, int], set[int]] = {}
  owner: dict[tuple[int, int], tuple[bool, int]] = {}
  shared: list[Event] = []
  kit = 0
  for event in events:
    message = event[1]
    if message.type == "program_change":
      programs[message.channel] = message.program
    elif message.type == "note_on":
      is_drum = message.channel == DRUM_CHANNEL
      key = (is_drum, 0 if is_drum else programs[message.channel])
      if is_drum and key not in played:
        kit = programs[message.channel]
      played.setdefault(key, []).append(event)
      channels.setdefault(key, set()).add(message.channel)
      owner[message.channel, message.note] = key
    elif message.type == "note_off":
      if (message.channel, message.note) in owner:
        played[owner[message.channel, message.note]].append(event)
    else:
      shared.append(event)
  parts = []
  for (is_drum, program), notes in played.items():
    used = channels[is_drum, program]
    number = kit if is_drum else program
    setup = [
      (0.0, mido.Message("program_change", channel=channel, program=number))
      for channel in sorted(used)
    ]
    controls = [event for event in shared if event[1].channel in used]
    parts.append(Part(program=number, is_drum=is_drum, events=(*setup, *_merge(controls, notes))))
  return parts


def _merge(controls: list[Event], notes: list[Event]) -> list[Event]:
  """Returns both by time, note-offs first and controllers before the note-ons they shape."""
  return sort_events([*controls, *notes])


def _read_midi(content: bytes) -> tuple[list[Event], float]:
  """Returns the channel messages of a MIDI file in seconds, and its first tempo."""
  try:
    file = mido.MidiFile(file=io.BytesIO(content), clip=True)
  except KeySignatureError:
    # Nothing here reads key signatures, and files with a nonsense one exist: make it C major.
    content = re.sub(rb"\xff\x59\x02..", b"\xff\x59\x02\x00\x00", content, flags=re.DOTALL)
    file = mido.MidiFile(file=io.BytesIO(content), clip=True)
  if file.ticks_per_beat <= 0:
    raise ValueError("SMPTE time division is not supported")
  events: list[Event] = []
  tempo_bpm, time_s = 0.0, 0.0
  for message in file:
    time_s += message.time
    if message.type == "set_tempo" and not tempo_bpm:
      tempo_bpm = mido.tempo2bpm(message.tempo)
    elif message.type == "note_on" and message.velocity == 0:
      events.append((time_s, mido.Message("note_off", channel=message.channel, note=message.note)))
    elif message.type in ("note_on", "note_off", "program_change", "pitchwheel") or (
      message.type == "control_change" and message.control not in _BANK_SELECT
    ):
      events.append((time_s, message))
  return events, tempo_bpm or 120.0


def _trim(events: list[Event], end_s: float) -> list[Event]:
  """Returns events moved so that the first note is at 0, cut at `end_s`, every note ended."""
  starts = [time_s for time_s, message in events if message.type == "note_on"]
  if not starts:
    return []
  kept: list[Event] = []
  sounding: set[tuple[int, int]] = set()
  for time_s, message in events:
    time_s = max(0.0, time_s - starts[0])
    if time_s > end_s:
      break
    if message.type == "note_on":
      sounding.add((message.channel, message.note))
    elif message.type == "note_off":
      sounding.discard((message.channel, message.note))
    kept.append((time_s, message.copy(time=0)))
  last_s = min(end_s, max(kept[-1][0], events[-1][0] - starts[0]))
  for channel, note in sorted(sounding):
    kept.append((last_s, mido.Message("note_off", channel=channel, note=note)))
  return kept
