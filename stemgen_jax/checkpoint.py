# SPDX-License-Identifier: Apache-2.0
"""Checkpoints by Orbax: training state, averaged weights, data position and settings, as one unit.

A workdir holds `checkpoints/STEP/`. Sampling reads only the averaged weights and the settings.
"""

import logging
import os
from pathlib import Path
from typing import Any

import grain.checkpoint
import jax
import orbax.checkpoint as ocp
from jax.sharding import Mesh

from stemgen_jax import sharding
from stemgen_jax.config import Config, from_dict
from stemgen_jax.errors import UserError
from stemgen_jax.model import build
from stemgen_jax.step import TrainState
from stemgen_jax.types import Params

logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax tells of every save


class Checkpoints:
  """The checkpoints of one workdir, newest last."""

  def __init__(self, workdir: str | os.PathLike, kept: int):
    """Opens (and creates) the folder; `kept` newest checkpoints are kept."""
    self._manager = ocp.CheckpointManager(
      Path(workdir).resolve() / "checkpoints",
      options=ocp.CheckpointManagerOptions(max_to_keep=kept),
    )

  def latest_step(self) -> int | None:
    """The step of the newest checkpoint, or None."""
    return self._manager.latest_step()

  def save(self, state: TrainState, iterator: Any, meta: dict[str, Any]) -> None:
    """Saves in the background; `iterator` is Grain's and is saved at its present position."""
    step = int(state.step)
    if step == self.latest_step():
      return
    self._manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(
          {"step": state.step, "params": state.params, "opt_state": state.opt_state}
        ),
        average=ocp.args.StandardSave(state.average),
        data=grain.checkpoint.CheckpointSave(iterator),
        meta=ocp.args.JsonSave(meta),
      ),
    )

  def restore(self, abstract: TrainState, iterator: Any) -> TrainState:
    """Returns the newest state, laid out as `abstract` (shapes and shardings); moves `iterator`."""
    restored = self._manager.restore(
      self.latest_step(),
      args=ocp.args.Composite(
        state=ocp.args.StandardRestore(
          {"step": abstract.step, "params": abstract.params, "opt_state": abstract.opt_state}
        ),
        average=ocp.args.StandardRestore(abstract.average),
        data=grain.checkpoint.CheckpointRestore(iterator),
      ),
    )
    return TrainState(**restored["state"], average=restored["average"])

  def read_meta(self) -> dict[str, Any]:
    """The settings saved with the newest checkpoint."""
    return _read_meta(self._manager)

  def close(self) -> None:
    """Waits for saves under way."""
    self._manager.close()


def load_average(workdir: str | os.PathLike, mesh: Mesh) -> tuple[Config, Params, dict[str, Any]]:
  """Returns the run's config, its averaged weights on the mesh, its step and other settings.

  Raises:
    UserError: if the folder holds no checkpoint, or its newest one is damaged.
  """
  folder = Path(workdir).resolve() / "checkpoints"
  manager = None
  if folder.is_dir():
    manager = ocp.CheckpointManager(folder, options=ocp.CheckpointManagerOptions(read_only=True))
  if manager is None or manager.latest_step() is None:
    raise UserError(
      f"checkpoint folder must be a workdir that stemgen_jax.train wrote; got {workdir} without"
      " checkpoints. Train first, or check the path."
    )
  step = manager.latest_step()
  try:
    meta = _read_meta(manager)
    config = from_dict(meta["config"])
    shapes = jax.eval_shape(build(config.model).init, jax.random.key(0))
    restored = manager.restore(
      step,
      args=ocp.args.Composite(average=ocp.args.StandardRestore(abstract_like(shapes, mesh))),
    )
  except (KeyError, OSError, ValueError) as error:
    raise UserError(
      f"checkpoint must be whole; got {folder / str(step)}, which cannot be read"
      f" ({type(error).__name__}: {str(error)[:120]}). Remove it to use the one before."
    ) from error
  meta["step"] = step
  manager.close()
  return config, restored["average"], meta


def abstract_like(shapes: Any, mesh: Mesh) -> Any:
  """Returns the shapes with their shardings on the mesh, for restoring straight to devices."""
  return jax.tree.map(
    lambda s, place: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place),
    shapes,
    sharding.tree_shardings(shapes, mesh),
  )


def _read_meta(manager: ocp.CheckpointManager) -> dict[str, Any]:
  step = manager.latest_step()
  return manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
