# SPDX-License-Identifier: Apache-2.0
"""example: python -m data_prep.inspect music --json report.json

Of a corpus of stems: shows what it holds, from its metadata and the headers of its audio files,
before anything is encoded. Exit code 3 if audio cannot be read.

Of a folder of token shards: checks every record, the checksums, the codes, mixes and loudness, and
looks for the same music in two splits; writes a page with pictures. Exit code 2 if a shard is
damaged, 3 if music leaks between splits.
"""

import argparse
import sys
from pathlib import Path

from data_prep.checks.corpus import inspect_corpus
from data_prep.checks.shards import inspect_dataset
from data_prep.corpora import AUTO, CORPORA
from stemgen_jax.data.records import MANIFEST_FILE
from stemgen_jax.errors import UserError, run_cli
from stemgen_jax.shell.flags import build_parser


def main(argv: list[str] | None = None) -> int:
  """Runs the command and returns its exit code; tables go to stdout."""
  args = build_arguments().parse_args(argv)
  path = Path(args.path)
  if not path.is_dir():
    raise UserError(f"path must be a folder; got path={path}. Check the path.")
  if not any(next(path.glob(depth + MANIFEST_FILE), None) for depth in ("", "*/", "*/*/")):
    return inspect_corpus(path, args.corpus, args.categories, args.json, show_all=args.all)
  return inspect_dataset(path, args.codec, args.json, args.page, show_all=args.all)


def build_arguments() -> argparse.ArgumentParser:
  """Returns the parser of the command line."""
  parser = build_parser(__doc__)
  parser.add_argument("path", metavar="PATH", help="a corpus' folder, or one of token shards")
  choices = ", ".join([AUTO, *CORPORA])
  parser.add_argument("--corpus", default=AUTO, help=f"one of {choices}; auto looks which it is")
  parser.add_argument("--categories", metavar="FILE", help="in place of corpora/categories.yaml")
  parser.add_argument("--codec", metavar="BUNDLE", help="that the shards must be made with")
  parser.add_argument(
    "--page", metavar="FILE", help="of shards; by default inspect.html beside them"
  )
  parser.add_argument("--json", metavar="FILE", help="where to write the same as data")
  parser.add_argument("--all", action="store_true", help="list all problems, not the first 20")
  return parser


if __name__ == "__main__":
  sys.exit(run_cli(main))
