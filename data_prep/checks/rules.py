# SPDX-License-Identifier: Apache-2.0
"""What must hold of a shard: its file as the manifest says, and each clip by its own rules."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stemgen_jax.audio.silence import CORPUS_DB
from stemgen_jax.data.clips import Clip, Metadata, check_clip
from stemgen_jax.data.shards import COLUMNS, Shard, hash_file, list_clip, read_clips
from stemgen_jax.errors import UserError

LOUDEST_DB = 20.0
GAIN_DB = (-60.0, 24.0)  # a mix's clip guard takes little; more than this is a mistake


def check_file(path: Path, shard: Shard) -> str | None:
  """Returns how a shard's file differs from the manifest; None if it does not."""
  if not path.is_file():
    return "the file is missing"
  if (size := os.path.getsize(path)) != shard.size:
    return f"{size} bytes, {shard.size} were written"
  if hash_file(path) != shard.sha256:
    return "its SHA-256 is not that of the manifest"
  return None


def read_checked(path: Path, shard: Shard, metadata: Metadata) -> Iterator[Clip]:
  """Yields a shard's clips, each of them as the manifest lists it and of the right format.

  Raises:
    UserError: at the first that is not.
  """
  columns = (getattr(shard, name) for name in COLUMNS)
  listed = [dict(zip(COLUMNS, values, strict=True)) for values in zip(*columns, strict=False)]
  count = 0
  for clip in read_clips(path, metadata):
    check_clip(clip, metadata)
    found = list_clip(clip, clip.stem_codes.shape[1])
    if found not in listed[count : count + 1]:
      raise UserError(f"clip {count} must be the one that the manifest lists; got {found}.")
    count += 1
    yield clip
  if count != len(listed):
    raise UserError(f"the manifest lists {len(listed)} clips; got {count}.")


class ClipChecks:
  """Rules of a clip beyond its format; remembers what silence sounds like."""

  def __init__(self) -> None:
    self._silence: dict[int, np.ndarray] = {}

  def find(self, clip: Clip, gate_db: float) -> Iterator[tuple[str, str]]:
    """Yields (kind, detail) of everything about a clip that a user should know.

    Args:
      clip: of the right format.
      gate_db: the level a stem must reach to be a target.
    """
    members = clip.mix_members
    sounding = members.any(1)
    if len(np.unique(members, axis=0)) < len(members):
      yield "mixes", "two mixes sum the same stems"
    if sounding.all():
      yield "mixes", "no mix is silence"
    if clip.n_stems > 1:
      for stem in np.flatnonzero(members[sounding].all(0)):
        yield "mixes", f"every mix that sounds holds stem {stem}: it can have no context"
    gains = clip.mix_gain_db[members]
    if gains.size and (gains.min() < GAIN_DB[0] or gains.max() > GAIN_DB[1]):
      yield "gains", f"gains from {gains.min():g} to {gains.max():g} dB"
    yield from self._compare_codes(clip)
    if (loudest := float(clip.stem_level_db.max())) > LOUDEST_DB:
      yield "loudness", f"a cell of {loudest:g} dB above full scale"
    for stem in np.flatnonzero(clip.stem_level_db.max(1) < CORPUS_DB):
      yield "silent stems", f"stem {stem} is below {CORPUS_DB:g} dB throughout"
    if clip.target_db < gate_db:
      why = "known conditions" if clip.targets.any() else "any known condition"
      yield "no target", f"no stem of {why} reaches {gate_db:g} dB: training leaves it out"

  def _compare_codes(self, clip: Clip) -> Iterator[tuple[str, str]]:
    """Yields mixes whose codes are not those of silence, or of the lone stem they hold."""
    frames = clip.stem_codes.shape[1]
    for row, (members, codes) in enumerate(zip(clip.mix_members, clip.mix_codes, strict=True)):
      if not members.any():
        silence = self._silence.setdefault(frames, codes.copy())
        if not np.array_equal(codes, silence):
          yield "mixes", f"mix {row} is silence, but its codes differ from other silence"
      elif members.sum() == 1 and clip.mix_gain_db[row, members.argmax()] == 0:
        same = np.array_equal(codes, clip.stem_codes[members.argmax()])
        if not same:
          yield "mixes", f"mix {row} is one stem, but its codes are not the stem's"
