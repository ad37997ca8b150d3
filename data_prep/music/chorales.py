# SPDX-License-Identifier: Apache-2.0
"""Bach's four-part chorales out of music21's own corpus, as plain beats and pitches.

Knows music21 and nothing of how a chorale will be played. One beat is one written quarter.
"""

import dataclasses
from pathlib import Path

import numpy as np
from music21 import converter, expressions, meter, stream
from music21.common.pathTools import getCorpusFilePath
from music21.exceptions21 import Music21Exception

# Chord kinds tried on each beat: semitones above the root, and a bonus for the simpler ones.
_KINDS = (
  ((0, 4, 7), 0.20),
  ((0, 3, 7), 0.20),
  ((0, 3, 6), 0.05),
  ((0, 4, 7, 10), 0.0),
  ((0, 3, 7, 10), 0.0),
  ((0, 4, 7, 11), -0.05),
  ((0, 3, 6, 10), 0.0),
  ((0, 3, 6, 9), -0.05),
)
_MIN_BEATS = 24

Voice = tuple[tuple[float, float, int], ...]
"""A voice's notes as (beat, length, pitch)."""


@dataclasses.dataclass(frozen=True)
class Chord:
  """A chord as pitch classes: its tones from the root upwards, and the bass voice's."""

  tones: tuple[int, ...]
  bass: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chorale:
  """A four-part chorale.

  Attributes:
    name: file name without suffix, e.g. `bwv269`.
    bar_beats: beats in a bar, 3 or 4.
    beats: length in whole bars; beat 0 is a bar line, so a chorale that opens with an upbeat
      starts late in bar 0.
    voices: soprano, alto, tenor, bass;
    phrase_ends: beats at which a phrase (fermata) ends, the last one included.
    chords: one a beat.
  """

  name: str
  bar_beats: int
  beats: int
  voices: tuple[Voice, ...]
  phrase_ends: tuple[float, ...]
  chords: tuple[Chord, ...]

  @property
  def tune(self) -> tuple[int, ...]:
    """Intervals of the tune's opening: equal for settings of one tune in any key."""
    pitches = [pitch for beat, _, pitch in self.voices[0] if beat == int(beat)][:9]
    return tuple(np.diff(pitches).tolist())


def chorale_paths() -> list[Path]:
  """Returns the corpus files that may hold a chorale, sorted by name."""
  return sorted((getCorpusFilePath() / "bach").glob("bwv*.mxl"))


def read_chorale(path: Path) -> Chorale | None:
  """Returns the chorale in a corpus file, None if it is not four voices in one steady metre."""
  try:
    score = converter.parse(path, forceSource=True, storePickle=False)
  except Music21Exception:
    return None
  if not isinstance(score, stream.Score):
    return None
  parts = _choose_voices(list(score.parts))
  if parts is None:
    return None
  measures = list(parts[0].getElementsByClass(stream.Measure))
  metres = {m.ratioString for m in parts[0].recurse().getElementsByClass(meter.TimeSignature)}
  if len(metres) != 1 or not metres <= {"4/4", "3/4", "2/2"} or not measures:
    return None
  bar_beats = 3 if metres == {"3/4"} else 4
  upbeat = float(measures[0].duration.quarterLength)
  shift = bar_beats - upbeat if upbeat < bar_beats else 0.0
  voices = tuple(_read_voice(part, shift) for part in parts)
  if not all(voices):
    return None
  rest = min(voice[0][0] for voice in voices) // bar_beats * bar_beats  # bars before it begins
  shift -= rest
  voices = tuple(
    tuple((beat - rest, length, pitch) for beat, length, pitch in voice) for voice in voices
  )
  end = max(beat + length for voice in voices for beat, length, _ in voice)
  beats = int(np.ceil(end / bar_beats - 1e-6)) * bar_beats
  if beats < _MIN_BEATS:
    return None
  ends = {
    float(note.offset + note.quarterLength) + shift
    for note in parts[0].flatten().notes
    if any(isinstance(mark, expressions.Fermata) for mark in note.expressions)
  }
  return Chorale(
    name=path.stem,
    bar_beats=bar_beats,
    beats=beats,
    voices=voices,
    phrase_ends=tuple(sorted(ends | {float(beats)})),
    chords=_find_chords(voices, beats),
  )


def _choose_voices(parts: list[stream.Part]) -> list[stream.Part] | None:
  by_name = {part.partName: part for part in parts}
  names = ("Soprano", "Alto", "Tenor", "Bass")
  if all(name in by_name for name in names):
    return [by_name[name] for name in names]
  return parts if len(parts) == 4 else None


def _read_voice(part: stream.Part, shift: float) -> Voice:
  """Returns a voice's notes, tied ones joined, the top note of a divided voice."""
  notes: list[tuple[float, float, int]] = []
  for note in part.flatten().notes:
    if not note.quarterLength:
      continue
    beat, length = float(note.offset) + shift, float(note.quarterLength)
    pitch = max(p.midi for p in note.pitches)
    tied = note.tie is not None and note.tie.type in ("stop", "continue")
    if tied and notes and notes[-1][2] == pitch and abs(sum(notes[-1][:2]) - beat) < 1e-6:
      notes[-1] = (notes[-1][0], notes[-1][1] + length, pitch)
    else:
      notes.append((beat, length, pitch))
  return tuple(notes)


def _find_chords(voices: tuple[Voice, ...], beats: int) -> tuple[Chord, ...]:
  """Returns for each beat the chord kind that best covers the pitch classes sounding in it."""
  chords: list[Chord | None] = []
  for beat in range(beats):
    weight = np.zeros(12)
    for voice in voices:
      for start, length, pitch in voice:
        overlap = min(start + length, beat + 1) - max(start, beat)
        if overlap > 0:
          # What sounds on the beat counts more than what passes after it.
          weight[pitch % 12] += overlap * (1.5 if start <= beat else 0.7)
    if not weight.any():
      chords.append(None)
      continue
    bass = _sounding_bass(voices[3], beat) % 12
    chords.append(Chord(_best_kind(weight / weight.sum(), bass), bass))
  return _fill_gaps(chords)


def _sounding_bass(voice: Voice, beat: int) -> int:
  before = [pitch for start, _, pitch in voice if start <= beat]
  return before[-1] if before else voice[0][2]


def _best_kind(weight: np.ndarray, bass: int) -> tuple[int, ...]:
  best, best_score = (0, 4, 7), -np.inf
  for root in range(12):
    for kind, bonus in _KINDS:
      tones = [(root + step) % 12 for step in kind]
      inside = weight[tones]
      score = inside.sum() - 0.06 * (inside == 0).sum() + 0.3 * bonus + 0.1 * (root == bass)
      if score > best_score + 1e-9:
        best, best_score = tuple(tones), score
  return best


def _fill_gaps(chords: list[Chord | None]) -> tuple[Chord, ...]:
  """Returns the chords with silent beats given the chord before, or the first one."""
  held = next(chord for chord in chords if chord is not None)
  filled = []
  for chord in chords:
    held = chord or held
    filled.append(held)
  return tuple(filled)
