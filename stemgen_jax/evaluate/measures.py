# SPDX-License-Identifier: Apache-2.0
"""What is measured of each window, and how its sets compare: floor, model, ceiling.

Figures of single stems; those of whole sets, as FAD, are `distributions`'.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from stemgen_jax.audio.loudness import measure_lufs
from stemgen_jax.audio.silence import STEM_LUFS
from stemgen_jax.errors import UserError
from stemgen_jax.evaluate.examples import Example
from stemgen_jax.evaluate.metrics.descriptors import Descriptors, describe
from stemgen_jax.evaluate.metrics.fit import WEIGHTS, align, distances, mean_fit
from stemgen_jax.evaluate.metrics.haze import measure_flatness, measure_haze
from stemgen_jax.evaluate.metrics.intervals import EDGES, draw_songs
from stemgen_jax.sampling.stemgen import StemGen
from stemgen_jax.shell.folders import write_text

LEAST_SONGS = 5  # behind an interval
HARMONY = ("key", "chords", "consonance", "chord_changes")
RHYTHM = tuple(name for name in WEIGHTS if name not in HARMONY)
WITH_CODES = ("true", "model", "other", "chance")  # a shifted stem has no codes of its own


@dataclasses.dataclass(frozen=True)
class Metric:
  """A figure of one stem: which way is better, and what it is held against.

  `floor` is the set that does worst where the ceiling does best, if the figure tells anything.
  """

  name: str
  higher: bool
  floor: str = "other"


METRICS = (
  Metric("fit", False),
  Metric("harmony", False),
  Metric("rhythm", False, "shifted"),
  *(Metric(name, False) for name in HARMONY),
  *(Metric(name, False, "other" if name == "pulse" else "shifted") for name in RHYTHM),
  Metric("beat_f", True, "shifted"),
  Metric("onset_precision", True, "shifted"),
  Metric("onset_offset_ms", False, "shifted"),
  Metric("listening_score", True),
  Metric("category", True, "chance"),
  Metric("sounds", True, "chance"),
  Metric("pitched", True, "chance"),
  Metric("haze_db", False, "chance"),
  Metric("flatness", False, "chance"),
)


def measure_examples(
  model: StemGen,
  examples: Sequence[Example],
  classify: Callable[[Example, str], str],
  path: Path,
  advance: Callable[[int], None] = lambda done: None,
) -> list[dict[str, Any]]:
  """Returns one record a window; what `path`, a JSONL file, holds is not measured again.

  A record without one of the METRICS, as an older version wrote it, is measured anew.

  A record has the window's id, "sets": name of a set to the METRICS of its stem (null where one
  does not apply), and "gain": for each level, loss with another song's context less that with its
  own, nats a token.
  """
  lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
  try:
    done = {
      record["id"]: record
      for record in map(json.loads, lines)
      if {metric.name for metric in METRICS} <= record["sets"]["true"].keys()
    }
  except (ValueError, TypeError, KeyError) as error:
    raise UserError(
      f"{path} must hold a record a line; got {error!r}. Remove it, and it is made anew."
    ) from error
  for i, example in enumerate(examples):
    if example.id not in done:
      done[example.id] = measure(model, example, classify)
      write_text(path, "".join(json.dumps(record) + "\n" for record in done.values()))
    advance(i + 1)
  return [done[example.id] for example in examples]


def measure(
  model: StemGen, example: Example, classify: Callable[[Example, str], str]
) -> dict[str, Any]:
  """Returns the record of one window; see `measure_examples`."""
  codes, conditions = example.codes(), np.array([example.conditions], np.int32)
  heard = describe(*example.read("context"))
  sets = {}
  for name in example.sets:
    samples, rate_hz = example.read(name)
    found = compare(describe(samples, rate_hz), heard)
    found["sounds"] = float(measure_lufs(samples, rate_hz) > STEM_LUFS)
    found["haze_db"] = measure_haze(samples, rate_hz)
    found["flatness"] = measure_flatness(samples, rate_hz)
    found["category"] = float(classify(example, name) == example.category)
    if name in WITH_CODES:
      (score,) = model.score(codes["context"][None], codes[name][None], conditions)
      found["listening_score"] = float(score)
    sets[name] = found
  for found in sets.values():
    found["pitched"] = find_pitched(found, sets["true"])
  gain = [
    float(
      np.diff(
        [
          model.nll(codes[context][None], codes["true"][None], conditions, level)[0]
          for context in ("context", "foreign")
        ]
      )[0]
    )
    for level in range(codes["true"].shape[1])
  ]
  return {
    "id": example.id,
    "song": example.song,
    "category": example.category,
    "sets": {
      name: {k: None if math.isnan(v) else v for k, v in found.items()}
      for name, found in sets.items()
    },
    "gain": gain,
  }


def find_pitched(stem: dict[str, float], true: dict[str, float]) -> float:
  """Returns 1 if harmony applies to a stem, else 0; NaN where it does not to the true one."""
  return math.nan if math.isnan(true["harmony"]) else float(not math.isnan(stem["harmony"]))


def compare(stem: Descriptors, context: Descriptors) -> dict[str, float]:
  """Returns how a stem fits its context: distances, their means by family and of all, alignment."""
  found = distances(stem, context)
  parts = {
    name: {key: found[key] for key in keys}
    for name, keys in (("harmony", HARMONY), ("rhythm", RHYTHM))
  }
  aligned = align(stem, context)
  aligned["onset_offset_ms"] = abs(aligned["onset_offset_ms"])
  means = {name: mean_fit(part) for name, part in parts.items()}
  return {**found, **means, "fit": mean_fit(found), **aligned}


def summarise(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
  """Returns a row a metric: every set's mean with its interval, and how far floor and ceiling part.

  `separation` is how much better the true stems are than the floor's, window by window; a metric
  `tells` if its 95 % interval over songs lies above 0, and `few` says that songs are too few.
  `way` is how far from the floor (0) to the ceiling (1) the model comes, over the windows where all
  three have a figure.
  """
  songs = np.array([record["song"] for record in records])
  rows = []
  for metric in METRICS:
    values = {
      name: np.array([record["sets"][name].get(metric.name) for record in records], float)
      for name in records[0]["sets"]
    }
    sign = 1.0 if metric.higher else -1.0
    true, floor = values["true"], values[metric.floor]
    apart = mean_of(sign * (true - floor), songs)
    low = apart["low"]
    few = is_few(songs[~np.isnan(true - floor)])
    rows.append(
      {
        **dataclasses.asdict(metric),
        "sets": {name: mean_of(found, songs) for name, found in values.items()},
        "separation": apart,
        "few": few,
        "tells": bool(not few and low is not None and low > 0),
        "way": way_of(values["model"], floor, true, songs),
      }
    )
  return rows


def summarise_gain(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
  """Returns the listening gain of each level, nats a token, with its interval."""
  songs = np.array([record["song"] for record in records])
  levels = np.array([record["gain"] for record in records]).T
  return [{"level": q, **mean_of(values, songs)} for q, values in enumerate(levels, start=1)]


def mean_of(
  values: Float[np.ndarray, " n"], songs: Shaped[np.ndarray, " n"]
) -> dict[str, float | int | None]:
  """Returns mean, 95 % interval over songs and count of the values that are there."""
  there = ~np.isnan(values)
  if not there.any():
    return {"mean": None, "low": None, "high": None, "n": 0}
  counts = draw_songs(songs[there])
  low, high = np.quantile(counts @ values[there] / counts.sum(axis=1), EDGES)
  return {
    "mean": float(values[there].mean()),
    "low": float(low),
    "high": float(high),
    "n": int(there.sum()),
  }


def is_few(songs: Shaped[np.ndarray, " n"]) -> bool:
  """Returns whether windows are of too few songs for an interval over songs to mean anything."""
  return len(np.unique(songs)) < LEAST_SONGS


def way_of(
  model: Float[np.ndarray, " n"],
  floor: Float[np.ndarray, " n"],
  ceiling: Float[np.ndarray, " n"],
  songs: Shaped[np.ndarray, " n"],
) -> dict[str, float | int | None]:
  """Returns (mean model - mean floor) / (mean ceiling - mean floor), with its interval.

  None of both where the songs are few.
  """
  there = ~np.isnan(model + floor + ceiling)
  if is_few(songs[there]):
    return {"mean": None, "low": None, "high": None, "n": 0}
  model, floor, ceiling = model[there], floor[there], ceiling[there]
  counts = draw_songs(songs[there])
  with np.errstate(divide="ignore", invalid="ignore"):
    share = float(np.sum(model - floor) / np.sum(ceiling - floor))
    shares = counts @ (model - floor) / (counts @ (ceiling - floor))
  low, high = np.quantile(np.nan_to_num(shares), EDGES)
  return {
    "mean": share if math.isfinite(share) else None,
    "low": float(low),
    "high": float(high),
    "n": int(there.sum()),
  }
