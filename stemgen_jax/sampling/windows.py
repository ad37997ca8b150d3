# SPDX-License-Identifier: Apache-2.0
"""Stems of any length: windows that slide over the context, and one more over a loop's seam.

Knows neither the model nor audio: a window goes to a function that fills its hidden tokens.
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from stemgen_jax.types import Bool, Int

Fill = Callable[
  [Int[np.ndarray, "B w Q"], Int[np.ndarray, "B w Q"], Bool[np.ndarray, "B w Q"], int, int],
  Int[np.ndarray, "B w Q"],
]
"""(context, given, known, number of the window, wrap) -> tokens: `given` where `known`.

A window that wraps is a whole loop, of which some frames are shown again at either end.
"""


@dataclasses.dataclass(frozen=True)
class Window:
  """Frames [start, start + size), of which those up to `settled` are written once it is filled.

  In a loop frames are counted round: frame T is frame 0.
  """

  start: int
  size: int
  settled: int


def plan_windows(frames: int, most: int) -> list[Window]:
  """Windows of at most `most` frames that overlap by half and cover all; the last ends at the end.

  A window settles its first three quarters: whatever is written has heard a quarter of a window of
  what comes after it, and the next window hears a quarter of what is written.
  """
  size = min(frames, most)
  starts = sorted({*range(0, max(1, frames - size + 1), max(1, size // 2)), frames - size})
  last = starts[-1]
  return [Window(s, size, frames if s == last else s + size - size // 4) for s in starts]


def plan_wrap(frames: int, most: int) -> int:
  """How many frames of a loop to show again at either end, so that its seam is no seam.

  0 if the window has hardly room for more than the loop itself.
  """
  room = min(frames // 2, (most - frames) // 2)
  return room if room >= max(1, most // 16) else 0


def plan_seam(frames: int, most: int) -> tuple[Window, int]:
  """The window whose middle is a loop's seam, and how many frames to write anew on either side.

  No more than a quarter of the loop or an eighth of the window is written anew.
  """
  size = min(frames, most)
  return Window(frames - size // 2, size, frames), min(frames // 4, max(1, size // 8))


def fill_windows(
  fill: Fill,
  context: Int[np.ndarray, "B T Q"],
  given: Int[np.ndarray, "B T Q"],
  known: Bool[np.ndarray, "B T Q"],
  most: int,
  loop: bool,
) -> Iterator[tuple[int, int, Int[np.ndarray, "B T Q"]]]:
  """Yields (windows done, windows in all, tokens so far), the last time with all tokens.

  Tokens given stay as they are, and so does what a window has settled. A window without anything to
  write is passed over.

  Args:
    fill: fills one window.
    context: codes of the context mixes.
    given: tokens of the stems to keep; read only where `known`.
    known: True where a token is given.
    most: frames of a window, at most: the training window.
    loop: the end is followed by the start, in the context and in the stems: a loop that leaves room
      in a window is shown round, of a longer one the seam is written anew at the end.
  """
  frames = context.shape[1]
  tokens, done = np.where(known, given, 0).astype(np.int32), known.copy()
  windows = plan_windows(frames, most)
  wrap = plan_wrap(frames, most) if loop else 0
  loop = loop and not wrap
  total = len(windows) + loop

  def write(number: int, window: Window, hidden: Bool[np.ndarray, "B T Q"]) -> None:
    at = np.arange(window.start, window.start + window.size) % frames
    if hidden[:, at].any():
      filled = fill(context[:, at], tokens[:, at], ~hidden[:, at], number, wrap)
      kept = at[: window.settled - window.start]
      tokens[:, kept] = filled[:, : len(kept)]
      done[:, kept] = True

  for number, window in enumerate(windows):
    write(number, window, ~done)
    yield number + 1, total, tokens
  if loop:
    window, reach = plan_seam(frames, most)
    near = np.arange(-reach, reach) % frames
    hidden = np.zeros_like(known)
    hidden[:, near] = ~known[:, near]
    write(len(windows), dataclasses.replace(window, settled=window.start + window.size), hidden)
    yield total, total, tokens
