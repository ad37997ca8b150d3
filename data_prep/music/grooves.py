# SPDX-License-Identifier: Apache-2.0
"""Drum grooves and fills as strings of sixteenths: `X` accent, `x` plain, `o` ghost, `.` rest.

Knows General MIDI's drum keys and nothing of harmony or tempo.
"""

import numpy as np

from data_prep.music.parts import Note

KICK, STICK, SNARE, CLAP, HAT, PEDAL, OPEN = 36, 37, 38, 39, 42, 44, 46
CRASH, RIDE, TAMBOURINE, COWBELL, SHAKER = 49, 51, 54, 56, 70
TOMS = (50, 48, 47, 45, 43, 41)
_VELOCITY = {"X": 112, "x": 90, "o": 52}

Groove = dict[int, str]

GROOVES_4: tuple[Groove, ...] = (
  {KICK: "X.......X.......", SNARE: "....X.......X...", HAT: "X.x.x.x.X.x.x.x."},
  {KICK: "X.....x.X.x.....", SNARE: "....X..o....X..o", HAT: "X.x.X.x.X.x.X.x."},
  {
    KICK: "X...X...X...X...",
    SNARE: "....X.......X...",
    HAT: "o.o.o.o.o.o.o.o.",
    OPEN: "..X...X...X...X.",
  },
  {KICK: "X..x..X.........", SNARE: "........X.......", HAT: "X.xoX.xoX.xoX.xo"},
  {KICK: "X..xX..xX..xX..x", STICK: "X..x..x...x..x..", HAT: "x.x.x.x.x.x.x.x."},
  {KICK: "X.X.......XX....", SNARE: "....X..o.o..X...", RIDE: "X.x.X.x.X.x.X.x."},
  {KICK: "X.......X.......", SNARE: "oxoxXxoxoxoxXxox", PEDAL: "....x.......x..."},
  {KICK: "X.........X.....", SNARE: "....X.......X...", HAT: "XoxoXoxoXoxoXoxo"},
  {KICK: "X..X..X...X.X...", CLAP: "....X.......X...", SHAKER: "xoXoxoXoxoXoxoXo"},
  {KICK: "X...X...X...X...", SNARE: "X...X...X...X...", TAMBOURINE: "..X...X...X...X."},
  {KICK: "X......x..X.....", STICK: "....X.......X...", RIDE: "X..xX..xX..xX..x"},
  {
    KICK: "X.....X.....X...",
    SNARE: "....X.......X..o",
    COWBELL: "X...x...X...x...",
    HAT: "x.x.x.x.x.x.x.x.",
  },
)
GROOVES_3: tuple[Groove, ...] = (
  {KICK: "X...........", SNARE: "....x...x...", HAT: "X.x.x.x.x.x."},
  {KICK: "X.....x.....", SNARE: "........X...", RIDE: "X...X.x.X..."},
  {KICK: "X.......x...", STICK: "....X...X...", HAT: "X.x.X.x.X.x."},
  {KICK: "X..x..x.....", SNARE: "......X.....", HAT: "X.xoX.xoX.xo"},
  {KICK: "X.....X.....", SNARE: "...x.....X..", SHAKER: "XoxXoxXoxXox"},
)
# The last beats before a new section; each string is sixteenths, the digit the tom.
_FILLS = (
  "sss.",
  "s1s2",
  "ss11",
  "1.2.3.4.",
  "s.ss1.22",
  "ssss1122",
  "s..s..s.",
  "k.s.k.s.",
  "1122334455ss",
  "s.s.1.1.2.2.4.5.",
  "ssssssss11224455",
)


def draw_grooves(bar_beats: int, rng: np.random.Generator) -> tuple[Groove, Groove]:
  """Returns two different grooves for bars of 3 or 4 beats: the verse's and the refrain's."""
  choices = {3: GROOVES_3, 4: GROOVES_4}[bar_beats]
  first, second = rng.choice(len(choices), size=2, replace=False)
  return choices[first], choices[second]


def play_bar(
  groove: Groove, start: int, rng: np.random.Generator, crash: bool, vary: float = 0.15
) -> list[Note]:
  """Returns one bar of a groove.

  Args:
    start: the bar's first beat.
    crash: whether a cymbal marks the first beat.
    vary: chance that the bar gets one more ghost stroke of the kick or snare.
  """
  notes = [
    _strike(start + step / 4, key, _VELOCITY[mark])
    for key, line in groove.items()
    for step, mark in enumerate(line)
    if mark != "."
  ]
  if crash:
    notes.append(_strike(start, CRASH, 104))
  if rng.random() < vary:
    step = int(rng.integers(1, len(groove[KICK])))
    notes.append(_strike(start + step / 4, KICK if step % 2 == 0 else SNARE, 56))
  return notes


def draw_fill(bar_beats: int, rng: np.random.Generator) -> str:
  """Returns a fill that leaves at least the first beat of the bar to the groove."""
  fits = [fill for fill in _FILLS if len(fill) <= 4 * (bar_beats - 1)]
  return fits[int(rng.integers(len(fits)))]


def play_fill(fill: str, end: int) -> list[Note]:
  """Returns a fill that ends at beat `end`, growing louder."""
  start = end - len(fill) / 4
  keys = {"s": SNARE, "k": KICK} | {str(n): tom for n, tom in enumerate(TOMS)}
  return [
    _strike(start + step / 4, keys[mark], 78 + 36 * step // len(fill))
    for step, mark in enumerate(fill)
    if mark != "."
  ]


def play_end(beat: int) -> list[Note]:
  """Returns the song's last stroke: cymbal and kick together."""
  return [_strike(beat, CRASH, 112), _strike(beat, KICK, 108)]


def _strike(beat: float, key: int, velocity: int) -> Note:
  return Note(beat=beat, length=0.2, pitch=key, velocity=velocity)
