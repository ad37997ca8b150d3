# SPDX-License-Identifier: Apache-2.0
"""example: python -m data_prep.tokenize --corpus slakh --root music --codec bundle --out shards

Turns a corpus of stems into token shards for training: stems and random mixes of them, as EnCodec
codes. Stopped and started again, it goes on where it was; the dataset appears when it is whole. A
stem that cannot be read is named and left out, and so is its song where it keeps no two; the exit
code is then 3: the same command, with the stem mended, completes the dataset. With --runner the
tracks go to an Apache Beam pipeline instead of this machine's cores: its workers must see the same
folders under the same paths.
"""

import argparse
import dataclasses
import functools
import hashlib
import logging
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from data_prep.checks.tables import FIRST
from data_prep.codecs.backends import load_codec
from data_prep.convert_codec import find_codec
from data_prep.corpora import CORPORA, open_corpus
from data_prep.corpora.types import Corpus
from data_prep.tokens.augment import draw_augmentation
from data_prep.tokens.job_runner import Engine, run_jobs
from data_prep.tokens.jobs import Job, make_jobs
from data_prep.tokens.tokenizer import Codec, TokenSettings
from stemgen_jax.data.clips import Metadata
from stemgen_jax.data.records import Dataset, dataset_folder, write_dataset
from stemgen_jax.data.shards import copy_shards
from stemgen_jax.errors import UserError, run_cli
from stemgen_jax.shell.flags import build_parser
from stemgen_jax.shell.folders import make_folder
from stemgen_jax.shell.progress import LineHandler

_log = logging.getLogger(__name__)


def tokenize_corpus(
  corpus: Corpus,
  make_codec: Callable[[], Codec],
  out: str | os.PathLike,
  *,
  name: str | None = None,
  settings: TokenSettings | None = None,
  shard_songs: int = 100,
  engine: Engine | None = None,
) -> tuple[Path, dict[str, str]]:
  """Writes the token shards of a corpus.

  Each finished track is a part in a hidden folder beside the dataset (see `jobs`); a later run
  takes what it finds there. A dataset made of just the same is left as it is; one that lacks tracks
  or stems which failed is made anew when any of them succeeds.

  Args:
    corpus: where the songs are.
    make_codec: picklable, so that each process can have its own codec.
    out: the folder of datasets.
    name: of the dataset; the corpus' name if not given.
    settings: what the tokens depend on beside corpus and codec.
    shard_songs: songs in a file.
    engine: what runs the work; None is this process alone.

  Returns:
    The dataset's folder, `out/name/VERSION`, and why each SONG or SONG/STEM is missing from it.

  Raises:
    UserError: if the corpus cannot be read, every track fails, or another dataset of that name
      exists.
  """
  settings, engine = settings or TokenSettings(), engine or Engine()
  settings.validate()
  directory = dataset_folder(out, name or corpus.name)
  staging = directory.with_name(".parts")
  tracks = corpus.tracks()
  for problem in corpus.problems[:FIRST]:
    _log.warning("%s: %s", problem.where, problem.what)
  if more := len(corpus.problems[FIRST:]):
    _log.warning("... and %d problems more: data_prep.inspect lists them", more)
  if not any(stem.category for track in tracks for stem in track.stems):
    names = sorted({stem.name for track in tracks for stem in track.stems})[:5]
    raise UserError(
      f"some stem must be of a known instrument; got none among {', '.join(names)}. Name the files"
      " after what plays in them, or give --categories; python -m data_prep.inspect lists all."
    )
  codec = make_codec()
  metadata = describe_dataset(codec, corpus, settings)

  def augmentations(track):
    versions = range(settings.augment if track.split == "train" else 0)
    return [draw_augmentation(settings.seed, track.id, version) for version in versions]

  jobs = make_jobs(tracks, augmentations, metadata, settings, staging)
  digest = hash_parts(jobs, shard_songs)
  made_by = {"corpus": corpus.name, "digest": digest, **dataclasses.asdict(settings)}
  if find_missing(directory, metadata, made_by) == {}:
    _log.info("%s is already whole", directory)
    return directory, {}
  make_folder(staging, "--out")
  run_jobs(
    jobs,
    make_codec if engine.workers > 1 or engine.runner else lambda: codec,
    metadata,
    settings,
    engine,
  )
  failed = {job.song: why for job in jobs if (why := job.read_failure())}
  done = [job for job in jobs if job.part.exists()]
  if len(done) + len(failed) < len(jobs):
    raise UserError(
      f"every worker must see --out; got no word of {len(jobs) - len(done) - len(failed)} tracks in"
      f" {staging}. Give a folder that all machines share."
    )
  if not done:
    song, reason = next(iter(failed.items()))
    raise UserError(
      f"a corpus must have a track that can be tokenised; got {len(failed)} that cannot, as {song}:"
      f" {reason}"
    )
  for job in done:
    failed |= {f"{job.song}/{stem}": why for stem, why in job.read_left_out().items()}
  metadata = dataclasses.replace(metadata, settings=made_by | {"failed": failed})
  if not directory.exists() or Dataset.open(directory).metadata != metadata:
    splits = share_out(done, shard_songs)
    name, replace = directory.parent.name, directory.exists()
    write_dataset(out, name, metadata, splits, replace, copy_shards)
  if not failed:
    shutil.rmtree(staging)
  return directory, failed


def describe_dataset(codec: Codec, corpus: Corpus, settings: TokenSettings) -> Metadata:
  """Returns what holds for every record."""
  spec = codec.spec
  return Metadata(
    codec_fingerprint=codec.fingerprint,
    n_levels=spec.n_levels,
    n_codes=spec.n_codes,
    frame_rate_hz=spec.frame_rate_hz,
    sample_rate_hz=spec.sample_rate,
    channels=spec.channels,
    sources=dict(corpus.sources),
    level_frames=max(round(settings.level_s * spec.frame_rate_hz), 1),
    clip_s=settings.clip_s,
  )


def find_missing(directory: Path, metadata: Metadata, made_by: dict) -> dict[str, str] | None:
  """Returns which songs and stems a dataset lacks and why; None if there is no dataset.

  Raises:
    UserError: if it was made of anything else. One that lacks some may be of other audio files:
      they may have been mended.
  """
  if not directory.exists():
    return None
  found = Dataset.open(directory).metadata
  failed = found.settings.get("failed", {})
  facts = [name for name in made_by if not (failed and name == "digest")]
  same = all(found.settings.get(name) == made_by[name] for name in facts)
  if not same or found.codec_fingerprint != metadata.codec_fingerprint:
    raise UserError(
      f"dataset must be new or made of the same; got {directory}, made of other music or"
      " settings. Remove it, or choose another --name."
    )
  return failed


def hash_parts(jobs: Sequence[Job], shard_songs: int) -> str:
  """Returns a hash of all that a dataset of these jobs depends on."""
  names = [job.part.name for job in jobs]
  return hashlib.sha256(" ".join([*names, str(shard_songs)]).encode()).hexdigest()


def share_out(jobs: Sequence[Job], shard_songs: int) -> dict[str, list[list[Path]]]:
  """Returns the parts of finished jobs: split -> for each shard, those of `shard_songs` songs."""
  splits = {}
  for split in dict.fromkeys(job.track.split for job in jobs):
    parts = [job.part for job in jobs if job.track.split == split]
    splits[split] = [parts[i : i + shard_songs] for i in range(0, len(parts), shard_songs)]
  return splits


def main(argv: list[str] | None = None) -> int:
  """Runs the command; the folder of the shards goes to stdout. Returns 3 if any was left out."""
  parser = build_arguments()
  args, options = parser.parse_known_args(argv)
  if options and not args.runner:
    parser.error(f"unrecognized arguments: {' '.join(options)}")
  logging.basicConfig(level=logging.INFO, handlers=[LineHandler()])
  accelerated = args.device != "cpu" or args.backend == "jax"
  directory, failed = tokenize_corpus(
    open_corpus(args.corpus, args.root, args.categories),
    functools.partial(load_codec, find_codec(args.codec), args.backend, args.device),
    args.out,
    name=args.name,
    settings=TokenSettings(
      clip_s=args.clip_s,
      mixes=args.mixes,
      gain_jitter_db=args.gain_jitter_db,
      mix_jitter_db=args.mix_jitter_db,
      augment=args.augment,
      seed=args.seed,
    ),
    shard_songs=args.shard_songs,
    engine=Engine(
      workers=args.workers or (1 if accelerated else os.cpu_count() or 1),
      batch_size=args.batch or (8 if accelerated else 1),
      runner=args.runner,
      options=tuple(options),
    ),
  )
  dataset = Dataset.open(directory)
  for split in dataset.shards:
    source = dataset.source(split)
    hours = source.frames.sum() / dataset.metadata.frame_rate_hz / 3600
    print(f"{split}: {len(set(source.songs))} songs, {len(source)} clips, {hours:.2f} h")
  print(directory)
  for song, reason in failed.items():
    print(f"left out: {song}: {reason}", file=sys.stderr)
  if failed:
    what = f"{len(failed)} song{'s or stems are' if len(failed) > 1 else ' or stem is'} left out"
    print(f"{what}: mend what is wrong and run the same command.", file=sys.stderr)
  return 3 if failed else 0


def _positive(text: str) -> int:
  if not text.isdecimal() or int(text) < 1:
    raise argparse.ArgumentTypeError(f"must be a whole number above 0; got {text!r}")
  return int(text)


def build_arguments() -> argparse.ArgumentParser:
  """Returns the parser of the command line."""
  parser, defaults = build_parser(__doc__), TokenSettings()
  add = parser.add_argument
  add("--corpus", default="auto", help=f"auto, or one of {', '.join(CORPORA)}")
  add("--root", required=True, metavar="DIR", help="the folder of the corpus")
  add("--codec", required=True, metavar="BUNDLE", help="a codec bundle, or OWNER/NAME")
  add("--out", required=True, metavar="DIR", help="where datasets go")
  add("--name", help="of the dataset; the corpus' name if not given")
  add("--categories", metavar="FILE", help="a table in the place of corpora/categories.yaml")
  add("--clip_s", type=float, default=defaults.clip_s, help="longest clip, in s")
  add("--mixes", type=int, default=defaults.mixes, help="context mixes of a clip")
  add("--gain_jitter_db", type=float, default=defaults.gain_jitter_db,
      help="a stem's gain in a mix is uniform within plus and minus this")  # fmt: skip
  add("--mix_jitter_db", type=float, default=defaults.mix_jitter_db,
      help="and the gain of a whole mix within this")  # fmt: skip
  add("--augment", type=int, default=defaults.augment,
      help="further versions of each training song, in other keys and tempi")  # fmt: skip
  add("--seed", type=int, default=defaults.seed, help="of mixes, gains and augmentation")
  add("--shard_songs", type=_positive, default=100, help="songs in a file")
  add(
    "--workers",
    type=_positive,
    help="processes that encode; by default one a core, or one in"
    " all for cuda and JAX, which take the whole machine",
  )
  add("--batch", type=_positive, help="signals encoded at once; by default 1, for cuda and JAX 8")
  add("--backend", choices=("torch", "jax"), help="of the codec; torch where it is installed")
  add("--device", default="cpu", choices=("cpu", "cuda"), help="of torch")
  add(
    "--runner",
    metavar="NAME",
    help="of Apache Beam (DirectRunner, DataflowRunner, FlinkRunner,"
    " ...), whose own flags may follow; without it, processes on this machine",
  )
  return parser


if __name__ == "__main__":
  sys.exit(run_cli(main))
