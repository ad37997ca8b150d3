# SPDX-License-Identifier: Apache-2.0
"""How far a figure may be trusted: bootstrap over songs, whose windows are not independent."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int, Shaped

DRAWS = 2000
SLOW_DRAWS = 100  # of an interval whose figure takes long
EDGES = (0.025, 0.975)  # of a 95 % interval


def draw_songs(groups: Shaped[np.ndarray, " n"], draws: int = DRAWS) -> Int[np.ndarray, "draws n"]:
  """Returns how often each window counts in each draw of as many songs as there are.

  Args:
    groups: the song of each window, as its name or a number.
    draws: how often songs are drawn, with replacement; always the same draws.
  """
  songs, song_of = np.unique(groups, return_inverse=True)
  drawn = np.random.default_rng(0).integers(0, len(songs), (draws, len(songs)))
  counts = np.stack([np.bincount(row, minlength=len(songs)) for row in drawn])
  return counts[:, song_of]


def bootstrap(
  values: Float[np.ndarray, " n"], groups: Shaped[np.ndarray, " n"], draws: int = DRAWS
) -> tuple[float, float]:
  """Returns the 2.5 and 97.5 % points of the mean, when whole groups (songs) are drawn again.

  Args:
    values: what is averaged.
    groups: the song of each, as its name or a number; of one song only, both points are the mean.
    draws: how often as many songs as there are get drawn.
  """
  counts = draw_songs(groups, draws)
  low, high = np.quantile(counts @ values / counts.sum(axis=1), EDGES)
  return float(low), float(high)


def bootstrap_set(
  figure: Callable[[Int[np.ndarray, " n"]], float],
  groups: Shaped[np.ndarray, " n"],
  draws: int = SLOW_DRAWS,
) -> dict[str, float]:
  """Returns a figure of a whole set, with its 95 % interval over groups; see `interval_around`.

  Args:
    figure: of how often each member of the set counts.
    groups: the song of each member.
    draws: how often as many songs as there are get drawn.
  """
  value = figure(np.ones(len(groups), int))
  return interval_around(value, np.array([figure(row) for row in draw_songs(groups, draws)]))


def interval_around(value: float, drawn: Float[np.ndarray, " draws"]) -> dict[str, float]:
  """Returns a figure of a set as "mean", with the "low" and "high" end of its 95 % interval.

  A resample repeats songs, so it looks poorer than the set that it is drawn from: the interval is
  moved by the mean of that, and lies around the figure.
  """
  low, high = np.quantile(drawn, EDGES) - np.mean(drawn) + value
  return {"mean": float(value), "low": float(low), "high": float(high)}
