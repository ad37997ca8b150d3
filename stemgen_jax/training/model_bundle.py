# SPDX-License-Identifier: Apache-2.0
"""A trained model as two files to hand on: `model.json` and `weights.safetensors`, half precision.

What training needs and sampling does not (optimiser, data, paths of one machine) stays behind.
"""

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from safetensors import SafetensorError
from safetensors.numpy import load, save

from stemgen_jax.config import Config
from stemgen_jax.config_json import from_dict, to_dict
from stemgen_jax.errors import UserError
from stemgen_jax.model import sharding
from stemgen_jax.model.network import build
from stemgen_jax.shell import hub
from stemgen_jax.shell.folders import appearing, is_sealed, make_folder, seal, write_text
from stemgen_jax.types import Params

MODEL_FILE, WEIGHTS_FILE = "model.json", "weights.safetensors"
SHIPPED = Path(__file__).parents[1] / "shipped"  # the model of this package
SONGS = SHIPPED / "songs"  # tokens of songs to judge a model on where none are given
EXAMPLE = SHIPPED / "example.ogg"  # music to listen to where none is given
FORMAT = 1


def save_model(
  path: Path, config: Config, params: Params, meta: dict[str, Any], card: str | None = None
) -> None:
  """Writes a model as a new folder, which appears whole or not at all.

  Args:
    path: the folder.
    config: of the run.
    params: its averaged weights.
    meta: "dataset" (codec and rates), "step", and what else there is to say of it, of JSON types.
    card: the text of a README.md beside them.

  Raises:
    UserError: if the folder is there already.
  """
  if path.exists():
    raise UserError(f"--out must be a new folder; got {path}. Remove it, or choose another.")
  weights = save({name: np.asarray(leaf, np.float16) for name, leaf in _flatten(params).items()})
  bare = dataclasses.replace(config, data=dataclasses.replace(config.data, path="", codec=""))
  dataset = {name: value for name, value in meta["dataset"].items() if name != "path"}
  content = {
    **meta,
    "format": FORMAT,
    "sha256": hashlib.sha256(weights).hexdigest(),
    "config": to_dict(bare),
    "dataset": dataset,
  }
  with appearing(path) as partial:
    make_folder(partial, "--out")
    (partial / WEIGHTS_FILE).write_bytes(weights)
    write_text(partial / MODEL_FILE, json.dumps(seal(content), indent=1) + "\n")
    if card is not None:
      write_text(partial / "README.md", card)


def locate(checkpoint: str | os.PathLike) -> tuple[Path, str]:
  """Returns the folder of a checkpoint, and what a result calls it.

  Args:
    checkpoint: a workdir of `stemgen_jax.train`, a folder of `stemgen_jax.export`, "shipped", the
      model of this package, or `hf://OWNER/NAME` or `hf://OWNER/NAME@REVISION`, an export that
      somebody has published at the Hugging Face hub: it is fetched, and kept in the hub's cache.

  Raises:
    UserError: if a published model cannot be fetched, or is not one of `save_model`.
  """
  text = os.fspath(checkpoint)
  if text == "shipped":
    return SHIPPED, text
  if not text.startswith(hub.SCHEME):
    return Path(text), str(Path(text).resolve())
  snapshot = hub.fetch(text, (MODEL_FILE, WEIGHTS_FILE), "checkpoint")
  if not is_model(snapshot.folder):
    raise UserError(
      f"checkpoint must name a model that stemgen_jax.export wrote; got {text}, which holds no"
      f" {MODEL_FILE}. Choose another."
    )
  return snapshot.folder, f"{hub.SCHEME}{snapshot.name}@{snapshot.commit}"


def is_model(path: str | os.PathLike) -> bool:
  """Returns whether a folder holds a model that `save_model` wrote."""
  return (Path(path) / MODEL_FILE).is_file()


def load_model(path: str | os.PathLike, mesh: Mesh) -> tuple[Config, Params, dict[str, Any]]:
  """Returns settings, float32 weights on the mesh, and what `save_model` was told.

  Raises:
    UserError: if a file is missing, damaged or of another version.
  """
  path = Path(path)
  try:
    meta = json.loads((path / MODEL_FILE).read_text(encoding="utf-8"))
    weights = (path / WEIGHTS_FILE).read_bytes()
    if meta["format"] != FORMAT:
      raise UserError(
        f"a model must have format {FORMAT}; got {meta['format']} in {path}. Upgrade stemgen_jax."
      )
    if not is_sealed(meta, always=True):
      raise UserError(f"a model must be whole; {path / MODEL_FILE} was changed. Copy it again.")
    if hashlib.sha256(weights).hexdigest() != meta["sha256"]:
      raise UserError(f"a model must be whole; {path / WEIGHTS_FILE} is not. Copy it again.")
    config, stored = from_dict(meta["config"]), load(weights)
  except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
    raise UserError(
      f"a model must be a folder of {MODEL_FILE} and {WEIGHTS_FILE}; got {path}"
      f" ({error!r}). Copy it again."
    ) from error
  shapes = jax.eval_shape(build(config.model).init, jax.random.key(0))
  wanted = {name: leaf.shape for name, leaf in _flatten(shapes).items()}
  if wanted != {name: array.shape for name, array in stored.items()}:
    raise UserError(f"a model's weights must fit its settings; those of {path} do not.")
  params = jax.tree.map_with_path(lambda where, _: stored[_name(where)].astype(np.float32), shapes)
  return config, jax.device_put(params, sharding.tree_shardings(params, mesh)), meta


def _flatten(tree: Any) -> dict[str, Any]:
  return {_name(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def _name(path: tuple) -> str:
  return jax.tree_util.keystr(path, simple=True, separator="/")
