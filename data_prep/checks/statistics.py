# SPDX-License-Identifier: Apache-2.0
"""What a dataset is made of, counted clip by clip; the counts of its shards add up."""

from collections import Counter, defaultdict

import numpy as np

from data_prep.corpora.types import INSTRUMENT
from stemgen_jax.data.clips import UNKNOWN, Clip, Metadata

LEVEL_EDGES_DB = np.arange(-120.0, 9.0, 3.0)
ACTIVE_DB = -50.0  # a cell above this sounds
ACTIVITY_EDGES = np.linspace(0.0, 1.0, 11)
UNKNOWN_NAME = "unknown"


class Statistics:
  """Counts over clips; a stem's category is its instrument, or else its first condition.

  Attributes:
    clips: split -> clips.
    mixes: context mixes.
    song_frames: (split, song) -> frames.
    stems: (split, category) -> stems, each clip's own.
    stem_frames: (split, category) -> frames of these.
    levels: category -> cells of the loudness grid, by level between LEVEL_EDGES_DB.
    activity: category -> stems by the share of cells that sound, between ACTIVITY_EDGES.
    mix_sizes: stems in a mix -> mixes.
    codes: int64 [Q, V], how often each code occurs where its stem sounds.
  """

  def __init__(self, metadata: Metadata):
    sources = metadata.sources
    self.source = INSTRUMENT if INSTRUMENT in sources else next(iter(sources), None)
    self.categories = (*(sources[self.source] if self.source else ()), UNKNOWN_NAME)
    self._column = list(sources).index(self.source) if self.source else None
    self._level_frames = metadata.level_frames
    self.clips: Counter[str] = Counter()
    self.song_frames: Counter[tuple[str, str]] = Counter()
    self.stems: Counter[tuple[str, str]] = Counter()
    self.stem_frames: Counter[tuple[str, str]] = Counter()
    self.levels = {name: np.zeros(len(LEVEL_EDGES_DB) - 1, int) for name in self.categories}
    self.activity = {name: np.zeros(len(ACTIVITY_EDGES) - 1, int) for name in self.categories}
    self.mix_sizes: Counter[int] = Counter()
    self.codes = np.zeros((metadata.n_levels, metadata.n_codes), np.int64)

  def add(self, split: str, clip: Clip) -> None:
    """Counts a clip."""
    frames = clip.stem_codes.shape[1]
    self.clips[split] += 1
    self.song_frames[split, clip.song] += frames
    self.mix_sizes.update(clip.mix_members.sum(1).tolist())
    level_db = clip.stem_level_db.astype(np.float32)
    for stem, codes in enumerate(clip.stem_codes):
      index = UNKNOWN if self._column is None else clip.stem_conditions[stem, self._column]
      name = self.categories[index]  # -1, unknown, is the last
      self.stems[split, name] += 1
      self.stem_frames[split, name] += frames
      inside = level_db[stem].clip(LEVEL_EDGES_DB[0], LEVEL_EDGES_DB[-1])
      self.levels[name] += np.histogram(inside, LEVEL_EDGES_DB)[0]
      sounds = level_db[stem] > ACTIVE_DB
      self.activity[name] += np.histogram(sounds.mean(), ACTIVITY_EDGES)[0]
      heard = codes[np.repeat(sounds, self._level_frames)[:frames]]
      for level, counts in enumerate(self.codes):
        counts += np.bincount(heard[:, level], minlength=len(counts))

  def merge(self, other: "Statistics") -> None:
    """Adds the counts of another part of the same dataset."""
    for name in ("clips", "song_frames", "stems", "stem_frames", "mix_sizes"):
      getattr(self, name).update(getattr(other, name))
    for name in self.categories:
      self.levels[name] += other.levels[name]
      self.activity[name] += other.activity[name]
    self.codes += other.codes

  def by_category(self, counts: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """Returns category -> split -> count, of the categories that occur."""
    table: dict[str, dict[str, int]] = defaultdict(dict)
    for name in self.categories:
      for (split, found), count in counts.items():
        if found == name:
          table[name][split] = count
    return table

  def code_use(self) -> list[tuple[float, float, float]]:
    """Returns (share of codes used, perplexity, share of the commonest code) of each level."""
    rows = []
    for counts in self.codes:
      p = counts / max(counts.sum(), 1)
      entropy = -np.sum(p * np.log(np.where(p > 0, p, 1.0)))
      rows.append((float((counts > 0).mean()), float(np.exp(entropy)), float(p.max())))
    return rows
