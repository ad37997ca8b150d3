# SPDX-License-Identifier: Apache-2.0
"""How a player departs from the page: swing, small errors of time and force, swells and bends.

Knows beats and seconds, nothing of harmony or form.
"""

import mido
import numpy as np

from data_prep.music.parts import Event, Note

Timed = tuple[float, float, int, int]
"""A performed note: start_s, end_s, pitch, velocity."""

_BEND_SEMITONE = 4096  # steps of the pitch wheel at its usual range of two semitones


def perform(
  notes: list[Note], tempo_bpm: float, swing: float, is_drum: bool, rng: np.random.Generator
) -> list[Timed]:
  """Returns the notes in seconds: swung, with a player's small errors.

  Args:
    swing: how late the second half of a beat comes, in beats; 1/6 is a triplet.
  """
  beat_s = 60 / tempo_bpm
  spread_s = 0.003 if is_drum else 0.006
  lag_s = float(rng.normal(0, spread_s))
  timed = []
  for note in sorted(notes, key=lambda note: (note.beat, note.pitch)):
    starts, ends = (_swung(beat, swing) * beat_s for beat in (note.beat, note.beat + note.length))
    late_s = lag_s + float(np.clip(rng.normal(0, spread_s), -3 * spread_s, 3 * spread_s))
    start_s = max(0.0, starts + late_s)
    velocity = int(np.clip(round(note.velocity + rng.normal(0, 5)), 1, 127))
    timed.append((start_s, max(ends + late_s, start_s + 0.03), note.pitch, velocity))
  return timed


def _swung(beat: float, swing: float) -> float:
  whole, inside = divmod(beat, 1.0)
  bent = inside * (0.5 + swing) / 0.5
  return whole + (bent if inside <= 0.5 else 1 - (1 - inside) * (0.5 - swing) / 0.5)


def swell(starts_s: list[float], channel: int) -> list[Event]:
  """Returns the expression controller's rise, from half to nearly full in 3 s, at each start."""
  return [
    (
      start_s + 0.12 * step,
      mido.Message("control_change", channel=channel, control=11, value=60 + 2 * step),
    )
    for start_s in starts_s
    for step in range(25)
  ]


def bend(notes: list[Timed], channel: int, rng: np.random.Generator) -> list[Event]:
  """Returns pitch bends of a lead: some notes start low and rise in 80 ms, some long ones sway."""
  events: list[Event] = []
  for start_s, end_s, _, _ in notes:
    length_s = end_s - start_s
    curve: list[tuple[float, float]] = []
    if length_s > 0.3 and rng.random() < 0.2:
      depth = rng.uniform(0.25, 1.0) * _BEND_SEMITONE
      curve += [(0.02 * step, -depth * (1 - step / 4)) for step in range(5)]
    if length_s > 0.8 and rng.random() < 0.5:
      after_s = np.arange(0.4, length_s - 0.05, 0.02)
      sway = 0.12 * _BEND_SEMITONE * np.sin(2 * np.pi * 5.5 * (after_s - 0.4))
      curve += list(zip(after_s.tolist(), sway.tolist(), strict=True))
    if curve:
      curve.append((length_s - 0.005, 0.0))
    for after, steps in curve:
      message = mido.Message("pitchwheel", channel=channel, pitch=round(steps))
      events.append((start_s + after, message))
  return events
