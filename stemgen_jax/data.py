# SPDX-License-Identifier: Apache-2.0
"""The training pipeline: random crops of stored clips, each target stem paired with a context mix.

Numpy and Grain only. Example n of the endless stream is a function of (dataset, settings, seed, n)
alone; a batch of all processes together is the same whatever their number.
"""

import logging
import sys

import grain
import numpy as np
from jaxtyping import Bool, Float

from stemgen_jax.errors import UserError
from stemgen_jax.records import ClipSource, Dataset

CROP_TRIES = 8


def make_loader(
  dataset: Dataset,
  split: str,
  *,
  crop_frames: int,
  batch_size: int,
  seed: int,
  silence_gate_db: float = -50.0,
  silence_prob: float = 0.1,
  process_index: int = 0,
  process_count: int = 1,
  workers: int = 0,
  num_epochs: int | None = None,
  foreign: bool = False,
) -> "BatchIterator":
  """Returns an iterator of batches; `get_state` and `set_state` continue it exactly.

  A batch holds `target` and `context` int32 [B, T, Q], `conditions` int32 [B, C] (-1 = unknown) and
  `record` int32 [B], the index of the target's record in the split. Each epoch visits every record
  once, in a new order, for one example. Batch k of process p holds rows [(k P + p) B, (k P + p + 1)
  B) of the stream: the processes' batches, put one after another, are the batch that one process
  would read. Records shorter than the crop are left out, and counted in the log: a crop is never
  padded.

  Args:
    dataset: from `Dataset.open`.
    split: its split to read.
    crop_frames: T.
    batch_size: B, the rows of this process.
    seed: 0 or more.
    silence_gate_db: the least level of a target in its window (see `choose_target`).
    silence_prob: the share of examples whose context is silence.
    process_index: p, which of the processes this is.
    process_count: P.
    workers: Grain worker processes (they need parsed absl flags and a `__main__` guard); 0 reads in
      threads.
    num_epochs: ends the stream after that many epochs, the last batch filled with examples of the
      next, so that every record is used and all processes read equally many; None never ends.
    foreign: takes each context from another song instead, with all targets as they were: the
      control for whether a model listens.

  Raises:
    UserError: if the split is unknown, no record is as long as the crop, or `foreign` finds but
      one song.
  """
  source = dataset.source(split)
  usable = np.flatnonzero(np.array(source.frames) >= crop_frames)
  if not len(usable):
    raise UserError(
      f"crop_frames must be at most the longest record of split {split!r};"
      f" got crop_frames={crop_frames}, longest {max(source.frames)}. Crop less."
    )
  if short := len(source) - len(usable):
    logging.getLogger(__name__).warning(
      "%d of %d records of split %r are shorter than %d frames and are left out",
      *(short, len(source), split, crop_frames),
    )
  pair = PairTarget(
    source,
    usable,
    crop_frames=crop_frames,
    level_frames=dataset.metadata.level_frames,
    silence_gate_db=silence_gate_db,
    silence_prob=silence_prob,
    foreign=foreign,
  )
  # Grain seeds epoch e of a shuffle with seed + e, so raw neighbouring seeds would share epochs.
  order_seed, pair_seed = (int(s) for s in np.random.SeedSequence(seed).generate_state(2))
  stream = grain.MapDataset.range(len(usable)).shuffle(seed=order_seed).repeat()
  # Without drop_remainder Grain rounds an endless length up past what a length may be.
  batches = stream.random_map(pair, seed=pair_seed).batch(batch_size, drop_remainder=True)
  steps = sys.maxsize
  if num_epochs is not None:
    steps = -(-len(usable) * num_epochs // (batch_size * process_count))
  mine = batches.slice(slice(process_index, None, process_count)).slice(slice(steps))
  return BatchIterator(mine, workers)


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


class PairTarget:
  """Makes an example from the index of a record: a crop, a target stem in it, a context mix."""

  def __init__(
    self,
    source: ClipSource,
    usable: np.ndarray,
    *,
    crop_frames: int,
    level_frames: int,
    silence_gate_db: float,
    silence_prob: float,
    foreign: bool,
  ):
    self.source = source
    self.usable = usable
    self.crop_frames = crop_frames
    self.level_frames = level_frames
    self.silence_gate_db = silence_gate_db
    self.silence_prob = silence_prob
    self.foreign = foreign
    names = np.array(source.songs)[usable]
    self._songs = np.unique(names, return_inverse=True)[1]
    if foreign and (self._songs == self._songs[0]).all():
      raise UserError(
        f"a foreign context must have another song to come from; got '{names[0]}' alone in its"
        f" split, with crop_frames={crop_frames}. Use a split of two songs or more, or train with"
        " --config.eval_batches=0."
      )

  def __call__(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Returns the example; with `foreign` every draw but those for the context stays the same."""
    record = int(self.usable[index])
    clip = self.source[record]
    frames = self.source.frames[record]
    start, target = choose_target(
      rng,
      clip.stem_level_db.astype(np.float32),
      frames,
      self.crop_frames,
      self.level_frames,
      self.silence_gate_db,
    )
    conditions = clip.stem_conditions[target]
    silent = rng.random() < self.silence_prob
    if self.foreign:
      context = self._draw_foreign(index, conditions, silent, rng)
    else:
      row = choose_mix(rng, clip.mix_members, np.arange(len(clip.stem_codes)) == target, silent)
      context = clip.mix_codes[row, start : start + self.crop_frames]
    return {
      "target": clip.stem_codes[target, start : start + self.crop_frames].astype(np.int32),
      "context": context.astype(np.int32),
      "conditions": conditions.astype(np.int32),
      "record": np.int32(record),
    }

  def _draw_foreign(
    self, index: int, conditions: np.ndarray, silent: bool, rng: np.random.Generator
  ) -> np.ndarray:
    """Returns a crop of a mix of another song, without stems of the target's kind if it can be."""
    others = np.flatnonzero(self._songs != self._songs[index])
    record = int(self.usable[others[rng.integers(len(others))]])
    clip = self.source[record]
    row = choose_mix(rng, clip.mix_members, (clip.stem_conditions == conditions).all(1), silent)
    start = int(rng.integers(self.source.frames[record] - self.crop_frames + 1))
    return clip.mix_codes[row, start : start + self.crop_frames]


def choose_target(
  rng: np.random.Generator,
  level_db: Float[np.ndarray, "S cells"],
  frames: int,
  crop_frames: int,
  level_frames: int,
  gate_db: float,
) -> tuple[int, int]:
  """Returns a window's first frame, and a stem that is loud enough in it.

  The window is uniform inside the clip, the stem uniform among those whose mean power over the grid
  cells that the window touches reaches the gate. If none does in several windows, the answer is the
  loudest cell of the clip: its stem, in the window around it.

  Source: StemGen (arXiv:2312.08723) Fig. 1. The gate and its level are ours.
  """
  power = 10.0 ** (level_db / 10.0)
  for _ in range(CROP_TRIES):
    start = int(rng.integers(frames - crop_frames + 1))
    cells = power[:, start // level_frames : -(-(start + crop_frames) // level_frames)]
    loud = np.flatnonzero(cells.mean(1) >= 10.0 ** (gate_db / 10.0))
    if len(loud):
      return start, int(loud[rng.integers(len(loud))])
  stem, cell = np.unravel_index(np.argmax(power), power.shape)
  middle = int(cell) * level_frames + level_frames // 2
  return min(max(middle - crop_frames // 2, 0), frames - crop_frames), int(stem)


def choose_mix(
  rng: np.random.Generator,
  members: Bool[np.ndarray, "M S"],
  excluded: Bool[np.ndarray, " S"],
  silent: bool,
) -> int:
  """Returns a random mix that holds no excluded stem: a silent one if asked, else one that sounds.

  Where there is none of the kind asked for, the other kind serves (a song of one stem has only
  silence); where every mix holds an excluded stem, any mix that sounds.

  Source: StemGen (arXiv:2312.08723) Fig. 1. Silence, so that a model can begin a song, is ours.
  """
  clean, sounding = ~(members & excluded).any(1), members.any(1)
  wanted, other = (~sounding, clean & sounding) if silent else (clean & sounding, ~sounding)
  for choice in (wanted, other, sounding):
    rows = np.flatnonzero(choice)
    if len(rows):
      return int(rows[rng.integers(len(rows))])
  raise UserError("record must hold a mix; got none. Tokenise the song again.")
