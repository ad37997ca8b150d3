# SPDX-License-Identifier: Apache-2.0
r"""Start-up time and memory of training against the number of songs.

Example:
  python -m stemgen_jax.bench scale --songs 100 1000 10000 --folder /fast/disk

Writes datasets of random codes (songs of --song_s in clips of 60 s, each of --stems and --mixes),
then trains the demo's model on each for a few steps in a process of its own. Start-up ends with the
first step, so it holds the imports, the opening of the shards and the compilation. Peak memory is
that of the training process.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import configs
from stemgen_jax.bench.random_shards import METADATA, MIXES, STEMS, write_random
from stemgen_jax.bench.table import Row, describe_machine
from stemgen_jax.data.records import Dataset
from stemgen_jax.errors import UserError

STEPS = 4
COLUMNS = {
  "songs": ("songs", "d"),
  "records": ("records", "d"),
  "shards": ("shards", "d"),
  "gb": ("GB", ".2f"),
  "write_s": ("written in s", ".0f"),
  "start_s": ("start-up s", ".1f"),
  "step_s": ("step s", ".2f"),
  "peak_mb": ("peak MB", ".0f"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the subcommand's flags."""
  parser.add_argument("--songs", type=int, nargs="+", default=[100, 1000, 10_000])
  parser.add_argument("--song_s", type=float, default=60.0, help="length of a song")
  parser.add_argument("--stems", type=int, default=STEMS)
  parser.add_argument("--mixes", type=int, default=MIXES)
  parser.add_argument("--folder", type=Path, help="where the datasets go; a temporary one")


def measure_all(arguments: argparse.Namespace) -> Iterator[Row]:
  """Yields a row for each number of songs.

  Raises:
    UserError: if a number breaks its rule, or training fails.
  """
  if min(*arguments.songs, arguments.stems, arguments.mixes, arguments.song_s) < 1:
    raise UserError(
      "--songs, --song_s, --stems and --mixes must be at least 1; got"
      f" {arguments.songs}, {arguments.song_s}, {arguments.stems} and {arguments.mixes}."
    )
  for songs in arguments.songs:
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
      print(f"measuring {songs} songs", file=sys.stderr)
      yield measure(Path(folder), songs, arguments) | describe_machine()


def measure(folder: Path, songs: int, arguments: argparse.Namespace) -> Row:
  """Returns the row of a dataset of that many songs, written into the folder."""
  began_s = time.perf_counter()
  path = write_random(
    folder, songs, song_s=arguments.song_s, stems=arguments.stems, mixes=arguments.mixes
  )
  write_s = time.perf_counter() - began_s
  shards = Dataset.open(path).shards["train"]
  return {
    "songs": songs,
    "records": sum(shard.n_records for shard in shards),
    "shards": len(shards),
    "gb": sum(shard.size for shard in shards) / 1e9,
    "write_s": write_s,
    **train(path, folder / "run"),
  }


def train(data: Path, workdir: Path) -> Row:
  """Trains for a few steps; returns the times and the peak memory.

  Raises:
    UserError: if the command fails.
  """
  settings = {
    "data.path": data,
    "data.codec": "",
    "data.crop_frames": 250,
    "data.batch_size": 24,
    "model.n_codes": METADATA.n_codes,
    "optim.steps": STEPS,
    "optim.warmup_steps": 1,
    "eval_batches": 0,
    "log_every_steps": 1,
  }
  command = [sys.executable, "-m", "stemgen_jax.train", "--workdir", str(workdir)]
  command += ["--config", str(Path(configs.__path__[0]) / "demo.py")]
  command += [f"--config.{name}={value}" for name, value in settings.items()]
  began_s, steps_s, said = time.perf_counter(), [], []
  with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
    for line in process.stderr or ():
      said.append(line.strip())
      if line.lstrip().startswith("step "):
        steps_s.append(time.perf_counter() - began_s)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
  if process.returncode or len(steps_s) != STEPS:
    raise UserError(f"training must succeed; got exit code {process.returncode}: {said[-1:]}.")
  return {
    "start_s": steps_s[0],
    "step_s": (steps_s[-1] - steps_s[0]) / (STEPS - 1),
    "peak_mb": usage.ru_maxrss / 1e3,
  }
