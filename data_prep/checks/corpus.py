# SPDX-License-Identifier: Apache-2.0
"""What a corpus holds: songs, hours, instruments, audio formats, and what is wrong with it.

Reads metadata and the headers of audio files, never their samples.
"""

import dataclasses
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console

from data_prep.checks.tables import list_problems, make_table
from data_prep.corpora import CORPORA, open_corpus
from data_prep.corpora.stem_audio import measure_stem
from data_prep.corpora.types import SPLITS, Corpus, Problem, Stem, Track
from stemgen_jax.errors import UserError
from stemgen_jax.shell.folders import keep_what_is_read, make_folder, refuse_folder, write_text
from stemgen_jax.shell.progress import make_bars, make_console, say

UNREADABLE = 3  # exit code: some audio cannot be read
UNKNOWN = "unknown"
HEADERS_ONLY = (
  "Only headers were read: stems that are cut, or hold NaN, are mostly found by data_prep.tokenize."
)


@dataclasses.dataclass(frozen=True)
class Measured:
  """A stem and what its headers say, or why they cannot be read."""

  track: Track
  stem: Stem
  seconds: float = 0.0
  rate_hz: int = 0
  channels: int = 0
  error: str | None = None


def inspect_corpus(
  root: str | os.PathLike,
  name: str,
  categories: str | os.PathLike | None = None,
  json_path: str | os.PathLike | None = None,
  *,
  show_all: bool = False,
) -> int:
  """Prints what a corpus holds, and returns the exit code: 0, or 3 if audio cannot be read.

  Args:
    root: its folder.
    name: as `open_corpus` takes it.
    categories: a table of categories in place of the built-in one.
    json_path: where the same goes as data.
    show_all: whether to list each problem.

  Raises:
    UserError: if the corpus cannot be read at all, or the file not be written.
  """
  if json_path:
    refuse_folder(Path(json_path), "--json")
  corpus = open_corpus(name, root, categories)
  tracks = corpus.tracks()
  report = describe(corpus, root, list(measure(tracks)))
  if json_path:
    files = [*Path(root).rglob("*"), *([Path(categories)] if categories else [])]
    keep_what_is_read({str(path): path for path in files}, [Path(json_path)])
    make_folder(Path(json_path).absolute().parent, "--json")
    write_text(Path(json_path), json.dumps(report, indent=2) + "\n")
  show(report, make_console(), show_all)
  return UNREADABLE if report["unreadable"] else 0


def measure(tracks: Sequence[Track], threads: int = 8) -> Iterator[Measured]:
  """Yields all stems of some songs, in order, under a progress bar on stderr."""
  stems = [(track, stem) for track in tracks for stem in track.stems]
  with (
    ThreadPoolExecutor(threads, "measure") as pool,
    make_bars(kept=False) as bars,
  ):
    found = pool.map(_measure_one, stems)
    yield from bars.track(found, total=len(stems), description="reading headers")


def _measure_one(pair: tuple[Track, Stem]) -> Measured:
  try:
    return Measured(*pair, *measure_stem(pair[1]))
  except UserError as error:
    return Measured(*pair, error=str(error))


def describe(corpus: Corpus, root: str | os.PathLike, stems: Sequence[Measured]) -> dict[str, Any]:
  """Returns the report as data; hours of songs count the longest stem, hours of stems each."""
  good = [stem for stem in stems if stem.error is None]
  bad = [stem for stem in stems if stem.error is not None]
  formats = Counter((stem.rate_hz, stem.channels) for stem in good)
  kinds = Counter(problem.what.partition(":")[0] for problem in corpus.problems)
  return {
    "root": str(root),
    "corpus": corpus.name,
    "layout": CORPORA[corpus.name].layout,
    "splits": {
      split: _sum_up([stem for stem in good if stem.track.split == split]) for split in SPLITS
    },
    "conditions": {
      source: _sum_values(good, source, (*values, UNKNOWN))
      for source, values in corpus.sources.items()
    },
    "audio": [
      {"rate_hz": rate_hz, "channels": channels, "stems": count}
      for (rate_hz, channels), count in formats.most_common()
    ],
    "problem_kinds": dict(kinds.most_common()),
    "problems": [dataclasses.asdict(problem) for problem in corpus.problems],
    "unreadable": [
      dataclasses.asdict(
        Problem(f"{stem.track.split}/{stem.track.id}/{stem.stem.name}", stem.error or "")
      )
      for stem in bad
    ],
  }


def _sum_values(
  stems: Sequence[Measured], source: str, values: Sequence[str]
) -> dict[str, dict[str, Any]]:
  """Returns the sums for each value of a condition that occurs."""
  groups = defaultdict(list)
  for stem in stems:
    conditions = {**stem.track.conditions, **stem.stem.conditions}
    groups[conditions.get(source, UNKNOWN)].append(stem)
  return {value: _sum_up(groups[value]) for value in values if groups[value]}


def _sum_up(stems: Sequence[Measured]) -> dict[str, Any]:
  songs: dict[tuple[str, str], float] = {}
  for stem in stems:
    key = stem.track.split, stem.track.id
    songs[key] = max(songs.get(key, 0.0), stem.seconds)
  return {
    "songs": len(songs),
    "hours": sum(songs.values()) / 3600,
    "stems": len(stems),
    "stem_hours": sum(stem.seconds for stem in stems) / 3600,
    "unknown_stems": sum(stem.stem.category is None for stem in stems),
  }


def show(report: Mapping[str, Any], console: Console, show_all: bool) -> None:
  """Prints a report as tables, then its problems."""
  say(console, f"{report['root']}: {report['corpus']}, {report['layout']}")
  table = make_table("split", "songs", "hours", "stems", "of unknown instrument")
  for split, row in report["splits"].items():
    numbers = (row["songs"], f"{row['hours']:.2f}", row["stems"], row["unknown_stems"])
    table.add_row(split, *map(str, numbers))
  console.print(table)
  for source, values in report["conditions"].items():
    table = make_table(source, "songs", "stems", "hours of stems")
    for value, row in values.items():
      table.add_row(value, str(row["songs"]), str(row["stems"]), f"{row['stem_hours']:.2f}")
    console.print(table)
  table = make_table("audio", "channels", "stems")
  for row in report["audio"]:
    table.add_row(f"{row['rate_hz']} Hz", str(row["channels"]), str(row["stems"]))
  console.print(table)
  say(console, HEADERS_ONLY)
  if report["problem_kinds"]:
    table = make_table("problems", "count")
    for kind, count in report["problem_kinds"].items():
      table.add_row(kind, str(count))
    console.print(table)
  list_problems(console, report["problems"], show_all)
  if report["unreadable"]:
    say(console, f"\nstems that cannot be read: {len(report['unreadable'])}")
    list_problems(console, report["unreadable"], show_all)
