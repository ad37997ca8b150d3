# SPDX-License-Identifier: Apache-2.0
"""What a corpus is: songs, in splits, of stems, each with what is known of it."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

INSTRUMENT = "instrument"  # the condition source that holds a stem's category
SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class AudioFile:
  """An audio file, or one audio stream of a file with several (`.stem.mp4`), counted from 0."""

  path: Path
  stream: int | None = None


@dataclasses.dataclass(frozen=True)
class Stem:
  """A stem: the sum of one or more files, and its conditions.

  `conditions` maps a source's name to a value of it; a source left out is unknown, and a stem of
  unknown instrument is never a target.
  """

  name: str
  files: tuple[AudioFile, ...]
  conditions: Mapping[str, str]

  @property
  def category(self) -> str | None:
    """Returns the instrument category, None where it is unknown."""
    return self.conditions.get(INSTRUMENT)


@dataclasses.dataclass(frozen=True)
class Track:
  """A song: an id that is unique in its corpus, its split, and stems that start together.

  `conditions` are those of the whole song, as a genre; they hold for each stem too.
  """

  id: str
  split: str
  stems: tuple[Stem, ...]
  conditions: Mapping[str, str] = dataclasses.field(default_factory=dict)

  @property
  def categories(self) -> tuple[str | None, ...]:
    """Returns each stem's category, None where it is unknown."""
    return tuple(stem.category for stem in self.stems)


@dataclasses.dataclass(frozen=True)
class Problem:
  """Something of a corpus that a user should know: where it is, and what was done about it."""

  where: str  # a track's or stem's path under the root
  what: str  # "listed, but has no audio: left out"


class Corpus(Protocol):
  """What a corpus must offer: its condition sources in order, and its songs in a fixed order."""

  @property
  def name(self) -> str:
    """As `--corpus` takes it."""
    ...

  @property
  def sources(self) -> Mapping[str, tuple[str, ...]]:
    """The values of each source of conditions."""
    ...

  @property
  def problems(self) -> list[Problem]:
    """What the last call of `tracks` noticed."""
    ...

  def tracks(self) -> list[Track]:
    """Returns the songs, sorted by split and id; opens metadata, never audio."""
    ...
