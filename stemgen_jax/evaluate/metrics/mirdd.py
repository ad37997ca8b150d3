# SPDX-License-Identifier: Apache-2.0
"""MIRDD, the distance of descriptors of music information retrieval, between two populations.

For each descriptor of `mix_bins`, with n_k and m_k how often the true and the other mixes fall into
its bin k of K, and c = PSEUDO_COUNT:

  p_k = (n_k + c) / (sum n + c K),  q_k = (m_k + c) / (sum m + c K)
  D = sum_k p_k ln(p_k / q_k), in nats: what is lost by taking the other mixes for the true ones
  MIRDD = the mean of D over the descriptors; 0 for populations that are alike, lower is better

Source: StemGen (PAPER.md) section 3.1, which states neither the direction of the
divergence nor bins nor smoothing: those are ours, and so are the extractors. So figures compare
with each other, and with the paper's in their order only. Figures of few mixes are too small, as
the pseudo-count then outweighs them: compare populations of one size.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int, Num, Shaped

from stemgen_jax.evaluate.metrics.intervals import DRAWS, draw_songs, interval_around
from stemgen_jax.evaluate.metrics.mix_bins import BINS

PSEUDO_COUNT = 0.5  # of every bin
SPLITS = 20  # of the true mixes into halves

Counts = dict[str, Int[np.ndarray, "n _"]]  # how often each mix falls into each bin


def count_bins(mixes: Sequence[Mapping[str, Sequence[int]]]) -> Counts:
  """Returns how often each mix, as `describe_mix` returns it, falls into each bin."""
  return {
    name: np.stack([np.bincount(np.array(mix[name], int), minlength=size) for mix in mixes])
    for name, size in BINS.items()
  }


def divergence(
  true: Num[np.ndarray, "*a K"], other: Num[np.ndarray, "*a K"]
) -> Float[np.ndarray, "*a"]:
  """Returns D, the divergence of two histograms in nats, over the last axis."""
  p, q = (
    (counts + PSEUDO_COUNT) / (counts.sum(axis=-1, keepdims=True) + PSEUDO_COUNT * counts.shape[-1])
    for counts in (true, other)
  )
  return np.asarray((p * np.log(p / q)).sum(axis=-1))


def measure_mirdd(true: Counts, other: Counts, songs: Shaped[np.ndarray, " n"]) -> dict:
  """Returns MIRDD and the D of each descriptor, each with its 95 % interval over songs.

  Args:
    true: of the true mixes.
    other: of the others, for the same windows in the same order.
    songs: of each window; a draw of songs takes the windows of both populations.

  Returns:
    "MIRDD", and each descriptor: "mean" (the figure itself), "low" and "high".
  """
  drawn = draw_songs(songs, DRAWS)
  whole = np.ones((1, len(songs)), int)
  found = {}
  for name in true:
    figures = [divergence(counts @ true[name], counts @ other[name]) for counts in (whole, drawn)]
    found[name] = (float(figures[0][0]), figures[1])
  mean = np.mean([value for value, _ in found.values()])
  means = np.mean([values for _, values in found.values()], axis=0)
  return {"MIRDD": _interval(float(mean), means)} | {
    name: _interval(value, values) for name, (value, values) in found.items()
  }


def measure_floor(true: Counts, splits: int = SPLITS) -> dict[str, float]:
  """Returns what MIRDD and each D are between random halves of the true mixes, on average.

  The halves hold half as many mixes as the populations that are compared, and share no window, as
  these do: where a stem is a small part of its mix, a figure may lie below this floor.
  """
  count = len(next(iter(true.values())))
  found: dict[str, list[float]] = {name: [] for name in true}
  for seed in range(splits):
    order = np.random.default_rng(seed).permutation(count)
    one, two = order[: count // 2], order[count // 2 : count // 2 * 2]
    for name, counts in true.items():
      found[name].append(float(divergence(counts[one].sum(axis=0), counts[two].sum(axis=0))))
  floors = {name: float(np.mean(values)) for name, values in found.items()}
  return {"MIRDD": float(np.mean(list(floors.values())))} | floors


def _interval(value: float, drawn: np.ndarray) -> dict[str, float]:
  """Returns the interval around a divergence, which cannot be negative."""
  found = interval_around(value, drawn)
  return found | {"low": max(0.0, found["low"])}
