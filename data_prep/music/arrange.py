# SPDX-License-Identifier: Apache-2.0
"""A chorale as a six-piece band plays it: drums, bass, keys, guitar, lead and pad.

Draws tempo, key, programs, form and figures from one generator, so a seed gives one arrangement.
Knows nothing of sound.
"""

import dataclasses

import mido
import numpy as np

from data_prep.music import figures, grooves, rhythms
from data_prep.music.chorales import Chorale, Chord
from data_prep.music.parts import DRUM_CHANNEL, Note, Part, Song, note_events, sort_events
from data_prep.music.performance import bend, perform, swell

ROLES = ("drums", "bass", "keys", "guitar", "lead", "pad")
_KITS = (0, 8, 16, 24, 25, 32)
_PROGRAMS = {"bass": 32, "keys": 0, "guitar": 24, "lead": 80, "pad": 88}
_LEVEL_DB = {"drums": -19, "bass": -20, "keys": -23, "guitar": -24, "lead": -22, "pad": -26}
# Chance that a part plays in a section.
_PLAYS = {"drums": 0.9, "bass": 0.93, "keys": 0.8, "guitar": 0.75, "lead": 0.8, "pad": 0.7}
_TAIL_S = 2.0
_MIN_S = 30.0


@dataclasses.dataclass(frozen=True)
class _Section:
  """Bars [start, end); which parts play; first or second figure; loudness in velocity steps."""

  start: int
  end: int
  roles: frozenset[str]
  variant: int
  lift: int


def arrange(chorale: Chorale, rng: np.random.Generator, max_s: float) -> Song:
  """Returns the chorale arranged for the band, 30 s or more where max_s allows it.

  Args:
    max_s: the song ends, tail included, at or before this many seconds: the last whole phrase
      (or bar, where no phrase fits) that does.
  """
  stretch = 2 if chorale.bar_beats == 4 and rng.random() < 0.5 else 1
  tempo_bpm = float(rng.uniform(118, 168) if stretch == 2 else rng.uniform(74, 116))
  sheet, phrase_bars = _write_sheet(chorale, int(rng.integers(-5, 7)), stretch)
  bar_s = sheet.bar_beats * 60 / tempo_bpm
  sheet, phrase_bars = _fit(sheet, phrase_bars, bar_s, max_s - _TAIL_S)
  bars = phrase_bars[-1]
  sections = _draw_form(phrase_bars, rng)
  swing = float(rng.choice([0.0, 0.0, 0.08, 0.16]))
  parts = []
  for role in ROLES:
    part_rng = np.random.default_rng(rng.integers(2**63))
    if role == "drums":
      program = int(part_rng.choice(_KITS))
      notes = _play_drums(sheet, sections, part_rng)
    else:
      program = _PROGRAMS[role] + int(part_rng.integers(8))
      notes = _play_role(role, program, sheet, sections, part_rng)
    timed = perform(notes, tempo_bpm, swing, role == "drums", part_rng)
    channel = DRUM_CHANNEL if role == "drums" else 0
    events = [(0.0, mido.Message("program_change", channel=channel, program=program))]
    if role == "pad":
      events += swell([section.start * bar_s for section in sections], channel)
    elif role == "lead":
      events += bend(timed, channel, part_rng)
    parts.append(
      Part(
        program=program,
        is_drum=role == "drums",
        events=tuple(sort_events([*events, *note_events(timed, channel)])),
        level_db=_LEVEL_DB[role] + float(part_rng.uniform(-2.5, 2.5)),
      )
    )
  return Song(
    source=f"bach/{chorale.name}",
    tempo_bpm=tempo_bpm,
    length_s=bars * bar_s + _TAIL_S,
    parts=tuple(parts),
  )


def _write_sheet(chorale: Chorale, semitones: int, stretch: int) -> tuple[figures.Sheet, list[int]]:
  """Returns the chorale in the band's key and beats, and the bars at which its phrases end."""
  voices = tuple(
    tuple((beat * stretch, length * stretch, pitch + semitones) for beat, length, pitch in voice)
    for voice in chorale.voices
  )
  chords = tuple(
    Chord(tuple((tone + semitones) % 12 for tone in chord.tones), (chord.bass + semitones) % 12)
    for chord in chorale.chords
    for _ in range(stretch)
  )
  weight = np.zeros(12)
  for voice in voices:
    for _, length, pitch in voice:
      weight[pitch % 12] += length
  scale = frozenset(np.argsort(-weight, kind="stable")[:7].tolist())
  ends = {round(end * stretch / chorale.bar_beats) for end in chorale.phrase_ends}
  sheet = figures.Sheet(bar_beats=chorale.bar_beats, chords=chords, voices=voices, scale=scale)
  return sheet, sorted(ends - {0} | {len(chords) // chorale.bar_beats})


def _fit(
  sheet: figures.Sheet, phrase_bars: list[int], bar_s: float, max_s: float
) -> tuple[figures.Sheet, list[int]]:
  """Returns the sheet repeated to at least _MIN_S and cut to whole phrases within max_s."""
  bars = phrase_bars[-1]
  passes = 1
  while passes * bars * bar_s < min(_MIN_S, max_s):
    passes += 1
  ends = [end + bars * turn for turn in range(passes) for end in phrase_bars]
  within = [end for end in ends if end * bar_s <= max_s]
  if not within or within[-1] * bar_s < min(_MIN_S, 0.75 * max_s):
    within.append(max(1, int(max_s / bar_s)))
  beats, total = bars * sheet.bar_beats, within[-1] * sheet.bar_beats
  voices = tuple(
    tuple(
      (beat + turn * beats, min(length, total - beat - turn * beats), pitch)
      for turn in range(passes)
      for beat, length, pitch in voice
      if beat + turn * beats < total
    )
    for voice in sheet.voices
  )
  return dataclasses.replace(sheet, chords=(sheet.chords * passes)[:total], voices=voices), within


def _draw_form(phrase_bars: list[int], rng: np.random.Generator) -> list[_Section]:
  """Returns sections of one or two phrases; every part plays somewhere, three or more at a time."""
  ends, start = [], 0
  for end in phrase_bars:
    if end - start >= 4 or end == phrase_bars[-1] or (end - start >= 2 and rng.random() < 0.4):
      ends.append(end)
      start = end
  drawn: list[set[str]] = []
  for index in range(len(ends)):
    roles = {role for role in ROLES if rng.random() < _PLAYS[role] - 0.3 * (index == 0)}
    while len(roles) < 3:
      roles.add(ROLES[int(rng.integers(len(ROLES)))])
    drawn.append(roles)
  for role in ROLES:
    if not any(role in roles for roles in drawn):
      drawn[int(rng.integers(len(drawn)))].add(role)
  if len(drawn) > 2:
    drawn[-1] |= {"drums", "bass"}
  starts = [0, *ends[:-1]]
  return [
    _Section(start, end, frozenset(roles), index % 2, int(rng.integers(-8, 5)) + 2 * index)
    for index, (start, end, roles) in enumerate(zip(starts, ends, drawn, strict=True))
  ]


def _play_drums(
  sheet: figures.Sheet, sections: list[_Section], rng: np.random.Generator
) -> list[Note]:
  pair = grooves.draw_grooves(sheet.bar_beats, rng)
  notes: list[Note] = []
  for section in sections:
    if "drums" not in section.roles:
      continue
    for bar in range(section.start, section.end):
      start = bar * sheet.bar_beats
      crash = bar == section.start and bar > 0
      played = grooves.play_bar(pair[section.variant], start, rng, crash)
      if bar == section.end - 1 or (bar % 4 == 3 and rng.random() < 0.3):
        fill = grooves.draw_fill(sheet.bar_beats, rng)
        end = start + sheet.bar_beats
        cut = end - len(fill) / 4
        played = [note for note in played if note.beat < cut] + grooves.play_fill(fill, end)
      if bar == sections[-1].end - 1:
        last = max(start, int(sheet.voices[0][-1][0]))
        played = [note for note in played if note.beat < last] + grooves.play_end(last)
      notes += _lift(played, section.lift)
  return notes


def _play_role(
  role: str,
  program: int,
  sheet: figures.Sheet,
  sections: list[_Section],
  rng: np.random.Generator,
) -> list[Note]:
  *pair, last = _draw_figures(role, program, sheet, rng)
  notes: list[Note] = []
  for section in sections:
    if role not in section.roles:
      continue
    for bar in range(section.start, section.end):
      figure = last if bar == sections[-1].end - 1 else pair[section.variant]
      played = figure(sheet, bar * sheet.bar_beats, rng)
      notes += _lift(played, section.lift)
  return notes


def _draw_figures(
  role: str, program: int, sheet: figures.Sheet, rng: np.random.Generator
) -> list[figures.Figure]:
  """Returns the part's verse and refrain figures, and the plainest for the song's last bar."""
  four = sheet.bar_beats == 4
  if role == "bass":
    options = [figures.bass_figure(line) for line in (rhythms.BASS_4 if four else rhythms.BASS_3)]
    options.append(figures.voice_figure(3, -1, 28, 50))
  elif role == "keys":
    voicings = figures.lead_voices(sheet.chords, 53, 78, int(rng.integers(3, 5)))
    lines = rhythms.COMP_4 if four else rhythms.COMP_3
    options = [figures.comp_figure(line, voicings) for line in lines]
  elif role == "guitar":
    if program in (29, 30):
      voicings = figures.power_chords(sheet.chords)
      lines = rhythms.CHUG_4 if four else rhythms.CHUG_3
    else:
      voicings = figures.lead_voices(sheet.chords, 50, 76, int(rng.integers(4, 6)))
      lines = rhythms.STRUM_4 if four else rhythms.STRUM_3
    options = [figures.comp_figure(line, voicings, strum=0.02) for line in lines]
  elif role == "lead":
    octave = int(rng.integers(0, 2))
    high = figures.lead_voices(sheet.chords, 67, 91, 3)
    options = [
      figures.tune_figure(octave, 0.0),
      figures.tune_figure(octave, 0.4),
      figures.tune_figure(1, 0.25),
      figures.together(figures.tune_figure(octave, 0.0), figures.voice_figure(1, octave, 55, 90)),
      figures.comp_figure("0-1-2-1-0-1-2-1-"[: 4 * sheet.bar_beats], high),
    ]
  elif role == "pad":
    held = "X---------------"[: 4 * sheet.bar_beats]
    options = [
      figures.together(*(figures.voice_figure(voice, 0, 48, 79) for voice in (1, 2, 3))),
      figures.together(*(figures.voice_figure(voice, 0, 52, 84) for voice in (0, 1, 2))),
      figures.comp_figure(held, figures.lead_voices(sheet.chords, 52, 79, 3)),
      figures.comp_figure(held, figures.lead_voices(sheet.chords, 48, 79, 4)),
    ]
  else:
    raise ValueError(f"role must be one of {ROLES}; got role={role}")
  first, second = rng.choice(len(options), size=2, replace=False)
  return [options[first], options[second], options[0]]


def _lift(notes: list[Note], steps: int) -> list[Note]:
  return [dataclasses.replace(note, velocity=note.velocity + steps) for note in notes]
