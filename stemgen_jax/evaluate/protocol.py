# SPDX-License-Identifier: Apache-2.0
"""The paper's protocol: populations of stems, and of stems over their contexts; none by pairs.

A window gives a context mix and the category of a stem that is not in it. What the model writes for
them goes into one population, the true stem of that category into the other. FAD compares the stems
alone, MIRDD the stems over their contexts.

Source: StemGen (PAPER.md) sections 3.1 and 3.2.
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stemgen_jax.evaluate.distributions import embed_sets, measure_coherence, measure_quality
from stemgen_jax.evaluate.examples import Example
from stemgen_jax.evaluate.measures import mean_of
from stemgen_jax.evaluate.metrics.descriptors import describe
from stemgen_jax.evaluate.metrics.embeddings import Embedding
from stemgen_jax.evaluate.metrics.fit import align
from stemgen_jax.evaluate.metrics.mirdd import count_bins, measure_floor, measure_mirdd
from stemgen_jax.evaluate.metrics.mix_bins import LEFT_OUT, describe_mix
from stemgen_jax.evaluate.page import distance_of
from stemgen_jax.pages.markdown import table
from stemgen_jax.shell.folders import write_text
from stemgen_jax.shell.lines import read_lines

TRUE, JUDGED = "true", ("model", "other")
PAPER = {"FAD (VGGish)": (3.12, 4.30), "MIRDD": (0.14, 0.43)}  # table 3, Slakh: best, naive

Advance = Callable[[str, int], Callable[[int], None]]


def measure_protocol(
  examples: Sequence[Example],
  embeddings: Sequence[Embedding],
  path: Path,
  track: Advance,
  cocola: tuple[Embedding, np.ndarray] | None = None,
) -> dict[str, Any]:
  """Returns the figures of the model's stems, and of stems of other songs, beside the true ones.

  Args:
    examples: the windows, generated already.
    embeddings: of FAD.
    path: a JSONL file of what was found in each window; what it holds is not measured again.
    track: gives a function that is told how many of a named task are done.
    cocola: its encoder and matrix, where they are given.

  Returns:
    "mirdd": for each set, see `mirdd.measure_mirdd`; "floor"; "fad": for each embedding and set;
    "beat_f" and "cocola" for the true stems too.
  """
  examples = [dataclasses.replace(example, sets=(TRUE, *JUDGED)) for example in examples]
  songs = np.array([example.song for example in examples])
  records = describe_windows(examples, path, track("descriptors", len(examples)))
  counts = {
    name: count_bins([record["mixes"][name] for record in records]) for name in (TRUE, *JUDGED)
  }
  found: dict[str, Any] = {
    "mirdd": {name: measure_mirdd(counts[TRUE], counts[name], songs) for name in JUDGED},
    "floor": measure_floor(counts[TRUE]),
    "beat_f": {
      name: mean_of(np.array([record["beat_f"][name] for record in records], float), songs)
      for name in (TRUE, *JUDGED)
    },
    "fad": {},
    "cocola": measure_coherence(examples, *cocola) if cocola else None,
  }
  for embedding in embeddings:
    step = track(f"{embedding.name}: stems", len(examples))
    parts = embed_sets(examples, embedding, False, step)
    true = np.concatenate(parts[TRUE])
    rows = measure_quality({name: parts[name] for name in JUDGED}, true, songs)
    found["fad"][embedding.name] = {row["set"]: row["FAD"] for row in rows}
  return found


def describe_windows(
  examples: Sequence[Example], path: Path, advance: Callable[[int], None] = lambda done: None
) -> list[dict[str, Any]]:
  """Returns for each window the bins of its mixes, and how its stems' beats meet the context's."""
  lines = read_lines(path, "--out") if path.is_file() else ()
  done = {record["id"]: record for _, record in lines}
  for i, example in enumerate(examples):
    if example.id not in done:
      context, rate_hz = example.read("context")
      heard = describe(context, rate_hz, pitch=False)
      record: dict[str, Any] = {"id": example.id, "mixes": {}, "beat_f": {}}
      for name in (TRUE, *JUDGED):
        stem, _ = example.read(name)
        record["mixes"][name] = describe_mix(stem + context, rate_hz)
        beat_f = align(describe(stem, rate_hz, pitch=False), heard)["beat_f"]
        record["beat_f"][name] = None if np.isnan(beat_f) else beat_f
      done[example.id] = record
      write_text(path, "".join(json.dumps(record) + "\n" for record in done.values()))
    advance(i + 1)
  return [done[example.id] for example in examples]


def tabulate_protocol(results: dict[str, Any]) -> str:
  """Returns the figures as Markdown tables."""
  found = results["protocol"]
  rows = []
  for name, sets in found["fad"].items():
    paper = PAPER["FAD (VGGish)"] if name == "vggish" else ("", "")
    rows.append([f"FAD-{name} ↓", "", *(distance_of(sets[s]) for s in JUDGED), *paper])
  for name, floor in found["floor"].items():
    label = f"{name} ↓" if name == "MIRDD" else f"of it, {name}"
    own = (distance_of(found["mirdd"][s][name]) for s in JUDGED)
    rows.append([label, f"{floor:.3f}", *own, *PAPER.get(name, ("", ""))])
  lines = table(
    ["figure", "floor", "model", "another song's", "the paper's best", "its naive"], rows
  )
  rows = [["Beat-F ↑", *(distance_of(found["beat_f"][s]) for s in (*JUDGED, TRUE))]]
  if found["cocola"]:
    of = {row["set"]: row for row in found["cocola"]}
    rows.append(["COCOLA ↑", *(distance_of(of[s]) for s in (*JUDGED, TRUE))])
  lines += ["", *table(["figure", "model", "another song's", "true"], rows)]
  left = "; ".join(f"{name} ({reason})" for name, reason in LEFT_OUT.items())
  lines += [
    "",
    f"{results['n']} windows of {results['seconds']:.1f} s from {results['songs']} songs, by the"
    " paper's protocol (sections 3.1 and 3.2). In brackets 95 % intervals over songs. The paper's"
    " figures are of another model, with other extractors: only their order compares. Floor: two"
    " random halves of the true mixes, and a perfect model may lie below it.",
    "",
    f"Descriptors of the paper that are left out: {left}.",
  ]
  return "\n".join(lines) + "\n"
