# SPDX-License-Identifier: Apache-2.0
r"""Training examples a second that the pipeline reads from shards, cold and warm, by workers.

Example:
  python -m stemgen_jax.bench data --data shards/slakh --workers 0 1 2 4

Without --data it reads random codes at the paper's size. Cold: the system is told to forget the
shards, and no clip is read twice, so a small dataset has no cold row; warm: they are in memory. The
first batches, during which workers start, are not timed.

"x H100" is how many times as fast as one H100 could train `configs/slakh.py` (246M parameters) on
20 s windows: an example takes 6 FLOP for each frame and weight of a matrix product, and 12 L T^2 D
for attention, at 40 % of the 989 TFLOP/s that NVIDIA states for dense bfloat16.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from stemgen_jax.bench.random_shards import write_random
from stemgen_jax.bench.table import Row, describe_machine
from stemgen_jax.config import DataConfig, ModelConfig
from stemgen_jax.data.loader import make_loader
from stemgen_jax.data.records import Dataset
from stemgen_jax.errors import UserError
from stemgen_jax.model.flops import train_flops

H100_FLOPS = 989e12  # dense bfloat16, NVIDIA's data sheet of the H100 SXM
MFU = 0.4  # share of it that training reaches; more than most report
WARM_UP = 32  # batches: the workers have started, and what they read ahead is used up
COLD_LEAST = 50  # batches of a cold run; fewer tell nothing
COLUMNS = {
  "state": ("files", ""),
  "workers": ("workers", "d"),
  "examples_per_s": ("examples / s", ".0f"),
  "times_h100": ("x H100", ".1f"),
  "mb_per_s": ("MB / s", ".0f"),
  "example_kb": ("kB / example", ".1f"),
  "song_kb": ("kB / song", ".0f"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the subcommand's flags."""
  parser.add_argument("--data", metavar="DIR", help="a dataset; random codes if not given")
  parser.add_argument("--split", default="train")
  parser.add_argument("--crop_frames", type=int, default=1000, help="20 s at 50 Hz")
  parser.add_argument("--batch", type=int, default=32, help="examples of a batch")
  parser.add_argument(
    "--batches", type=int, default=200, help="timed; cold, at most what the clips allow"
  )
  parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
  parser.add_argument("--songs", type=int, default=6000, help="of the random codes, 60 s each")


def measure_all(arguments: argparse.Namespace) -> Iterator[Row]:
  """Yields a row for each number of workers, cold and warm.

  Raises:
    UserError: if the dataset cannot be read, or a number breaks its rule.
  """
  numbers = {"--batch": arguments.batch, "--batches": arguments.batches, "--songs": arguments.songs}
  if min(numbers.values()) < 1 or min(arguments.workers) < 0:
    raise UserError(
      "--batch, --batches and --songs must be positive and --workers 0 or more; got"
      f" {numbers | {'--workers': arguments.workers}}. Change it."
    )
  with tempfile.TemporaryDirectory() as folder:
    path = arguments.data or write_random(Path(folder), arguments.songs)
    dataset = Dataset.open(path)
    example_kb, song_kb = measure_bytes(dataset, arguments)
    fresh = len(dataset.source(arguments.split)) // arguments.batch - WARM_UP
    runs = {"cold": min(arguments.batches, fresh), "warm": arguments.batches}
    for state, batches in runs.items():
      for workers in arguments.workers if batches >= COLD_LEAST or state == "warm" else ():
        rate = measure(dataset, arguments, workers, state, batches)
        yield {
          "state": state,
          "workers": workers,
          "examples_per_s": rate,
          "times_h100": rate / h100_examples(ModelConfig(), 1000),
          "mb_per_s": None if example_kb is None else rate * example_kb / 1e3,
          "example_kb": example_kb,
          "song_kb": song_kb,
          "data": arguments.data or "random codes",
          "crop_frames": arguments.crop_frames,
          "batch": arguments.batch,
          **describe_machine(),
        }


def h100_examples(model: ModelConfig, frames: int) -> float:
  """Returns how many windows a second one H100 could train on, at MFU of its peak."""
  return MFU * H100_FLOPS / train_flops(model, frames)


def measure(
  dataset: Dataset, arguments: argparse.Namespace, workers: int, state: str, batches: int
) -> float:
  """Returns the examples a second of some batches after the first."""
  files = [dataset.path / shard.file for shard in dataset.shards[arguments.split]]
  (forget if state == "cold" else load)(files)
  loader = open_loader(dataset, arguments, workers)
  try:
    for _ in range(WARM_UP):
      next(loader)
    began_s = time.perf_counter()
    for _ in range(batches):
      next(loader)
    return batches * arguments.batch / (time.perf_counter() - began_s)
  finally:
    loader.close()


def open_loader(dataset: Dataset, arguments: argparse.Namespace, workers: int):
  """Returns the pipeline that training reads."""
  config = DataConfig(
    crop_frames=arguments.crop_frames, batch_size=arguments.batch, workers=workers
  )
  return make_loader(dataset, arguments.split, config, seed=0)


def measure_bytes(dataset: Dataset, arguments: argparse.Namespace) -> tuple[float | None, float]:
  """Returns the kB that this process reads for an example, and those of a song in the shards."""
  shards = dataset.shards[arguments.split]
  songs = len({song for shard in shards for song in shard.songs})
  song_kb = sum(shard.size for shard in shards) / songs / 1e3
  reads = Path("/proc/self/io")
  if not reads.is_file():  # not Linux
    return None, song_kb
  load([dataset.path / shard.file for shard in shards])
  loader = open_loader(dataset, arguments, 0)
  for _ in range(WARM_UP):
    next(loader)
  before = _bytes_read(reads)
  for _ in range(40):
    next(loader)
  loader.close()
  return (_bytes_read(reads) - before) / 40 / arguments.batch / 1e3, song_kb


def _bytes_read(path: Path) -> int:
  """Returns the bytes that this process has asked of files so far, cached or not."""
  return int(path.read_text().split()[1])


def forget(files: list[Path]) -> None:
  """Asks the system to drop the files from its cache."""
  for path in files:
    with path.open("rb") as file:
      os.fsync(file.fileno())
      os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def load(files: list[Path]) -> None:
  """Reads the files through, so that the system's cache holds them."""
  for path in files:
    with path.open("rb") as file:
      while file.read(2**24):
        pass
