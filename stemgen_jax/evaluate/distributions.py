# SPDX-License-Identifier: Apache-2.0
"""How like real music whole sets of stems are: Fréchet and kernel distances, adherence, coherence.

The reference is true stems of the training songs, through the codec as all sets but `original` are.
`true` and `other` are both real stems of held-out songs: they say how near real music comes,
`chance` how far off noise is. What a set's stems have to do with their contexts is told by APA and
COCOLA alone.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from stemgen_jax.audio.files import Samples, convert_audio
from stemgen_jax.evaluate.examples import Example
from stemgen_jax.evaluate.measures import mean_of
from stemgen_jax.evaluate.metrics.coherence import cocola_scores, prompt_adherence
from stemgen_jax.evaluate.metrics.embeddings import Embedding
from stemgen_jax.evaluate.metrics.frechet import (
  build_kernel_distance,
  fit_gaussian,
  frechet_infinity,
  gaussian_distance,
)
from stemgen_jax.evaluate.metrics.intervals import bootstrap_set
from stemgen_jax.shell.folders import read_json, write_text

SUBSETS = 5  # the smallest set that `frechet_infinity` measures is a fifth

Parts = list[Float[np.ndarray, "_ D"]]  # the embeddings of each window


def embed_sets(
  examples: Sequence[Example],
  embedding: Embedding,
  mixed: bool,
  advance: Callable[[int], None] = lambda done: None,
) -> dict[str, Parts]:
  """Returns the embeddings of each window's stems by set; `mixed`: of each over its context."""
  found: dict[str, Parts] = {name: [] for name in examples[0].sets}
  for i, example in enumerate(examples):
    context, rate_hz = example.read("context")
    for name in found:
      samples, _ = example.read(name)
      found[name].append(embed(embedding, samples + context if mixed else samples, rate_hz))
    advance(i + 1)
  return found


def embed(embedding: Embedding, samples: Samples, rate_hz: int) -> Float[np.ndarray, "n D"]:
  """Returns the embeddings of audio of any rate and channels."""
  return embedding(convert_audio(samples, rate_hz, embedding.rate_hz, 1)[0])


def measure_quality(
  sets: dict[str, Parts], reference: Float[np.ndarray, "m D"], songs: Shaped[np.ndarray, " n"]
) -> list[dict[str, Any]]:
  """Returns FAD and KAD of each set to the reference, with their intervals over songs, and FAD-inf.

  FAD-inf is a line through smaller sets, straight only where the smallest, a fifth, has more
  embeddings than dimensions; with fewer it is None.
  """
  rows, far = [], fit_gaussian(reference)
  for name, parts in sets.items():
    whole = np.concatenate(parts)
    enough = len(whole) > SUBSETS * whole.shape[1]
    distance = resampled(
      lambda n, whole=whole: gaussian_distance(far, fit_gaussian(np.repeat(whole, n, axis=0))),
      parts,
      songs,
    )
    rows.append(
      {
        "set": name,
        "FAD": {key: max(x, 0.0) for key, x in distance.items()},
        "FAD-inf": frechet_infinity(reference, whole) if enough else None,
        "KAD": resampled(build_kernel_distance(reference, whole), parts, songs),
        "n": len(whole),
      }
    )
  return rows


def resampled(
  figure: Callable[[Int[np.ndarray, " m"]], float], parts: Parts, songs: Shaped[np.ndarray, " n"]
) -> dict[str, float]:
  """Returns a figure of how often each embedding counts, and its 95 % interval over songs."""
  sizes = [len(part) for part in parts]
  return bootstrap_set(lambda counts: figure(np.repeat(counts, sizes)), songs)


def measure_adherence(
  sets: dict[str, Parts], songs: Shaped[np.ndarray, " n"]
) -> list[dict[str, Any]]:
  """Returns APA of each set's mixes between true pairs (1) and pairs of two songs (0).

  The pairs are divided in halves: R and R' come from one half of the songs, what is judged from the
  other, so that the true pairs are not compared with themselves. By the Fréchet distance; the
  interval is over the songs judged. None where a half has fewer than two embeddings.
  """
  first = np.isin(songs, np.unique(songs)[::2])
  counts = np.array([len(part) for part in sets["true"]])
  if min(counts[first].sum(), counts[~first].sum()) < 2:
    none = {"mean": None, "low": None, "high": None}
    return [{"set": name, "APA": none} for name in sets]
  true, mismatched = (
    np.concatenate([part for part, there in zip(sets[name], first, strict=True) if there])
    for name in ("true", "other")
  )
  rows = []
  for name, parts in sets.items():
    judged = [part for part, there in zip(parts, first, strict=True) if not there]
    whole = np.concatenate(judged)
    found = resampled(
      lambda n, whole=whole: prompt_adherence(true, mismatched, np.repeat(whole, n, axis=0)),
      judged,
      songs[~first],
    )
    rows.append({"set": name, "APA": {k: float(np.clip(x, 0, 1)) for k, x in found.items()}})
  return rows


def find_telling(rows: Sequence[dict[str, Any]]) -> dict[str, bool]:
  """Returns whether true stems are surely better by each figure than its floor.

  The floor of FAD and KAD is chance, that of APA another song's stems.
  """
  of = {row["set"]: row for row in rows}
  low, high = of["true"]["APA"]["low"], of["other"]["APA"]["high"]
  return {
    "FAD": of["true"]["FAD"]["high"] < of["chance"]["FAD"]["low"],
    "KAD": of["true"]["KAD"]["high"] < of["chance"]["KAD"]["low"],
    "APA": low is not None and high is not None and low > high,
  }


def measure_coherence(
  examples: Sequence[Example], encoder: Embedding, matrix: Float[np.ndarray, "E E"]
) -> list[dict[str, Any]]:
  """Returns the mean COCOLA score of each set with its interval over songs."""
  songs = np.array([example.song for example in examples])
  scores: dict[str, list[float]] = {name: [] for name in examples[0].sets}
  for example in examples:
    heard = embed(encoder, *example.read("context"))
    for name in scores:
      scores[name].append(
        float(cocola_scores(embed(encoder, *example.read(name)), heard, matrix).mean())
      )
  return [{"set": name, **mean_of(np.array(found), songs)} for name, found in scores.items()]


def cached(path: Path, make: Callable[[], Any]) -> Any:
  """Returns what a JSON file holds, which `make` makes where it is missing."""
  if not path.is_file():
    write_text(path, json.dumps(make(), indent=1) + "\n")
  return read_json(path)
