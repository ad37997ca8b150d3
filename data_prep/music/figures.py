# SPDX-License-Identifier: Apache-2.0
"""What bass, keys, guitar, lead and pad play in one bar of a chord sheet.

Rhythms are the strings of `rhythms`; a held note or chord is struck again where the harmony
changes under it. Nothing here knows seconds or programs.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator

import numpy as np

from data_prep.music.chorales import Chord, Voice
from data_prep.music.parts import Note

Voicing = tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sheet:
  """A song's harmony and voices, in the band's beats and key.

  Attributes:
    chords: one a beat.
    voices: soprano, alto, tenor, bass.
    scale: the seven pitch classes heard most.
  """

  bar_beats: int
  chords: tuple[Chord, ...]
  voices: tuple[Voice, ...]
  scale: frozenset[int]


Figure = Callable[[Sheet, int, np.random.Generator], list[Note]]
"""Given the sheet, a bar's first beat and a generator, returns the bar's notes."""


def lead_voices(chords: tuple[Chord, ...], low: int, high: int, size: int) -> list[Voicing]:
  """Returns for each chord the close voicing in [low, high] that moves least from the one before.

  Args:
    size: notes in each voicing; tones are doubled at the octave where the chord has fewer.
  """
  middle = (low + high) / 2
  before: Voicing = ()
  voicings = []
  for chord in chords:
    options = [
      tuple(stacked)
      for base in range(low, high)
      if base % 12 in chord.tones and (stacked := _stack(chord.tones, base, size))[-1] <= high
    ] or [tuple(_stack(chord.tones, low + (chord.tones[0] - low) % 12, size))]
    before = min(
      options,
      key=lambda option: (
        sum(abs(a - b) for a, b in zip(option, before, strict=bool(before)))
        + 0.2 * abs(np.mean(option) - middle)
      ),
    )
    voicings.append(before)
  return voicings


def power_chords(chords: tuple[Chord, ...], low: int = 40) -> list[Voicing]:
  """Returns root, fifth and octave for each chord; no fifth where the chord alters it."""
  voicings = []
  for chord in chords:
    root = low + (chord.tones[0] - low) % 12
    fifth = 7 if (chord.tones[0] + 7) % 12 in chord.tones else 12
    voicings.append(tuple(sorted({root, root + fifth, root + 12})))
  return voicings


def bass_figure(rhythm: str) -> Figure:
  """Returns a figure that plays a bass rhythm on the chorale's bass, from low E upwards."""

  def play(sheet: Sheet, start: int, rng: np.random.Generator) -> list[Note]:
    notes = []
    for beat, length, mark in _strokes(sheet, rhythm, start):
      chord = sheet.chords[int(beat)]
      root = 28 + (chord.bass - 28) % 12
      if mark == "R":
        pitch = root
      elif mark == "8":
        pitch = root + 12
      elif mark == "a":
        pitch = _approach(sheet, start + sheet.bar_beats, rng)
      else:
        above = sorted((tone - root) % 12 for tone in chord.tones if (tone - root) % 12)
        pitch = root + (above[0] if mark == "3" else min(above, key=lambda step: abs(step - 7)))
      notes.append(Note(beat=beat, length=0.94 * length, pitch=pitch, velocity=_accent(beat, 94)))
    return notes

  return play


def comp_figure(rhythm: str, voicings: list[Voicing], strum: float = 0.0) -> Figure:
  """Returns a figure that plays a rhythm on the voicings, one for each beat.

  Args:
    strum: beats between the strings of a strummed chord; strokes off the beat run upwards.
  """

  def play(sheet: Sheet, start: int, rng: np.random.Generator) -> list[Note]:
    notes = []
    for beat, length, mark in _strokes(sheet, rhythm, start):
      voicing = voicings[int(beat)]
      velocity = _accent(beat, {"X": 92, "x": 78}.get(mark, 82))
      if mark.isdigit():
        octave, index = divmod(int(mark), len(voicing))
        pitches = (voicing[index] + 12 * octave,)
        length *= 1.5
      else:
        pitches = voicing if beat % 1 == 0 or not strum else voicing[::-1]
      for string, pitch in enumerate(pitches):
        late = strum * string
        notes.append(
          Note(beat=beat + late, length=0.95 * length - late, pitch=pitch, velocity=velocity)
        )
    return notes

  return play


def voice_figure(index: int, octave: int, low: int, high: int) -> Figure:
  """Returns a figure that plays one of the chorale's voices as written, moved by octaves."""

  def play(sheet: Sheet, start: int, rng: np.random.Generator) -> list[Note]:
    notes = []
    for beat, length, pitch in _bar_notes(sheet.voices[index], start, sheet.bar_beats):
      moved = _into_range(pitch + 12 * octave, low, high)
      notes.append(Note(beat=beat, length=0.97 * length, pitch=moved, velocity=_accent(beat, 84)))
    return notes

  return play


def together(*figures: Figure) -> Figure:
  """Returns a figure that plays several at once."""

  def play(sheet: Sheet, start: int, rng: np.random.Generator) -> list[Note]:
    return list(itertools.chain.from_iterable(f(sheet, start, rng) for f in figures))

  return play


def tune_figure(octave: int, ornaments: float) -> Figure:
  """Returns a figure that plays the chorale's tune.

  Args:
    octave: octaves above the written one.
    ornaments: chance that a note is ornamented: a mordent, a passing note, a repeat, or an entry
      half a beat late.
  """

  def play(sheet: Sheet, start: int, rng: np.random.Generator) -> list[Note]:
    notes = []
    tune = sheet.voices[0]
    for beat, length, pitch in _bar_notes(tune, start, sheet.bar_beats):
      follows = next((p for b, _, p in tune if b > beat), pitch)
      plain = [(beat, length, pitch)]
      played = plain
      if length >= 1 and rng.random() < ornaments:
        played = _ornament(beat, length, pitch, follows, sheet.scale, rng)
      for at, held, key in played:
        notes.append(
          Note(beat=at, length=0.95 * held, pitch=key + 12 * octave, velocity=_accent(at, 92))
        )
    return notes

  return play


def _ornament(
  beat: float,
  length: float,
  pitch: int,
  follows: int,
  scale: frozenset[int],
  rng: np.random.Generator,
) -> list[tuple[float, float, int]]:
  """Returns one ornament of a note as (beat, length, pitch); `follows` is the next note's pitch."""
  upper = next(pitch + step for step in (1, 2, 3) if (pitch + step) % 12 in scale)
  kind = rng.integers(4)
  if kind == 0:
    return [(beat, 0.25, pitch), (beat + 0.25, 0.25, upper), (beat + 0.5, length - 0.5, pitch)]
  if kind == 1 and 3 <= abs(follows - pitch) <= 4:
    step = 1 if follows > pitch else -1
    passing = next(pitch + step * size for size in (1, 2, 3) if (pitch + step * size) % 12 in scale)
    return [(beat, length - 0.5, pitch), (beat + length - 0.5, 0.5, passing)]
  if kind == 2:
    return [(beat, length / 2, pitch), (beat + length / 2, length / 2, pitch)]
  return [(beat + 0.5, length - 0.5, pitch)]


def _strokes(sheet: Sheet, rhythm: str, start: int) -> Iterator[tuple[float, float, str]]:
  """Yields (beat, length, mark) of a rhythm; holds are cut and struck again at a new harmony."""
  step, mark, begun = 0, ".", 0
  for step, sign in enumerate(rhythm + "."):
    beat = start + step / 4
    changed = (
      sign == "-" and step % 4 == 0 and sheet.chords[int(beat)] != sheet.chords[int(beat) - 1]
    )
    if sign == "-" and not changed:
      continue
    if mark != ".":
      yield start + begun / 4, (step - begun) / 4, mark
    if not changed:
      mark = sign
    elif mark == "a":
      mark = "R"
    begun = step


def _bar_notes(voice: Voice, start: int, bar_beats: int) -> Voice:
  return tuple(note for note in voice if start <= note[0] < start + bar_beats)


def _approach(sheet: Sheet, beat: int, rng: np.random.Generator) -> int:
  """Returns a note of the scale, or one semitone, beside the bass at `beat`."""
  target = 28 + (sheet.chords[min(beat, len(sheet.chords) - 1)].bass - 28) % 12
  side = (-1, -2, 1, 2)[int(rng.integers(4))]
  near = target + side
  return near if near % 12 in sheet.scale else target - 1


def _stack(tones: tuple[int, ...], base: int, size: int) -> list[int]:
  """Returns `size` chord tones upwards from pitch `base`."""
  pitches = [pitch for pitch in range(base, base + 12 * size) if pitch % 12 in tones]
  return pitches[:size]


def _into_range(pitch: int, low: int, high: int) -> int:
  while pitch < low:
    pitch += 12
  while pitch > high:
    pitch -= 12
  return pitch


def _accent(beat: float, velocity: int) -> int:
  """Returns the velocity raised on the beat and lowered on the sixteenths between."""
  if beat % 1 == 0:
    return velocity + 6
  return velocity - (8 if (beat * 4) % 2 else 2)
