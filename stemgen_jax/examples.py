# SPDX-License-Identifier: Apache-2.0
"""One training example: a random crop of a stored clip, a target stem in it, a mix without it.

Numpy only.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from stemgen_jax.clips import Row
from stemgen_jax.errors import UserError
from stemgen_jax.records import ClipSource

CROP_TRIES = 8


class PairTarget:
  """Makes an example from the index of a clip: a crop, a target stem in it, a context mix.

  Reads two rows of the clip, or three where the first stem it looks at rests in the window.
  """

  def __init__(
    self,
    source: ClipSource,
    usable: Int[np.ndarray, " clips"],
    *,
    crop_frames: int,
    level_frames: int,
    columns: Sequence[int],
    silence_gate_db: float,
    silence_prob: float,
    foreign: bool,
  ):
    self.source = source
    self.usable = usable
    self.crop_frames = crop_frames
    self.level_frames = level_frames
    self.columns = list(columns)
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
    """Returns the example; with `foreign` every draw but those for the context stays the same.

    `stem` is the target's row in the clip, `start_frame` where the window begins in the song.
    """
    clip = int(self.usable[index])
    row = self._read(clip, int(rng.integers(self.source.stems[clip])))
    start, target = choose_target(
      rng,
      row.stem_level_db.astype(np.float32),
      row.targets,
      row.row,
      len(row.codes),
      self.crop_frames,
      self.level_frames,
      self.silence_gate_db,
    )
    row = self._read(clip, target, row)
    conditions = row.stem_conditions[target]
    silent = rng.random() < self.silence_prob
    if self.foreign:
      context = self._draw_foreign(index, conditions, silent, rng)
    else:
      mix = choose_mix(rng, row.mix_members, np.arange(row.n_stems) == target, silent)
      context = self._read(clip, row.n_stems + mix).codes[start : start + self.crop_frames]
    return {
      "target": row.codes[start : start + self.crop_frames].astype(np.int32),
      "context": context.astype(np.int32),
      "conditions": conditions[self.columns].astype(np.int32),
      "clip": np.int32(clip),
      "stem": np.int32(target),
      "start_frame": np.int32(row.start_frame + start),
    }

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
    mix = choose_mix(rng, row.mix_members, (row.stem_conditions == conditions).all(1), silent)
    start = int(rng.integers(len(row.codes) - self.crop_frames + 1))
    return self._read(clip, first + mix, row).codes[start : start + self.crop_frames]


def choose_target(
  rng: np.random.Generator,
  level_db: Float[np.ndarray, "S cells"],
  may_be: Bool[np.ndarray, " S"],
  first: int,
  frames: int,
  crop_frames: int,
  level_frames: int,
  gate_db: float,
) -> tuple[int, int]:
  """Returns a window's first frame, and a stem that is loud enough in it.

  The window is uniform inside the clip, the stem uniform among those that may be targets and whose
  mean power over the grid cells that the window touches reaches the gate: `first`, itself drawn
  uniformly, if it is one of them. If none does in several windows, the answer is the loudest cell
  of the clip: its stem, in the window around it.

  Source: StemGen (arXiv:2312.08723) Fig. 1. The gate and its level are ours.
  """
  power = np.where(may_be[:, None], 10.0 ** (level_db / 10.0), 0.0)
  for _ in range(CROP_TRIES):
    start = int(rng.integers(frames - crop_frames + 1))
    cells = power[:, start // level_frames : -(-(start + crop_frames) // level_frames)]
    loud = cells.mean(1) >= 10.0 ** (gate_db / 10.0)
    if loud[first]:
      return start, first
    if loud.any():
      choices = np.flatnonzero(loud)
      return start, int(choices[rng.integers(len(choices))])
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
