# SPDX-License-Identifier: Apache-2.0
"""The training pipeline: an endless stream of `examples` in batches.

Numpy and Grain only. Example n of the endless stream is a function of (dataset, settings, seed, n)
alone; a batch of all processes together is the same whatever their number.
"""

import logging
import os
import sys
from collections.abc import Sequence

import grain
import numpy as np
from absl import flags
from jaxtyping import Int

from stemgen_jax.categories import ACTIVITY
from stemgen_jax.config import DataConfig
from stemgen_jax.data.examples import PairTarget
from stemgen_jax.data.records import ClipSource, Dataset
from stemgen_jax.errors import UserError

SHARED_MEMORY = "/dev/shm"
AHEAD = 4  # batches of each worker that wait there


def make_loader(
  dataset: Dataset,
  split: str,
  config: DataConfig,
  *,
  seed: int,
  share: int = 0,
  shares: int = 1,
  sources: Sequence[str] | None = None,
  num_epochs: int | None = None,
  foreign: bool = False,
) -> "BatchIterator":
  """Returns an iterator of batches; `get_state` and `set_state` continue it exactly.

  A batch holds `target` and `context` int32 [B, T, Q], `conditions` int32 [B, C] and `clip` int32
  [B], the index of the target's clip in the split. Each epoch visits every clip once, in a new
  order, for one example. Batch k of share p holds examples [(k P + p) B, (k P + p + 1) B) of the
  stream: the shares, put one after another, are the batch that one process would read.
  Clips shorter than the crop are left out, as a crop is never padded, and so are clips without a
  stem to learn from, of known conditions and louder than the gate; the log counts both.

  Args:
    dataset: from `Dataset.open`.
    split: its split to read.
    config: the window, the rows of a batch of all processes, and what may be a target; its path
      and splits are not read.
    seed: 0 or more.
    share: p, which share of every batch of all processes this is (`sharding.batch_share`).
    shares: P, how many there are.
    sources: the conditions to give, by name, ACTIVITY among them; None gives all that the
      dataset has.
    num_epochs: ends the stream after that many epochs, the last batch filled with examples of the
      next, so that every clip is used and all shares are equally long; None never ends.
    foreign: takes each context from another song instead, with all targets as they were: the
      control for whether a model listens.

  Raises:
    UserError: if the split or a source is unknown, no clip can be used, or `foreign` finds but one
      song.
  """
  source = dataset.source(split)
  usable = find_usable(source, split, config.crop_frames, config.silence_gate_db)
  known = list(dataset.metadata.sources)
  if missing := set(sources or ()) - {*known, ACTIVITY}:
    raise UserError(f"sources must be among {known}; got {sorted(missing)}. Tokenise with them.")
  named = known if sources is None else sources
  pair = PairTarget(source, usable, dataset.metadata, config, named, foreign)
  rows = config.batch_size // shares
  # Grain seeds epoch e of a shuffle with seed + e, so raw neighbouring seeds would share epochs.
  order_seed, pair_seed = (int(s) for s in np.random.SeedSequence(seed).generate_state(2))
  stream = grain.MapDataset.range(len(usable)).shuffle(seed=order_seed).repeat()
  # Without drop_remainder Grain rounds an endless length up past what a length may be.
  batches = stream.random_map(pair, seed=pair_seed).batch(rows, drop_remainder=True)
  steps = sys.maxsize
  if num_epochs is not None:
    steps = -(-len(usable) * num_epochs // (rows * shares))
  mine = batches.slice(slice(share, None, shares)).slice(slice(steps))
  batch_bytes = 8 * rows * config.crop_frames * dataset.metadata.n_levels  # two int32 arrays
  return BatchIterator(mine, choose_workers(config.workers, batch_bytes))


def choose_workers(workers: int, batch_bytes: int) -> int:
  """Returns the worker processes asked for; 0 if this machine's shared memory has no room for them.

  They hand on batches through it, and die where it is full: Docker gives 64 MB unless told
  otherwise. Reading then happens in the training process, and the log says so.
  """
  needed = AHEAD * workers * batch_bytes
  try:
    found = os.statvfs(SHARED_MEMORY)
  except OSError:  # not on this system
    return workers
  free = found.f_bavail * found.f_frsize
  if needed <= free:
    return workers
  logging.getLogger(__name__).warning(
    "data.workers=%d need %d MB of shared memory and %s has %d MB: reading goes on in this process."
    " Start the container with --shm-size=1g.",
    *(workers, -(-needed // 2**20), SHARED_MEMORY, free // 2**20),
  )
  return 0


def find_usable(
  source: ClipSource, split: str, crop_frames: int, silence_gate_db: float
) -> Int[np.ndarray, " clips"]:
  """Returns the clips that are long enough and hold a stem to learn from; logs what it leaves out.

  Raises:
    UserError: if there is none.
  """
  short = source.frames < crop_frames
  empty = ~short & (source.target_db < silence_gate_db)
  if (short | empty).all():
    raise UserError(
      f"split {split!r} must hold clips of crop_frames={crop_frames} or more with a stem of known"
      f" conditions above silence_gate_db={silence_gate_db:g}; got {len(source)} clips, the longest"
      f" {source.frames.max(initial=0)} frames, the loudest {source.target_db.max(initial=-np.inf)}"
      " dB. Crop less, or tokenise more music."
    )
  for left_out, why in (
    (short, f"are shorter than {crop_frames} frames"),
    (empty, f"have no stem of known conditions above {silence_gate_db:g} dB"),
  ):
    if count := int(left_out.sum()):
      logging.getLogger(__name__).warning(
        "%d of %d clips of split %r %s and are left out", *(count, len(source), split, why)
      )
  return np.flatnonzero(~(short | empty))


class BatchIterator(grain.DatasetIterator[dict[str, np.ndarray]]):
  """Reads batches ahead, in threads or worker processes; its state is a position and no more.

  Grain's own state under worker processes names each worker's, and fits no other number of them.
  """

  def __init__(self, batches: grain.MapDataset[dict[str, np.ndarray]], workers: int):
    super().__init__()
    self._batches, self._workers = batches, workers
    self._start(0)

  def _start(self, position: int) -> None:
    rest = self._batches.slice(slice(position, None))
    # An element here is a whole batch: Grain's default of 500 buffered elements is for examples.
    loader = rest.to_iter_dataset(grain.ReadOptions(num_threads=4, prefetch_buffer_size=8))
    if self._workers:
      if not flags.FLAGS.is_parsed():  # Grain hands absl's flags on, and fails where there are none
        flags.FLAGS.mark_as_parsed()
      loader = loader.mp_prefetch(grain.MultiprocessingOptions(num_workers=self._workers))
    self._reader, self._position = iter(loader), position

  def __next__(self) -> dict[str, np.ndarray]:
    batch = next(self._reader)
    self._position += 1
    return batch

  def get_state(self) -> dict[str, int]:
    """Returns the number of batches read."""
    return {"next_index": self._position}

  def set_state(self, state: dict[str, int]) -> None:
    """Goes on from a state, of any number of workers."""
    self._reader.close()
    self._start(state["next_index"])

  def start_prefetch(self) -> None:
    """Begins to read ahead."""
    self._reader.start_prefetch()

  def close(self) -> None:
    """Ends the threads or workers."""
    super().close()
    self._reader.close()
