# SPDX-License-Identifier: Apache-2.0
"""example: python -m data_prep.tokenize --corpus slakh --root music --codec bundle --out shards

Turns a corpus of stems into token shards for training: stems and random mixes of them, as EnCodec
codes. Stopped and started again, it goes on where it was; the dataset appears when it is whole.
"""

import argparse
import dataclasses
import hashlib
import importlib.util
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from data_prep.corpora import CORPORA, open_corpus
from data_prep.corpora.types import Track
from data_prep.tokenizer import Codec, Tokenizer, TokenSettings
from stemgen_jax.cli import build_parser
from stemgen_jax.clips import Clip, Metadata
from stemgen_jax.errors import UserError, run_cli
from stemgen_jax.files import make_folder
from stemgen_jax.records import Dataset, dataset_folder, read_clips, write_dataset, write_shard

_log = logging.getLogger(__name__)
_ENDS = 2**16


def tokenize_corpus(
  corpus_name: str,
  root: str | os.PathLike,
  codec: Codec,
  out: str | os.PathLike,
  *,
  name: str | None = None,
  settings: TokenSettings | None = None,
  shard_songs: int = 100,
  batch_size: int = 1,
  threads: int = 1,
) -> Path:
  """Writes the token shards of a corpus and returns their folder, `out/name/VERSION`.

  Each finished track is a file in a hidden folder beside the dataset, named after all its tokens
  depend on (settings, codec, audio files); a later run takes what it finds there. A dataset made
  of just the same is left as it is.

  Raises:
    UserError: if the corpus cannot be read, or another dataset of that name exists.
  """
  settings, spec = settings or TokenSettings(), codec.spec
  settings.validate()
  name = name or corpus_name
  directory = dataset_folder(out, name)
  staging = directory.with_name(".parts")
  corpus = open_corpus(corpus_name, root)
  tracks = corpus.tracks()
  metadata = Metadata(
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
  keys = [hash_track(track, metadata, settings) for track in tracks]
  digest = hashlib.sha256(" ".join([*keys, str(shard_songs)]).encode()).hexdigest()
  made_by = {"corpus": corpus_name, "digest": digest, **dataclasses.asdict(settings)}
  metadata = dataclasses.replace(metadata, settings=made_by)
  if directory.exists() and Dataset.open(directory).metadata.settings.get("digest") == digest:
    _log.info("%s is already whole", directory)
    return directory
  if directory.exists():
    raise UserError(
      f"dataset must be new or made of the same; got {directory}, made of other music or settings."
      " Remove it, or choose another --name."
    )
  make_folder(staging, "--out")
  paths = [staging / f"{t.split}-{t.id}-{key}" for t, key in zip(tracks, keys)]
  tokenizer = Tokenizer(codec, metadata, settings, batch_size, threads)
  _tokenize_parts(tracks, paths, tokenizer, metadata)
  splits: dict[str, list[Iterator[Clip]]] = {}
  for split in dict.fromkeys(track.split for track in tracks):
    parts = [path for track, path in zip(tracks, paths) if track.split == split]
    splits[split] = [
      _read_parts(parts[i : i + shard_songs], metadata) for i in range(0, len(parts), shard_songs)
    ]
  write_dataset(out, name, metadata, splits)
  shutil.rmtree(staging)
  return directory


def hash_track(track: Track, metadata: Metadata, settings: TokenSettings) -> str:
  """Returns a short hash of all that a track's tokens depend on."""
  files = [(_hash_ends(f.path), dict(s.conditions)) for s in track.stems for f in s.files]
  content = [track.id, files, dataclasses.asdict(metadata), dataclasses.asdict(settings)]
  return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _hash_ends(path: Path) -> str:
  """Returns a hash of a file's size and ends: a FLAC holds the MD5 of its samples in its head."""
  with path.open("rb") as file:
    size = file.seek(0, os.SEEK_END)
    tail_start = file.seek(max(size - _ENDS, 0))
    tail = file.read()
    file.seek(0)
    head = file.read(min(_ENDS, tail_start))
  return hashlib.sha256(b"%d " % size + head + tail).hexdigest()


def _tokenize_parts(
  tracks: list[Track], paths: list[Path], tokenizer: Tokenizer, metadata: Metadata
) -> None:
  """Writes each track that has no file yet to its path, under a progress bar."""
  console = Console(stderr=True)
  columns = (
    TextColumn("{task.description}"),
    BarColumn(),
    TextColumn("{task.completed:.0f}/{task.total:.0f} stems"),
    TextColumn("{task.fields[speed]}"),
    TimeElapsedColumn(),
    TimeRemainingColumn(),
  )
  todo = [(track, path) for track, path in zip(tracks, paths) if not path.exists()]
  if len(todo) < len(tracks):
    _log.info("%d of %d tracks are done already", len(tracks) - len(todo), len(tracks))
  began_s = time.monotonic()
  with Progress(*columns, console=console) as progress:
    total = sum(len(track.stems) for track, _ in todo)
    task = progress.add_task("tokenising", total=total, speed="")
    for track, path in todo:
      partial = path.with_name(f"{path.name}.partial")
      write_shard(partial, tokenizer.tokenize(track), metadata)
      os.replace(partial, path)
      speed = tokenizer.encoded_s / (time.monotonic() - began_s)
      progress.update(task, advance=len(track.stems), speed=f"{speed:.1f}x real time")
  if todo:
    took_s = time.monotonic() - began_s
    _log.info(
      "encoded %.0f s of audio (stems and mixes) in %.0f s: %.1f times real time",
      *(tokenizer.encoded_s, took_s, tokenizer.encoded_s / took_s),
    )


def _read_parts(paths: list[Path], metadata: Metadata) -> Iterator[Clip]:
  """Yields the clips of finished tracks."""
  for path in paths:
    yield from read_clips(path, metadata)


def main(argv: list[str] | None = None) -> None:
  """Runs the command; the folder of the shards goes to stdout."""
  args = build_arguments().parse_args(argv)
  handler = RichHandler(console=Console(stderr=True), show_path=False, show_time=False)
  logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])
  directory = tokenize_corpus(
    args.corpus,
    args.root,
    load_codec(args.codec, args.backend, args.device),
    args.out,
    name=args.name,
    settings=TokenSettings(clip_s=args.clip_s, mixes=args.mixes, seed=args.seed),
    shard_songs=args.shard_songs,
    batch_size=args.batch,
    threads=args.threads,
  )
  dataset = Dataset.open(directory)
  for split in dataset.shards:
    source = dataset.source(split)
    hours = sum(source.frames) / dataset.metadata.frame_rate_hz / 3600
    print(f"{split}: {len(set(source.songs))} songs, {len(source)} clips, {hours:.2f} h")
  print(directory)


def load_codec(bundle: str, backend: str | None = None, device: str = "cpu") -> Codec:
  """Returns a bundle's codec in PyTorch or JAX: their tokens are the same.

  Args:
    bundle: its folder.
    backend: torch, jax, or None for torch where it is installed.
    device: of torch, cpu or cuda; JAX takes the accelerator that it finds.

  Raises:
    UserError: if the backend or the device is not there, or the bundle cannot be used.
  """
  installed = all(importlib.util.find_spec(name) for name in ("torch", "encodec"))
  backend = backend or ("torch" if installed else "jax")
  if backend == "jax":
    if device != "cpu":
      raise UserError(f"device is torch's; got device={device} with backend=jax. Leave it out.")
    from stemgen_jax import codec

    return codec.load(bundle)
  if not installed:
    raise UserError("backend must be installed; got backend=torch without it. Use --backend jax.")
  import torch

  from data_prep.torch_codec import TorchCodec

  if device == "cuda" and not torch.cuda.is_available():
    raise UserError("device must be one that torch has; got device=cuda. Use --device cpu.")
  # One thread a signal, none inside an operation: torch's own threads wait by spinning, and two of
  # them were ten times slower than one when another program used a core.
  torch.set_num_threads(1)
  return TorchCodec(bundle, device)


def _positive(text: str) -> int:
  if not text.isdecimal() or int(text) < 1:
    raise argparse.ArgumentTypeError(f"must be a whole number above 0; got {text!r}")
  return int(text)


def build_arguments() -> argparse.ArgumentParser:
  """Returns the parser of the command line."""
  parser, defaults = build_parser(__doc__), TokenSettings()
  parser.add_argument("--corpus", required=True, help=f"one of {', '.join(CORPORA)}")
  parser.add_argument("--root", required=True, metavar="DIR", help="the folder of the corpus")
  parser.add_argument("--codec", required=True, metavar="BUNDLE", help="a codec bundle")
  parser.add_argument("--out", required=True, metavar="DIR", help="where datasets go")
  parser.add_argument("--name", help="of the dataset; the corpus' name if not given")
  parser.add_argument("--clip_s", type=float, default=defaults.clip_s, help="longest record, in s")
  parser.add_argument("--mixes", type=int, default=defaults.mixes, help="context mixes of a clip")
  parser.add_argument("--seed", type=int, default=defaults.seed, help="of the mixes")
  parser.add_argument("--shard_songs", type=_positive, default=100, help="songs in a file")
  parser.add_argument("--batch", type=_positive, default=1, help="signals a thread encodes at once")
  parser.add_argument("--threads", type=_positive, default=os.cpu_count(), help="that encode")
  parser.add_argument(
    "--backend", choices=("torch", "jax"), help="of the codec; torch where it is installed"
  )
  parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="of torch")
  return parser


if __name__ == "__main__":
  sys.exit(run_cli(main))
