# SPDX-License-Identifier: Apache-2.0
"""`python -m data_prep.demo`: renders multi-instrument music into Slakh2100's folder layout.

Decides which song becomes which track of which split; every track has its own generator, so the
bytes depend on the seed and not on the number of processes.
"""

import argparse
import hashlib
import json
import multiprocessing
import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from data_prep.arrange import arrange
from data_prep.chorales import Chorale, chorale_paths, read_chorale
from data_prep.render import default_soundfont
from data_prep.slakh_layout import write_track
from stemgen_jax.errors import UserError, run_cli

SPLITS = ("train", "validation", "test")
_SETTINGS = "demo.json"
_VERSION = 1  # raise when the same seed gives other music
_EXAMPLE = "example: python -m data_prep.demo --out data/demo --songs 60 --seed 0"


def split_groups(sizes: list[int]) -> list[str]:
  """Returns a split for each group of songs: about 80/10/10 of the songs, groups kept whole.

  Args:
    sizes: songs in each group, in an order already shuffled. With three groups or more no split
      is empty.
  """
  splits = ["train"] * len(sizes)
  if len(sizes) < 3:
    return splits
  wanted = max(1, round(0.1 * sum(sizes)))
  # The smallest groups that fill each held-out split: a tune with many settings stays in train.
  order = sorted(range(len(sizes)), key=lambda group: sizes[group])
  for split in ("test", "validation"):
    filled = 0
    while filled < wanted and len(order) > (1 if split == "validation" else 2):
      group = order.pop(0)
      splits[group] = split
      filled += sizes[group]
  return splits


def plan_chorales(songs: int, seed: int, pool) -> tuple[list[Chorale], list[str]]:
  """Returns the chorale and the split of each song; settings of one tune share a split."""
  paths = chorale_paths()
  order = np.random.default_rng([seed, 0]).permutation(len(paths))
  chosen: list[Chorale] = []
  for chorale in pool.imap(read_chorale, (paths[i] for i in order[: 2 * songs + 8]), chunksize=4):
    if chorale is not None and len(chosen) < songs:
      chosen.append(chorale)
  chosen = [chosen[i % len(chosen)] for i in range(songs)]
  groups: dict[tuple[int, ...], list[int]] = {}
  for song, chorale in enumerate(chosen):
    groups.setdefault(chorale.tune, []).append(song)
  by_group = split_groups([len(members) for members in groups.values()])
  splits = [""] * songs
  for members, split in zip(groups.values(), by_group):
    for song in members:
      splits[song] = split
  return chosen, splits


def _make_track(job) -> float:
  chorale, folder, seed, index, args = job
  soundfont = Path(args["soundfont"]).read_bytes()
  rng = np.random.default_rng([seed, 1, index])
  song = arrange(chorale, rng, args["seconds"])
  return write_track(song, folder, soundfont, Path(args["soundfont"]).name, args["rate"])


def claim_folder(out: Path, settings: dict) -> None:
  """Makes `out` ready for these settings.

  Raises:
    UserError: if it already holds other settings, or files that no demo run wrote.
  """
  record = out / _SETTINGS
  if record.is_file():
    before = json.loads(record.read_text(encoding="utf-8"))
    differ = sorted(k for k in before.keys() | settings.keys() if before.get(k) != settings.get(k))
    if differ:
      pairs = ", ".join(f"{k}={settings.get(k)} (there {before.get(k)})" for k in differ)
      raise UserError(
        f"--out must be a new folder or one made with the same settings; got {out} with {pairs}."
        " Choose another --out."
      )
    return
  if out.exists() and (not out.is_dir() or any(out.iterdir())):
    raise UserError(
      f"--out must be a new or empty folder; got {out}, which holds other files."
      " Choose another --out."
    )
  out.mkdir(parents=True, exist_ok=True)
  partial = out / f".{_SETTINGS}.partial"
  partial.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
  partial.replace(record)


def _parse(argv: list[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog="python -m data_prep.demo",
    usage=f"{_EXAMPLE}\n\n%(prog)s [options]",
    description="Renders multi-instrument demo music into Slakh2100's folder layout.",
  )
  parser.add_argument("--out", type=Path, required=True, help="folder for train/ validation/ test/")
  parser.add_argument("--songs", type=int, default=60, help="number of songs (default 60)")
  parser.add_argument("--seed", type=int, default=0, help="same seed, same bytes (default 0)")
  parser.add_argument("--seconds", type=float, default=60.0, help="longest song (default 60)")
  parser.add_argument("--rate", type=int, default=44100, help="sample rate in Hz (default 44100)")
  parser.add_argument("--soundfont", type=Path, help="General MIDI .sf2 (default: TimGM6mb)")
  parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
  return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
  """Renders what the command line asks for; returns the exit code."""
  flags = _parse(argv)
  for name, least in (("songs", 1), ("seed", 0), ("seconds", 10), ("rate", 8000), ("jobs", 1)):
    if getattr(flags, name) < least:
      raise UserError(f"--{name} must be at least {least}; got {getattr(flags, name)}.")
  soundfont = flags.soundfont or default_soundfont()
  if not soundfont.is_file():
    raise UserError(f"--soundfont must be a file; got {soundfont}. Check the path.")
  settings = {
    "version": _VERSION,
    "songs": flags.songs,
    "seed": flags.seed,
    "seconds": flags.seconds,
    "rate": flags.rate,
    "soundfont": hashlib.sha256(soundfont.read_bytes()).hexdigest(),
  }
  claim_folder(flags.out, settings)
  args = {"soundfont": str(soundfont), "seconds": flags.seconds, "rate": flags.rate}
  with multiprocessing.get_context("spawn").Pool(flags.jobs) as pool:
    chorales, splits = plan_chorales(flags.songs, flags.seed, pool)
    jobs = []
    for index, (chorale, split) in enumerate(zip(chorales, splits)):
      folder = flags.out / split / f"Track{index + 1:05d}"
      if not folder.exists():
        jobs.append((chorale, folder, flags.seed, index, args))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(file=sys.stderr)
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
      task = progress.add_task("rendering songs", total=flags.songs)
      progress.advance(task, flags.songs - len(jobs))
      for _ in pool.imap_unordered(_make_track, jobs):
        progress.advance(task)
  counts = ", ".join(f"{splits.count(split)} {split}" for split in SPLITS)
  print(f"{flags.songs} songs in {flags.out}: {counts}")
  return 0


if __name__ == "__main__":
  sys.exit(run_cli(main))
