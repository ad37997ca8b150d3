# SPDX-License-Identifier: Apache-2.0
"""Checks a token dataset record by record, says what it holds, and writes a page of it."""

import dataclasses
import functools
import json
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from data_prep.checks.duplicates import SAME, choose_limit, find_alike, hash_shingles
from data_prep.checks.rules import ClipChecks, check_file, read_checked
from data_prep.checks.statistics import ACTIVE_DB, Statistics
from data_prep.checks.tables import list_problems, make_table
from data_prep.corpora.types import Problem
from data_prep.tokens.engines import run_pool
from stemgen_jax.codec.bundle import load_bundle
from stemgen_jax.data.clips import Metadata
from stemgen_jax.data.records import Dataset
from stemgen_jax.data.shards import Shard
from stemgen_jax.errors import UserError
from stemgen_jax.shell.folders import keep_what_is_read, make_folder, refuse_folder, write_text
from stemgen_jax.shell.progress import make_bars, make_console, say

LEAKED = 3  # exit code: the same music is in two splits
USED_LEAST, COMMONEST_MOST = 0.01, 0.5  # of a level's codes; beyond these it has collapsed


@dataclasses.dataclass
class ShardReport:
  """What one shard came to.

  Attributes:
    damage: why it cannot be trusted; None if it can.
    songs: (split, song) -> its (clip, start_frame) in order.
    hashes: (split, song) -> its shingles (see `duplicates`).
  """

  damage: Problem | None
  problems: list[Problem]
  statistics: Statistics
  songs: dict[tuple[str, str], list[tuple[int, int]]]
  hashes: dict[tuple[str, str], np.ndarray]


class ShardInspector:
  """Inspects one shard after the other."""

  def __init__(self, directory: Path, metadata: Metadata, hash_limit: int):
    self._directory, self._metadata, self._hash_limit = directory, metadata, hash_limit
    self._checks = ClipChecks()

  def __call__(self, item: tuple[str, Shard]) -> ShardReport:
    """Returns the report of a split's shard."""
    split, shard = item
    path = self._directory / shard.file
    report = ShardReport(None, [], Statistics(self._metadata), defaultdict(list), {})
    if why := check_file(path, shard):
      report.damage = Problem(shard.file, why)
      return report
    hashes = defaultdict(list)
    try:
      for clip in read_checked(path, shard, self._metadata):
        report.statistics.add(split, clip)
        report.songs[split, clip.song].append((clip.clip, clip.start_frame))
        hashes[split, clip.song] += [
          hash_shingles(codes, self._hash_limit) for codes in clip.stem_codes
        ]
        where = f"{split}/{clip.song}, clip {clip.clip}"
        for kind, detail in self._checks.find(clip, ACTIVE_DB):
          report.problems.append(Problem(where, f"{kind}: {detail}"))
    except UserError as error:
      report.damage = Problem(shard.file, str(error))
    report.hashes = {song: np.unique(np.concatenate(parts)) for song, parts in hashes.items()}
    return report


def inspect_dataset(
  path: str | os.PathLike,
  codec: str | os.PathLike | None = None,
  json_path: str | os.PathLike | None = None,
  page: str | os.PathLike | None = None,
  *,
  show_all: bool = False,
) -> int:
  """Checks a dataset, prints what it holds and returns the exit code: 3 for a leak, else 0.

  Args:
    path: as `Dataset.open` takes it.
    codec: a bundle that must be the one that made the codes.
    json_path: where the same goes as data.
    page: where the page goes; by default `inspect.html` beside the dataset's version folder.
    show_all: whether to print each problem.

  Raises:
    UserError: if the dataset is of another schema or codec, or any shard is damaged; all damaged
      ones are printed first.
  """
  dataset = Dataset.open(path, check_files=False)
  if codec and (found := load_bundle(codec).fingerprint) != dataset.metadata.codec_fingerprint:
    raise UserError(
      f"codec must be the one that made the shards; got {codec} of fingerprint {found[:12]}, the"
      f" shards' is {dataset.metadata.codec_fingerprint[:12]}. Give another, or tokenise again."
    )
  page = Path(page or dataset.path.parent / "inspect.html")
  written = [page, Path(json_path)] if json_path else [page]
  for file in written:
    refuse_folder(file, "what is written")
  keep_what_is_read({str(file): file for file in dataset.path.rglob("*")}, written)
  items = [(split, shard) for split, shards in dataset.shards.items() for shard in shards]
  reports = _inspect_all(dataset, items)
  report = describe(dataset, reports)
  console = make_console()
  show(report, console, show_all)
  if json_path:
    make_folder(Path(json_path).absolute().parent, "--json")
    write_text(Path(json_path), json.dumps(report, indent=1) + "\n")
  make_folder(page.absolute().parent, "--page")
  from data_prep.checks.page import render_page  # matplotlib takes a second to load

  write_text(page, render_page(report))
  say(console, f"page: {page}")
  if report["damage"]:
    files = ", ".join(problem["where"] for problem in report["damage"])
    raise UserError(
      f"shards must be whole; got {len(report['damage'])} damaged of {len(items)} in"
      f" {dataset.path}: {files}. Copy or tokenise them again."
    )
  return LEAKED if report["leaks"] else 0


def _inspect_all(dataset: Dataset, items: Sequence[tuple[str, Shard]]) -> list[ShardReport]:
  """Returns the shards' reports in order, made under a progress bar on stderr."""
  reports: dict[int, ShardReport] = {}
  frames = sum(int(np.dot(shard.stems, shard.frames)) for _, shard in items)
  limit = choose_limit(frames)
  make_worker = functools.partial(ShardInspector, dataset.path, dataset.metadata, limit)
  workers = min(os.cpu_count() or 1, len(items)) if len(items) > 4 else 1
  with make_bars(kept=False) as bars:
    task = bars.add_task("checking shards", total=len(items))
    for index, report in run_pool(make_worker, items, workers):
      reports[index] = report
      bars.advance(task)
  return [reports[index] for index in range(len(items))]


def describe(dataset: Dataset, reports: Sequence[ShardReport]) -> dict[str, Any]:
  """Returns all that is known of the dataset as JSON data."""
  metadata = dataset.metadata
  statistics = Statistics(metadata)
  problems: list[Problem] = []
  songs: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
  hashes: dict[tuple[str, str], np.ndarray] = {}
  for report in reports:
    statistics.merge(report.statistics)
    problems += report.problems
    for song, clips in report.songs.items():
      songs[song] += clips
    for song, found in report.hashes.items():
      hashes[song] = np.union1d(hashes[song], found) if song in hashes else found
  problems += check_songs(songs)
  use = statistics.code_use()
  problems += [
    Problem(f"level {q}", f"codes: {used:.2%} of the codes occur, the commonest at {top:.0%}")
    for q, (used, _, top) in enumerate(use, start=1)
    if used < USED_LEAST or top > COMMONEST_MOST
  ]
  leaks, repeats = find_repeats(hashes)
  hour = 3600 * metadata.frame_rate_hz
  kinds = Counter(p.what.partition(":")[0] for p in (*leaks, *repeats, *problems))
  problems = sorted([*repeats, *problems], key=lambda p: kinds[p.what.partition(":")[0]])
  by_category = statistics.by_category(statistics.stem_frames)
  return {
    "path": str(dataset.path),
    "codec": metadata.codec_fingerprint,
    "n_codes": metadata.n_codes,
    "sample_rate_hz": metadata.sample_rate_hz,
    "frame_rate_hz": metadata.frame_rate_hz,
    "channels": metadata.channels,
    "clip_s": metadata.clip_s,
    "settings": metadata.settings,
    "shards": len(reports),
    "source": statistics.source,
    "splits": {
      split: {
        "songs": sum(key[0] == split for key in statistics.song_frames),
        "clips": clips,
        "hours": sum(n for key, n in statistics.song_frames.items() if key[0] == split) / hour,
        "stems": sum(n for key, n in statistics.stems.items() if key[0] == split),
      }
      for split, clips in statistics.clips.items()
    },
    "category_hours": {
      name: {split: frames / hour for split, frames in row.items()}
      for name, row in by_category.items()
    },
    "category_stems": statistics.by_category(statistics.stems),
    "levels": {name: statistics.levels[name].tolist() for name in by_category},
    "activity": {name: statistics.activity[name].tolist() for name in by_category},
    "mix_sizes": {str(size): n for size, n in sorted(statistics.mix_sizes.items())},
    "code_use": [{"used": used, "perplexity": p, "commonest": top} for used, p, top in use],
    "code_counts": [np.sort(counts)[::-1].tolist() for counts in statistics.codes],
    "damage": _as_data([r.damage for r in reports if r.damage]),
    "leaks": _as_data(leaks),
    "problem_kinds": dict(kinds.most_common()),
    "problems": _as_data(problems),  # rare kinds first
  }


def _as_data(problems: Sequence[Problem]) -> list[dict[str, str]]:
  return [dataclasses.asdict(problem) for problem in problems]


def check_songs(songs: Mapping[tuple[str, str], list[tuple[int, int]]]) -> list[Problem]:
  """Returns songs whose clips are not numbered from 0, or do not follow each other."""
  problems = []
  for (split, song), clips in songs.items():
    numbers, starts = zip(*clips, strict=True)
    if list(numbers) != list(range(len(numbers))) or list(starts) != sorted(set(starts)):
      what = f"clips: numbered {list(numbers)}, from frames {list(starts)}"
      problems.append(Problem(f"{split}/{song}", what))
  return problems


def find_repeats(
  hashes: Mapping[tuple[str, str], np.ndarray],
) -> tuple[list[Problem], list[Problem]]:
  """Returns the songs that share music or a name across splits, and those that do within one.

  The latter hold too what is alike by less than is sure.
  """
  keys, leaks, repeats = list(hashes), [], []
  splits = defaultdict(list)
  for split, song in keys:
    splits[song].append(split)
  for song, found in splits.items():
    if len(found) > 1:
      leaks.append(Problem(song, f"leak: a song of this name is in {' and '.join(found)}"))
  for pair in find_alike([hashes[key] for key in keys]):
    (split, song), (other_split, other) = keys[pair.first], keys[pair.second]
    what = f"shares {pair.share:.0%} of its rare codes with {other_split}/{other}"
    if pair.share < SAME:
      repeats.append(Problem(f"{split}/{song}", f"alike: {what}"))
    elif split == other_split:
      repeats.append(Problem(f"{split}/{song}", f"repeat: {what}"))
    else:
      leaks.append(Problem(f"{split}/{song}", f"leak: {what}"))
  return leaks, repeats


def show(report: Mapping[str, Any], console: Console, show_all: bool) -> None:
  """Prints the report as tables, then what is wrong."""
  say(
    console,
    f"{report['path']}: {len(report['code_use'])} levels of {report['n_codes']} codes,"
    f" {report['frame_rate_hz']:g} frames/s of {report['sample_rate_hz']} Hz audio,"
    f" {report['channels']} channels, {report['shards']} shards, codec {report['codec'][:12]}",
  )
  table = make_table("split", "songs", "clips", "hours", "stems")
  for split, row in report["splits"].items():
    numbers = row["songs"], row["clips"], f"{row['hours']:.2f}", row["stems"]
    table.add_row(split, *map(str, numbers))
  console.print(table)
  table = make_table(str(report["source"]), *(f"{split} h" for split in report["splits"]), "stems")
  for name, hours in report["category_hours"].items():
    cells = [f"{hours.get(split, 0.0):.2f}" for split in report["splits"]]
    table.add_row(name, *cells, str(sum(report["category_stems"][name].values())))
  console.print(table)
  table = make_table("level", "codes used", "perplexity", "commonest")
  for q, row in enumerate(report["code_use"], start=1):
    table.add_row(
      str(q), f"{row['used']:.1%}", f"{row['perplexity']:.0f}", f"{row['commonest']:.1%}"
    )
  console.print(table)
  mixes = max(sum(report["mix_sizes"].values()), 1)
  sizes = ", ".join(f"{size}: {n / mixes:.0%}" for size, n in report["mix_sizes"].items())
  say(console, f"stems in a mix: {sizes}")
  for kind, count in report["problem_kinds"].items():
    say(console, f"{kind}: {count}")
  for name in ("damage", "leaks", "problems"):
    list_problems(console, report[name], show_all or name == "damage")
