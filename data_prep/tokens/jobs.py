# SPDX-License-Identifier: Apache-2.0
"""Tokenising one track, in whatever process or machine: the job, the worker, the outcome.

A finished track is a file of its clips, its *part*, that appears by rename under a name made of all
its tokens depend on. So work is never done twice, and whoever sees the folder sees what is done.
"""

import dataclasses
import hashlib
import json
import logging
import os
import re
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from data_prep.corpora.stem_audio import can_be_read
from data_prep.corpora.types import AudioFile, Track
from data_prep.tokens.augment import Augmentation
from data_prep.tokens.tokenizer import Codec, Tokenizer, TokenSettings, name_version
from stemgen_jax.data.clips import Metadata
from stemgen_jax.data.shards import write_shard
from stemgen_jax.errors import UserError
from stemgen_jax.shell.folders import appearing, read_json, write_text

_log = logging.getLogger(__name__)
_ENDS = 2**16  # bytes hashed at either end of a file
_BLOCK, _BLOCKS = 2**12, 64  # and between them
_READERS = 8  # threads


@dataclasses.dataclass(frozen=True)
class Job:
  """A track to tokenise, or an augmented version of it, and the file its clips go to."""

  track: Track
  part: Path
  augmentation: Augmentation | None = None

  @property
  def song(self) -> str:
    """Returns the song's name in the dataset."""
    return name_version(self.track, self.augmentation) if self.augmentation else self.track.id

  @property
  def failure(self) -> Path:
    """Returns the file that says why the job failed, if it did."""
    return self.part.with_name(f"{self.part.name}.failed")

  @property
  def note(self) -> Path:
    """Returns the file that says which stems the part lacks, if it lacks any."""
    return self.part.with_name(f"{self.part.name}.left_out")

  def read_left_out(self) -> dict[str, str]:
    """Returns the names of the stems that the part lacks, and why."""
    return read_json(self.note) if self.part.exists() and self.note.exists() else {}

  def is_done(self) -> bool:
    """Returns whether there is a part, whose stems could not be more by now."""
    lacking = self.read_left_out()
    stems = [stem for stem in self.track.stems if stem.name in lacking]
    return self.part.exists() and all(not can_be_read(stem) for stem in stems)

  def read_failure(self) -> str | None:
    """Returns why the job has no part: None if it has one, or was not run."""
    if self.part.exists() or not self.failure.exists():
      return None
    return self.failure.read_text(encoding="utf-8")


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What a job took and came to.

  Attributes:
    encoded_s: seconds of audio encoded, stems and mixes.
    reason: why it failed; None if it did not.
    left_out: name of each stem that could not be read -> why; the others are encoded.
    low_rates: sample rates of files below the codec's, each with one file that has it.
  """

  encoded_s: float
  reason: str | None
  left_out: Mapping[str, str]
  low_rates: Mapping[int, Path]


class TrackWorker:
  """Does jobs, one after the other, with one codec."""

  def __init__(
    self,
    make_codec: Callable[[], Codec],
    metadata: Metadata,
    settings: TokenSettings,
    batch_size: int = 1,
    threads: int = 1,
  ):
    self._metadata = metadata
    self._tokenizer = Tokenizer(make_codec(), metadata, settings, batch_size, threads)

  def __call__(self, job: Job) -> Outcome:
    """Writes a job's part, or says in its failure file why there is none.

    Raises:
      OSError, RuntimeError: if the part cannot be written; then no other could be.
    """
    tokenizer = self._tokenizer
    before_s, reason, clips = tokenizer.encoded_s, None, []
    try:
      clips = list(tokenizer.tokenize(job.track, job.augmentation))
    except UserError as error:
      reason = str(error)
    except Exception as error:  # one song in ten thousand must not end a run of days
      _log.debug("track %s", job.track.id, exc_info=True)
      reason = f"{type(error).__name__}: {error}"
    left_out = tokenizer.left_out if reason is None else {}
    if reason is None:
      if left_out:
        write_text(job.note, json.dumps(left_out))
      own = job.part.with_name(f"{job.part.name}.{uuid.uuid4().hex}.partial")  # of two workers
      with appearing(job.part, own) as partial:
        write_shard(partial, clips, self._metadata)
    else:
      write_text(job.failure, reason)
    return Outcome(tokenizer.encoded_s - before_s, reason, left_out, tokenizer.low_rates)


def make_jobs(
  tracks: list[Track],
  augmentations: Callable[[Track], list[Augmentation]],
  metadata: Metadata,
  settings: TokenSettings,
  folder: Path,
) -> list[Job]:
  """Returns a job for each track, followed by those for its augmented versions.

  The part's name holds a hash of the track's audio files, the dataset's metadata and the settings.
  """
  alone = dataclasses.replace(settings, augment=0)  # a part does not depend on what else is made
  shared = json.dumps([dataclasses.asdict(metadata), dataclasses.asdict(alone)])
  with ThreadPoolExecutor(_READERS, "hash") as pool:
    contents = list(pool.map(_describe_content, tracks))
  jobs = []
  for track, content in zip(tracks, contents, strict=True):
    for augmentation in (None, *augmentations(track)):
      key = hashlib.sha256(f"{content}{shared}{augmentation}".encode()).hexdigest()[:20]
      name = f"{track.split}-{re.sub(r'[^A-Za-z0-9_-]+', '_', track.id)[-60:]}-{key}"
      jobs.append(Job(track, folder / name, augmentation))
  return jobs


def _describe_content(track: Track) -> str:
  stems = [
    [[hash_file_roughly(file) for file in stem.files], dict(stem.conditions)]
    for stem in track.stems
  ]
  return json.dumps([track.id, stems, dict(track.conditions)])


def hash_file_roughly(file: AudioFile) -> str:
  """Returns a hash of a file's size, ends, and blocks in between: reading all would take hours.

  A FLAC holds the MD5 of its samples in its head. Of other formats a small edit in place may pass
  unseen; one of another length, or a new export, does not. A missing file has a hash of its own.
  """
  digest = hashlib.sha256(f"{file.stream}".encode())
  try:
    with file.path.open("rb") as stream:
      size = stream.seek(0, os.SEEK_END)
      digest.update(b"%d " % size)
      for start, length in _blocks(size):
        stream.seek(start)
        digest.update(stream.read(length))
  except OSError as error:  # the job will fail, and say so
    digest.update(str(error.errno).encode())
  return digest.hexdigest()


def _blocks(size: int) -> list[tuple[int, int]]:
  """Returns (start, length) of the blocks of a file that are hashed."""
  if size <= 2 * _ENDS + _BLOCK * _BLOCKS:
    return [(0, size)]
  between = size - 2 * _ENDS - _BLOCK
  inner = [(_ENDS + between * i // (_BLOCKS - 1), _BLOCK) for i in range(_BLOCKS)]
  return [(0, _ENDS), *inner, (size - _ENDS, _ENDS)]
