# SPDX-License-Identifier: Apache-2.0
r"""Measures the speed of one part on this machine: a table, and with --json the same as rows.

Example:
  python -m stemgen_jax.bench codec --seconds 10 --json codec.json

Parts: codec (encoding and decoding, in JAX and in PyTorch), data (examples read from shards),
sample (a stem, beside plain PyTorch), scale (start-up and memory of training by number of songs),
train (step time).
"""

import sys
from pathlib import Path

from stemgen_jax.bench import codec, data, sample, scale, train
from stemgen_jax.bench.table import show_rows
from stemgen_jax.errors import run_cli
from stemgen_jax.shell.flags import build_parser
from stemgen_jax.shell.folders import make_folder

# Each part has a docstring, COLUMNS, add_arguments and measure_all.
PARTS = {"codec": codec, "data": data, "sample": sample, "scale": scale, "train": train}


def main(argv: list[str] | None = None) -> None:
  """Runs the subcommand of the command line.

  Raises:
    UserError: if an argument breaks a rule, or a codec cannot be loaded.
  """
  parser = build_parser(__doc__)
  parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
  for name, part in PARTS.items():
    told = part.__doc__ or name
    chosen = parts.add_parser(name, help=told.splitlines()[0], description=told)
    chosen.formatter_class = parser.formatter_class
    chosen.add_argument("--json", type=Path, metavar="FILE", help="write the rows here too")
    part.add_arguments(chosen)
  arguments = parser.parse_args(argv)
  if arguments.json:
    make_folder(arguments.json.parent, "the folder of --json")
  part = PARTS[arguments.part]
  show_rows(part.measure_all(arguments), part.COLUMNS, arguments.json)


if __name__ == "__main__":
  sys.exit(run_cli(main))
