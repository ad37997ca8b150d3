# SPDX-License-Identifier: Apache-2.0
"""Joins datasets of token shards into one, so that a model can train on all of them.

Example:
  python -m data_prep.join shards/slakh shards/mine --out shards --name all

They must be of one codec and have the same conditions. Splits keep their songs, which are named
DATASET/SONG from then on. `data_prep.inspect` finds songs that two datasets have in other splits.
"""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from stemgen_jax.data.clips import Clip
from stemgen_jax.data.records import Dataset, write_dataset
from stemgen_jax.data.shards import read_clips
from stemgen_jax.errors import UserError, run_cli
from stemgen_jax.shell.flags import build_parser

FREE = ("settings", "clip_s")  # what may differ


def join(paths: Sequence[Path], out: Path, name: str) -> Path:
  """Writes the clips of several datasets to `out/name/VERSION` and returns that folder.

  Raises:
    UserError: if there are fewer than two, two have one name, they do not fit together, one is
      damaged, or the new one exists.
  """
  datasets = [Dataset.open(path) for path in paths]
  names = [dataset.path.parent.name for dataset in datasets]
  if len(set(names)) < max(len(names), 2):
    raise UserError(f"datasets must be two or more of different names; got {', '.join(names)}.")
  first = datasets[0].metadata
  for path, dataset in zip(paths, datasets, strict=True):
    for field in dataclasses.fields(first):
      ours, its = getattr(first, field.name), getattr(dataset.metadata, field.name)
      if field.name not in FREE and ours != its:
        raise UserError(
          f"datasets must have the same {field.name}; got {its} in {path} and {ours} in {paths[0]}."
          " Tokenise them alike."
        )
  metadata = dataclasses.replace(
    first,
    clip_s=max(dataset.metadata.clip_s for dataset in datasets),
    settings={
      name: dataset.metadata.settings for name, dataset in zip(names, datasets, strict=True)
    },
  )
  splits: dict[str, list[Iterator[Clip]]] = {}
  for dataset, its_name in zip(datasets, names, strict=True):
    for split, shards in dataset.shards.items():
      splits.setdefault(split, []).extend(
        rename(read_clips(dataset.path / shard.file, dataset.metadata), its_name)
        for shard in shards
      )
  return write_dataset(out, name, metadata, splits)


def rename(clips: Iterator[Clip], dataset: str) -> Iterator[Clip]:
  """Yields the clips, each of song DATASET/SONG."""
  for clip in clips:
    yield dataclasses.replace(clip, song=f"{dataset}/{clip.song}")


def main(argv: list[str] | None = None) -> None:
  """Joins the datasets of the command line, and prints the folder of the new one."""
  parser = build_parser(__doc__)
  parser.add_argument("datasets", type=Path, nargs="+", help="what data_prep.tokenize wrote")
  parser.add_argument("--out", type=Path, required=True, help="folder of datasets")
  parser.add_argument("--name", default="joined", help="of the new one (default joined)")
  arguments = parser.parse_args(argv)
  directory = join(arguments.datasets, arguments.out, arguments.name)
  for split, shards in Dataset.open(directory).shards.items():
    print(f"{split}: {len({song for shard in shards for song in shard.songs})} songs")
  print(directory)


if __name__ == "__main__":
  sys.exit(run_cli(main))
