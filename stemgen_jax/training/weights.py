# SPDX-License-Identifier: Apache-2.0
"""The weights that sampling reads, of a run or of a model that was handed on."""

import os
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from stemgen_jax.config import Config
from stemgen_jax.errors import UserError
from stemgen_jax.shell import hub
from stemgen_jax.training.model_bundle import is_model, load_model, locate
from stemgen_jax.types import Params


def check_place(workdir: str | os.PathLike) -> None:
  """Raises a UserError if a folder of this machine cannot hold what `load_average` reads."""
  text = os.fspath(workdir)
  if text == "shipped" or text.startswith(hub.SCHEME):
    return
  if not (is_model(text) or (Path(text) / "checkpoints").is_dir()):
    raise UserError(
      f"--checkpoint must be a workdir that stemgen_jax.train wrote, or an exported model; got"
      f" {text}, which is neither. Check the path."
    )


def load_average(workdir: str | os.PathLike, mesh: Mesh) -> tuple[Config, Params, dict[str, Any]]:
  """Returns the config, the averaged weights on the mesh, their step and other settings.

  Those of a run are of the lowest validation loss; where nothing was validated, of the newest step.
  `workdir` may be whatever `model_bundle.locate` finds; the settings hold its name as "checkpoint".
  A damaged checkpoint is named on stderr and passed over for the one before.

  Raises:
    UserError: if there is no checkpoint, none that is whole, or it cannot be fetched.
  """
  place, name = locate(workdir)
  if is_model(place):
    config, params, meta = load_model(place, mesh)
  else:
    # Orbax takes a second to import: a model that was handed on needs none of it.
    from stemgen_jax.training.checkpoint import read_best

    config, params, meta = read_best(place, mesh)
  return config, params, {**meta, "checkpoint": name}
