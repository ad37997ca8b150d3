# SPDX-License-Identifier: Apache-2.0
r"""Turns a training run into a model to hand on: two files, in half precision, without optimiser.

Example:
  python -m stemgen_jax.export --checkpoint runs/mine --out my_model --licence "CC BY 4.0"
  python -m stemgen_jax.export --checkpoint runs/mine --out my_model --licence "CC BY 4.0" \
    --about "Slakh2100, redux split" --card someone/my_model --report runs/report/report.json

Every command that takes --checkpoint takes the folder; so does `train --init_from`. With --card it
holds a model card too, README.md, and is ready for the Hugging Face hub (`hf upload`).
"""

import sys
from pathlib import Path

import jax

from stemgen_jax.card import draw_card
from stemgen_jax.config import MeshConfig
from stemgen_jax.errors import UserError, run_cli
from stemgen_jax.model import sharding
from stemgen_jax.shell.flags import build_parser
from stemgen_jax.training.model_bundle import save_model
from stemgen_jax.training.weights import load_average


def main(argv: list[str] | None = None) -> None:
  """Writes the exported model, and prints its folder."""
  parser = build_parser(__doc__)
  add = parser.add_argument
  add("--checkpoint", required=True, metavar="MODEL", help="as sample's; mostly a workdir")
  add("--out", required=True, type=Path, help="a new folder")
  add("--licence", default="", help="of the weights; it is written beside them")
  add("--about", default="", help="what the model was trained on, in a sentence")
  add(
    "--card",
    nargs="?",
    const="OWNER/NAME",
    metavar="OWNER/NAME",
    help="write a model card, whose commands call the model so",
  )
  add(
    "--report", type=Path, help="of stemgen_jax.evaluate, for the card: report.json or its folder"
  )
  add(
    "--codec",
    type=Path,
    help="its bundle, for the card (default: where training had it, or the demo codec)",
  )
  arguments = parser.parse_args(argv)
  for flag in ("report", "codec"):
    if getattr(arguments, flag) and not arguments.card:
      raise UserError(f"--{flag} must come with --card, which shows it; got no --card. Add it.")
  mesh = sharding.build_mesh(MeshConfig(), jax.devices()[:1])
  config, params, meta = load_average(arguments.checkpoint, mesh)
  kept = {"dataset": meta["dataset"], "step": meta["step"], "git_commit": meta.get("git_commit")}
  kept["listening_score_nats"] = meta.get("listening_score_nats")
  told = {"licence": arguments.licence, "about": arguments.about}
  card = None
  if arguments.card:
    card = draw_card(
      config,
      params,
      meta,
      name=arguments.card,
      codec=arguments.codec,
      report=arguments.report,
      **told,
    )
  save_model(arguments.out, config, jax.device_get(params), {**kept, **told}, card)
  print(arguments.out)


if __name__ == "__main__":
  sys.exit(run_cli(main))
