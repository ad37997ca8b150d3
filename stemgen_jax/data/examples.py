# SPDX-License-Identifier: Apache-2.0
"""One training example: a random crop of a stored clip, a target stem in it, a mix without it.

Numpy only.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from stemgen_jax.categories import ACTIVITY
from stemgen_jax.config import DataConfig
from stemgen_jax.data.clips import ACTIVITY_EDGES, Metadata, Row
from stemgen_jax.data.records import ClipSource
from stemgen_jax.errors import UserError

WINDOWS = 4  # that compete for an example
DRAWS = 8  # of a target, where no context of the window sounds, before another clip is taken
CLIPS = 4  # that are tried so


class PairTarget:
  """Makes an example from the index of a clip: a crop, a target stem in it, a context mix.

  Reads three rows of the clip, or two where the target is its first stem.
  """

  def __init__(
    self,
    source: ClipSource,
    usable: Int[np.ndarray, " clips"],
    metadata: Metadata,
    config: DataConfig,
    sources: Sequence[str],
    foreign: bool,
  ):
    self.source = source
    self.usable = usable
    self.config = config
    self.level_frames = metadata.level_frames
    self.sources = tuple(sources)
    self._columns = {name: i for i, name in enumerate(metadata.sources)}
    self.foreign = foreign
    self._rarity = weigh_categories(source.categories)
    names = np.array(source.songs)[usable]
    self._songs = np.unique(names, return_inverse=True)[1]
    if foreign and (self._songs == self._songs[0]).all():
      raise UserError(
        f"a split must have two songs or more, so that a context can come from another; got"
        f" '{names[0]}' alone, of those with {config.crop_frames} frames or more. Tokenise more"
        " songs, or name another split."
      )

  def __call__(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Returns the example; with `foreign` every draw but those for the context stays the same.

    `stem` is the target's row in the clip, `start_frame` where the window begins in the song.
    """
    crop_frames = self.config.crop_frames
    index, row, start, target, heard = self._draw_window(index, rng)
    clip, level_db = int(self.usable[index]), row.stem_level_db.astype(np.float32)
    row = self._read(clip, target, row)
    cells = touched_cells(start, crop_frames, self.level_frames)
    activity = classify_activity(level_db[target, cells], self.config.sounding_db)
    known = row.stem_conditions[target]
    conditions = [
      activity if name == ACTIVITY else known[self._columns[name]] for name in self.sources
    ]
    silent = rng.random() < self.config.silence_prob
    if self.foreign:
      context = self._draw_foreign(index, known, silent, rng)
    else:
      excluded = np.arange(row.n_stems) == target
      mix = choose_mix(rng, row.mix_members, excluded, silent, heard)
      context = self._read(clip, row.n_stems + mix).codes[start : start + crop_frames]
    return {
      "target": row.codes[start : start + crop_frames].astype(np.int32),
      "context": context.astype(np.int32),
      "conditions": np.array(conditions, np.int32),
      "clip": np.array(clip, np.int32),
      "stem": np.array(target, np.int32),
      "start_frame": np.array(row.start_frame + start, np.int32),
    }

  def _draw_window(
    self, index: int, rng: np.random.Generator
  ) -> tuple[int, Row, int, int, Bool[np.ndarray, " M"]]:
    """Returns the clip's index, its first row, a window's start, a target, and what mixes sound.

    A window in which no mix without the target sounds is discarded; a clip of such windows, too.
    """
    found = None
    for _ in range(CLIPS):
      clip = int(self.usable[index])
      row = self._read(clip, 0)
      level_db = row.stem_level_db.astype(np.float32)
      weight = self._rarity[list(self.source.categories[clip])] * row.targets
      for _ in range(DRAWS):
        start, target = choose_target(
          rng, level_db, weight, len(row.codes), self.level_frames, self.config
        )
        cells = touched_cells(start, self.config.crop_frames, self.level_frames)
        heard = find_heard(level_db[:, cells], row.mix_gain_db, self.config.silence_gate_db)
        found = index, row, start, target, heard
        if row.n_stems == 1 or (heard & ~row.mix_members[:, target]).any():
          return found  # a song of one stem can only teach how to begin
      index = int(rng.integers(len(self.usable)))
    if found is None:
      raise ValueError("CLIPS and DRAWS must be positive.")
    return found

  def _read(self, clip: int, row: int, have: Row | None = None) -> Row:
    """Returns a row; the one at hand if it is just that."""
    return have if have is not None and have.row == row else self.source.read_row(clip, row)

  def _draw_foreign(
    self, index: int, conditions: np.ndarray, silent: bool, rng: np.random.Generator
  ) -> np.ndarray:
    """Returns a crop of a mix of another song, without stems of the target's kind if it can be."""
    others = np.flatnonzero(self._songs != self._songs[index])
    clip = int(self.usable[others[rng.integers(len(others))]])
    first = int(self.source.stems[clip])
    row = self._read(clip, first + int(rng.integers(self.source.mixes[clip])))
    start = int(rng.integers(len(row.codes) - self.config.crop_frames + 1))
    cells = touched_cells(start, self.config.crop_frames, self.level_frames)
    level_db = row.stem_level_db.astype(np.float32)[:, cells]
    heard = find_heard(level_db, row.mix_gain_db, self.config.silence_gate_db)
    same = (row.stem_conditions == conditions).all(1)
    mix = choose_mix(rng, row.mix_members, same, silent, heard)
    return self._read(clip, first + mix, row).codes[start : start + self.config.crop_frames]


def choose_target(
  rng: np.random.Generator,
  level_db: Float[np.ndarray, "S cells"],
  weight: Float[np.ndarray, " S"],
  frames: int,
  level_frames: int,
  config: DataConfig,
) -> tuple[int, int]:
  """Returns a window's first frame, and a stem that is loud enough in it.

  Of several windows, uniform inside the clip, one and a stem in it are drawn together, with a
  chance in proportion to the stem's weight times the share of the window's grid cells in which it
  sounds: so windows that sound are preferred, and a part may still rest. The stem's mean power
  over the window must reach the gate. If none does, the answer is the loudest cell of the clip:
  its stem, in the window around it.

  Args:
    rng: of this example.
    level_db: the loudness grid of the clip.
    weight: how often each stem is wanted; 0 where it may not be a target.
    frames: T of the clip.
    level_frames: frames of a cell.
    config: crop_frames, silence_gate_db and sounding_db.

  Source: StemGen (PAPER.md) section 2 discards silent targets; the rest is ours.
  """
  crop_frames = config.crop_frames
  power = np.where(weight[:, None] > 0, 10.0 ** (level_db / 10.0), 0.0)
  starts = rng.integers(frames - crop_frames + 1, size=WINDOWS)
  pick = rng.random()
  chances = np.zeros((WINDOWS, len(weight)))
  for chance, start in zip(chances, starts, strict=True):
    cells = touched_cells(int(start), crop_frames, level_frames)
    loud = power[:, cells].mean(1) >= 10.0 ** (config.silence_gate_db / 10.0)
    sounds = (level_db[:, cells] > config.sounding_db).sum(1)
    chance[:] = weight * loud * np.maximum(sounds, 1)
  if total := chances.sum():
    place = np.searchsorted(np.cumsum(chances) / total, pick, side="right")
    window, stem = np.unravel_index(min(place, np.flatnonzero(chances)[-1]), chances.shape)
    return int(starts[window]), int(stem)
  stem, cell = np.unravel_index(np.argmax(power), power.shape)
  middle = int(cell) * level_frames + level_frames // 2
  return min(max(middle - crop_frames // 2, 0), frames - crop_frames), int(stem)


def touched_cells(start: int, crop_frames: int, level_frames: int) -> slice:
  """Returns the cells of the loudness grid that a window touches."""
  return slice(start // level_frames, -(-(start + crop_frames) // level_frames))


def classify_activity(level_db: Float[np.ndarray, " cells"], sounding_db: float) -> int:
  """Returns the index in ACTIVITY_VALUES of a stem's window, by the share of it that sounds."""
  share = float((level_db > sounding_db).mean())
  return int(np.searchsorted(ACTIVITY_EDGES, share, side="right"))


def weigh_categories(categories: Sequence[Sequence[int]]) -> Float[np.ndarray, " n"]:
  """Returns how much a stem of each category weighs: its frequency to the power -0.5, mean 1.

  So a category that is a hundred times as rare comes a tenth as often. Unknown ones, at -1, have
  the last place.

  Args:
    categories: of each clip, those of its stems.
  """
  found = np.array([value for values in categories for value in values], int)
  counts = np.bincount(np.where(found < 0, found.max(initial=-1) + 1, found), minlength=2)
  weight = np.maximum(counts, 1) ** -0.5
  return weight / (np.sum(weight * counts) / max(1, counts.sum()))


def find_heard(
  level_db: Float[np.ndarray, "S cells"], gain_db: Float[np.ndarray, "M S"], gate_db: float
) -> Bool[np.ndarray, " M"]:
  """Returns whether each mix sounds: its stems' mean power in a window, added up, at the gate.

  Source: StemGen (PAPER.md) section 2 discards silent contexts.
  """
  power = (10.0 ** (level_db / 10.0)).mean(axis=1)
  return 10.0 ** (gain_db.astype(np.float64) / 10.0) @ power >= 10.0 ** (gate_db / 10.0)


def choose_mix(
  rng: np.random.Generator,
  members: Bool[np.ndarray, "M S"],
  excluded: Bool[np.ndarray, " S"],
  silent: bool,
  heard: Bool[np.ndarray, " M"],
) -> int:
  """Returns a random mix that holds no excluded stem: the silent one if asked, else one of `heard`.

  Where there is none of the kind asked for, the other kind serves (a song of one stem has only
  silence); where every mix holds an excluded stem, any mix that sounds.

  Source: StemGen (PAPER.md) Fig. 1. Silence, so that a model can begin a song, is ours.
  """
  clean, none = ~(members & excluded).any(1), ~members.any(1)
  wanted, other = (none, clean & heard) if silent else (clean & heard, none)
  for choice in (wanted, other, ~none):
    rows = np.flatnonzero(choice)
    if len(rows):
      return int(rows[rng.integers(len(rows))])
  raise UserError("record must hold a mix; got none. Tokenise the song again.")
