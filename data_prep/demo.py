# SPDX-License-Identifier: Apache-2.0
"""`python -m data_prep.demo`: renders multi-instrument music into Slakh2100's folder layout.

Decides which song becomes which track of which split; every track has its own generator, so the
bytes depend on the seed and not on the number of processes.
"""

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import yaml

from data_prep.music.arrange import arrange
from data_prep.music.chorales import Chorale, chorale_paths, read_chorale
from data_prep.music.midi_files import Score, find_scores, notes_digest, read_song
from data_prep.music.parts import Song
from data_prep.music.render import check_soundfont, default_soundfont
from data_prep.music.slakh_layout import write_track
from data_prep.music.splits import SPLITS, assign_splits
from data_prep.music.versions import vary
from stemgen_jax.errors import UserError, run_cli
from stemgen_jax.shell.flags import Parser
from stemgen_jax.shell.folders import make_folder, read_json, write_text
from stemgen_jax.shell.progress import make_bars

_SETTINGS = "demo.json"
_HELD_OUT = Path(__file__).with_name("chorale_splits.yaml")
_VERSION = 4  # raised when the same seed gives other bytes
_CHORALE_SONGS, _CHORALE_S, _MIDI_S = 60, 60.0, 600.0
A = TypeVar("A")
B = TypeVar("B")
Mapper = Callable[[Callable[[A], B], Iterable[A]], Iterator[B]]
"""`map`, or a process pool's: results in order."""


def plan_chorales(songs: int, seed: int, mapper: Mapper) -> tuple[list[Chorale], list[str]]:
  """Returns the chorale and the split of each song: a tenth test, a tenth validation.

  Which tunes are held out is written down, so a model trained on many songs has not heard those
  that another number of songs tests. Where a split has fewer chorales than songs, they come again.
  """
  held_out = yaml.safe_load(_HELD_OUT.read_text(encoding="utf-8"))
  split_of = {name: split for split, names in held_out.items() for name in names}
  paths = chorale_paths()
  order = [paths[i] for i in np.random.default_rng([seed, 0]).permutation(len(paths))]
  pools = {split: [p for p in order if split_of.get(p.stem, "train") == split] for split in SPLITS}
  share = max(1, round(songs / 10)) if songs >= len(SPLITS) else 0
  wanted = {"train": songs - 2 * share, "validation": share, "test": share}
  # About one file in fifty of train holds no four-part chorale.
  candidates = [
    path for split in SPLITS for path in pools[split][: wanted[split] + wanted[split] // 10 + 8]
  ]
  read = [chorale for chorale in mapper(read_chorale, candidates) if chorale is not None]
  chosen, splits = [], []
  for split in SPLITS:
    usable = [chorale for chorale in read if split_of.get(chorale.name, "train") == split]
    chosen += [usable[i % len(usable)] for i in range(wanted[split])]
    splits += [split] * wanted[split]
  order = np.random.default_rng([seed, 2]).permutation(songs)
  return [chosen[i] for i in order], [splits[i] for i in order]


def plan_scores(
  scores: list[Score],
  songs: int | None,
  seed: int,
  max_s: float,
  mapper: Mapper,
  versions: int = 1,
) -> tuple[list[Song], list[str]]:
  """Returns the songs that scores hold, equal music once, in a seeded order, and their splits.

  Each stands there `versions` times.

  A score that cannot be parsed is reported on stderr and left out.

  Raises:
    UserError: if none can be parsed.
  """
  found: dict[str, Song] = {}
  problem = None
  for song in mapper(partial(read_song, max_s=max_s), scores):
    if isinstance(song, UserError):
      problem = song
      print(f"warning: {song} Left out.", file=sys.stderr)
    else:
      found.setdefault(notes_digest(song), song)
  if not found:
    raise UserError(f"--midi must hold at least one readable song; got none. {problem}")
  distinct = list(found.values())
  order = np.random.default_rng([seed, 0]).permutation(len(distinct))[:songs]
  splits = assign_splits([[i] for i in range(len(order))])
  turns = range(versions)
  return [distinct[i] for i in order for _ in turns], [split for split in splits for _ in turns]


def check_folder(out: Path, settings: dict) -> None:
  """Does nothing if `out` is new, empty, or made with these settings.

  Raises:
    UserError: if it holds other settings, or files that no demo run wrote.
  """
  record = out / _SETTINGS
  if record.is_file():
    before = read_json(record)
    differ = sorted(k for k in before.keys() | settings.keys() if before.get(k) != settings.get(k))
    if differ:
      pairs = ", ".join(f"{k}={settings.get(k)} (there: {before.get(k)})" for k in differ)
      raise UserError(
        f"--out must be a new folder or one made with the same settings; got {out} with {pairs}."
        " Choose another --out."
      )
  elif out.exists() and (not out.is_dir() or any(out.iterdir())):
    raise UserError(
      f"--out must be a new or empty folder; got {out}, which holds other files."
      " Choose another --out."
    )


def _record_settings(out: Path, settings: dict) -> None:
  """Writes the settings that the tracks in `out` will be made with, by rename."""
  make_folder(out, "--out")
  write_text(out / _SETTINGS, json.dumps(settings, indent=2, sort_keys=True) + "\n")


def render_track(job: tuple[Chorale | Song, Path, list[int]], flags: argparse.Namespace) -> float:
  """Renders one song by its seeds into its folder, and returns the seconds of its stems."""
  music, folder, seeds = job
  if isinstance(music, Chorale):
    music = arrange(music, np.random.default_rng(seeds), flags.seconds)
  elif flags.versions > 1:
    music = vary(music, np.random.default_rng(seeds), flags.seconds)
  studio = np.random.default_rng([*seeds, 1])
  produced = studio.random() < flags.produced
  return write_track(music, folder, flags.soundfont, flags.rate, studio if produced else None)


def _parse(argv: list[str] | None) -> argparse.Namespace:
  parser = Parser(
    prog="python -m data_prep.demo",
    allow_abbrev=False,
    usage="python -m data_prep.demo --out data/demo --songs 60 --seed 0"
    "\n       python -m data_prep.demo --out data/doom --midi freedoom1.wad freedoom2.wad",
    description="Renders songs, one mono stem a part, into Slakh2100's folder layout: Bach"
    " chorales arranged for a six-piece band, or the MIDI files given.",
  )
  parser.add_argument("--out", type=Path, required=True, help="folder for train/ validation/ test/")
  parser.add_argument("--songs", type=int, help="how many (default: 60 chorales, or all --midi)")
  parser.add_argument("--seed", type=int, default=0, help="same seed, same bytes (default: 0)")
  parser.add_argument(
    "--midi", type=Path, nargs="+", help=".mid .midi .mus .wad files, or directories of them"
  )
  parser.add_argument("--seconds", type=float, help="longest song (default: 60, with --midi 600)")
  parser.add_argument("--rate", type=int, default=44100, help="sample rate in Hz (default: 44100)")
  parser.add_argument(
    "--soundfont",
    type=Path,
    default=default_soundfont(),
    help="General MIDI .sf2 (default: TimGM6mb)",
  )
  parser.add_argument(
    "--versions",
    type=int,
    default=1,
    help="of each --midi song, each another stretch of --seconds in another key and tempo",
  )
  parser.add_argument(
    "--produced",
    type=float,
    default=0.0,
    metavar="SHARE",
    help="share of the songs whose parts get equaliser, saturation and room (default: 0)",
  )
  parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
  flags = parser.parse_args(argv)
  if flags.seconds is None:
    flags.seconds = _MIDI_S if flags.midi else _CHORALE_S
  if flags.songs is None and not flags.midi:
    flags.songs = _CHORALE_SONGS
  least_of = {"songs": 1, "seed": 0, "seconds": 10, "rate": 8000, "jobs": 1, "versions": 1}
  for name, least in least_of.items():
    value = getattr(flags, name)
    if value is not None and not value >= least:
      raise UserError(f"--{name} must be at least {least}; got {name}={value}.")
  if not 0 <= flags.produced <= 1:
    raise UserError(f"--produced must be a share from 0 to 1; got {flags.produced:g}.")
  if flags.versions > 1 and not flags.midi:
    raise UserError(
      f"--versions must come with --midi; got --versions {flags.versions} alone. For more"
      " arrangements of chorales, raise --songs."
    )
  check_soundfont(flags.soundfont)
  return flags


def main(argv: list[str] | None = None) -> int:
  """Renders what the command line asks for; returns the exit code."""
  flags = _parse(argv)
  scores = find_scores(flags.midi) if flags.midi else []
  digests = sorted(hashlib.sha256(score.content).hexdigest() for score in scores)
  settings = {
    "version": _VERSION,
    "songs": flags.songs,
    "seed": flags.seed,
    "seconds": flags.seconds,
    "rate": flags.rate,
    "soundfont": hashlib.sha256(flags.soundfont.read_bytes()).hexdigest(),
    "midi": hashlib.sha256("".join(digests).encode()).hexdigest() if scores else None,
    "versions": flags.versions if flags.versions > 1 else None,
    "produced": flags.produced or None,
  }
  check_folder(flags.out, settings)
  bar = make_bars()
  with contextlib.ExitStack() as stack:
    ordered, unordered = map, map
    if flags.jobs > 1:
      # Only this process answers ctrl-C; the pool is ended by leaving its context.
      quiet = {"initializer": signal.signal, "initargs": (signal.SIGINT, signal.SIG_IGN)}
      pool = stack.enter_context(multiprocessing.get_context("spawn").Pool(flags.jobs, **quiet))
      ordered, unordered = partial(pool.imap, chunksize=4), pool.imap_unordered
    stack.enter_context(bar)

    def read(function, items):
      task = bar.add_task("reading scores", total=len(items))
      for result in ordered(function, items):
        bar.advance(task)
        yield result

    if flags.midi:
      longest_s = flags.seconds if flags.versions == 1 else _MIDI_S
      music, splits = plan_scores(scores, flags.songs, flags.seed, longest_s, read, flags.versions)
    else:
      music, splits = plan_chorales(flags.songs, flags.seed, read)
    _record_settings(flags.out, settings)
    jobs = []
    for index, (piece, split) in enumerate(zip(music, splits, strict=True)):
      folder = flags.out / split / f"Track{index + 1:05d}"
      if not folder.exists():
        jobs.append((piece, folder, [flags.seed, 1, index]))
    task = bar.add_task("rendering songs", total=len(music), completed=len(music) - len(jobs))
    started_s, stems_s = time.monotonic(), 0.0
    for length_s in unordered(partial(render_track, flags=flags), jobs):
      stems_s += length_s
      bar.advance(task)
  speed = stems_s / max(1e-9, time.monotonic() - started_s)
  counts = ", ".join(f"{splits.count(split)} {split}" for split in SPLITS)
  print(f"{len(music)} songs in {flags.out}: {counts}")
  print(f"{stems_s / 3600:.2f} hours of stems, {speed:.0f} s of stems a second", file=sys.stderr)
  return 0


if __name__ == "__main__":
  sys.exit(run_cli(main))
