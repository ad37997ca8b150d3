# SPDX-License-Identifier: Apache-2.0
r"""Turns a training run into a model to hand on: two files, in half precision, without optimiser.

Example:
  python -m stemgen_jax.export --checkpoint runs/mine --out my_model --licence "CC BY 4.0"

Every command that takes --checkpoint takes the folder; so does `train --init_from`.
"""

import sys
from pathlib import Path

import jax

from stemgen_jax.config import MeshConfig
from stemgen_jax.errors import run_cli
from stemgen_jax.model import sharding
from stemgen_jax.shell.flags import build_parser
from stemgen_jax.training.checkpoint import load_average
from stemgen_jax.training.model_bundle import save_model


def main(argv: list[str] | None = None) -> None:
  """The command."""
  parser = build_parser(__doc__)
  add = parser.add_argument
  add("--checkpoint", required=True, metavar="MODEL", help="as sample's; mostly a workdir")
  add("--out", required=True, type=Path, help="a new folder")
  add("--licence", default="", help="of the weights; it is written beside them")
  add("--about", default="", help="what the model was trained on, in a sentence")
  arguments = parser.parse_args(argv)
  mesh = sharding.build_mesh(MeshConfig(), jax.devices()[:1])
  config, params, meta = load_average(arguments.checkpoint, mesh)
  kept = {"dataset": meta["dataset"], "step": meta["step"], "git_commit": meta.get("git_commit")}
  kept["listening_score_nats"] = meta.get("listening_score_nats")
  told = {"licence": arguments.licence, "about": arguments.about}
  save_model(arguments.out, config, jax.device_get(params), {**kept, **told})
  print(arguments.out)


if __name__ == "__main__":
  sys.exit(run_cli(main))
