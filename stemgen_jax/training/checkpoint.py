# SPDX-License-Identifier: Apache-2.0
"""Checkpoints by Orbax: training state, averaged weights and settings, as one unit.

A workdir holds `checkpoints/STEP/`, and `digests/STEP.json` to know a whole one by. Sampling reads
only the averaged weights and the settings. The data needs no state of its own: a step reads one
batch, so the step number is the position in the stream, whatever the number of processes.
"""

import logging
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from stemgen_jax.config import Config
from stemgen_jax.config_json import from_dict
from stemgen_jax.errors import UserError
from stemgen_jax.model import sharding
from stemgen_jax.model.network import build
from stemgen_jax.shell.folders import refuse_patterns
from stemgen_jax.training.digests import find_damage, set_aside, write_digest
from stemgen_jax.training.step import TrainState
from stemgen_jax.types import Params

logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax tells of every save


def _loss(metrics: dict[str, float]) -> float:
  return metrics["loss"]


_TOLD_BYTES = 512  # of what one process says to the others
_BY_LOSS = {"best_fn": _loss, "best_mode": "min"}  # so that Orbax stores the loss


def _is_first(record: logging.LogRecord) -> bool:
  """Whether asyncio says more than that a write failed after the one that is reported."""
  return "exception was never retrieved" not in record.getMessage()


class Checkpoints:
  """The checkpoints of one workdir, newest last."""

  def __init__(self, workdir: str | os.PathLike, kept: int):
    """Opens (and creates) the folder; the newest `kept` are kept, and the best one.

    Damaged ones are set aside, and named on stderr.
    """
    self._workdir = Path(workdir).resolve()
    logging.getLogger("asyncio").addFilter(_is_first)
    policies = ocp.checkpoint_managers
    best = policies.BestN(
      get_metric_fn=_loss, reverse=True, n=1, keep_checkpoints_without_metrics=False
    )
    policy = policies.AnyPreservationPolicy([policies.LatestN(kept), best])
    options = ocp.CheckpointManagerOptions(preservation_policy=policy, **_BY_LOSS)
    self._manager = ocp.CheckpointManager(self._workdir / "checkpoints", options=options)
    while (step := self.latest_step()) is not None:
      problem = _find_damage(self._workdir, step) or _attempt(_read_meta, self._manager, step)[1]
      if not problem:
        break
      self._set_aside(step, problem)

  def _set_aside(self, step: int, problem: str) -> None:
    """Moves a damaged checkpoint out of the way.

    Raises:
      UserError: if it was the last.
    """
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices(f"damaged {step}")
    if jax.process_index() == 0:
      where = set_aside(self._workdir, step)
      print(
        f"warning: checkpoint {self._workdir}/checkpoints/{step} is damaged ({problem}): it is"
        f" passed over, and kept as {where}",
        file=sys.stderr,
      )
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices(f"set aside {step}")
    self._manager.reload()
    if self.latest_step() is None:
      raise UserError(
        f"a resumed run must have a whole checkpoint; got none in {self._workdir}, the last one"
        f" (step {step}) is damaged: {problem}. Run the command again to begin at step 0."
      )

  def latest_step(self) -> int | None:
    """The step of the newest checkpoint, or None."""
    return self._manager.latest_step()

  def save(self, state: TrainState, meta: dict[str, Any], loss: float | None = None) -> None:
    """Saves in the background; `loss` is that of the last validation, if there was one.

    Raises:
      UserError: if this or the checkpoint before could not be written.
    """
    step = int(state.step)
    if step == self.latest_step():
      return
    items = ocp.args.Composite(
      state=ocp.args.StandardSave(
        {"step": state.step, "params": state.params, "opt_state": state.opt_state}
      ),
      average=ocp.args.StandardSave(state.average),
      meta=ocp.args.JsonSave(meta),
    )
    self.finish()
    metrics = None if loss is None else {"loss": loss}
    self._write(lambda: self._manager.save(step, args=items, metrics=metrics), f"step {step}")

  def finish(self) -> None:
    """Waits for the save under way, reads it back, and notes what it looks like: then it counts.

    Raises:
      UserError: if it could not be written.
    """
    self._write(self._manager.wait_until_finished, "the save under way")
    if jax.process_index() == 0:
      self._write(
        lambda: write_digest(self._workdir, self._manager.all_steps()), "what was read back"
      )

  def _write(self, call: Callable[[], Any], what: str) -> None:
    try:
      call()
    except Exception as error:  # Orbax and TensorStore raise many kinds
      raise UserError(
        f"{self._workdir}/checkpoints must take a whole checkpoint; got for {what}"
        f" {type(error).__name__}: {_shorten(error)}. The last whole one is of step"
        f" {_last_whole(self._workdir)}. Free space, and run the same command to go on from it."
      ) from error

  def restore(self, abstract: TrainState) -> TrainState:
    """Returns the newest state that can be read, laid out as `abstract` (shapes and shardings)."""
    items = ocp.args.Composite(
      state=ocp.args.StandardRestore(
        {"step": abstract.step, "params": abstract.params, "opt_state": abstract.opt_state}
      ),
      average=ocp.args.StandardRestore(abstract.average),
    )
    while (step := self.latest_step()) is not None:
      found, problem = _attempt(self._manager.restore, step, args=items)
      if not problem:
        return TrainState(**found["state"], average=found["average"])
      self._set_aside(step, problem)
    raise ValueError("there is no checkpoint to restore.")

  def read_meta(self) -> dict[str, Any]:
    """Returns the settings saved with the newest checkpoint; none before the first."""
    step = self.latest_step()
    return {} if step is None else _read_meta(self._manager, step)

  def close(self) -> None:
    """Waits for saves under way."""
    try:
      self.finish()
    finally:
      self._manager.close()


def read_best(place: Path, mesh: Mesh) -> tuple[Config, Params, dict[str, Any]]:
  """Returns what `weights.load_average` does, of a workdir.

  Raises:
    UserError: if there is no checkpoint, or none that is whole.
  """
  refuse_patterns(place, "--checkpoint")
  folder = place.resolve() / "checkpoints"
  manager = None
  if folder.is_dir():
    manager = ocp.CheckpointManager(
      folder, options=ocp.CheckpointManagerOptions(read_only=True, **_BY_LOSS)
    )
  if manager is None or manager.latest_step() is None:
    raise UserError(
      f"checkpoint folder must be a workdir that stemgen_jax.train wrote; got {place} without"
      " checkpoints. Train first, or check the path."
    )
  newest = sorted(manager.all_steps(), reverse=True)
  problem = None
  for step in sorted(newest, key=lambda step: _validation_loss(manager, step)):
    problem = _find_damage(folder.parent, step)
    if not problem:
      found, problem = _attempt(_read_average, manager, step, mesh)
      if not problem:
        manager.close()
        return found
    print(f"warning: checkpoint {folder / str(step)} is damaged ({problem})", file=sys.stderr)
  raise UserError(
    f"checkpoint must be whole; got {folder} with none that can be read ({problem}). Train again,"
    " or copy the folder anew."
  )


def _find_damage(workdir: Path, step: int) -> str | None:
  """Returns what is wrong with a checkpoint, if anything; the first process looks for all."""
  problem = find_damage(workdir, step) if jax.process_index() == 0 else None
  if jax.process_count() == 1:
    return problem
  told = np.zeros(_TOLD_BYTES, np.uint8)
  text = (problem or "").encode("utf-8", "backslashreplace")[:_TOLD_BYTES]
  told[: len(text)] = np.frombuffer(text, np.uint8)
  heard = np.asarray(multihost_utils.broadcast_one_to_all(told), np.uint8).tobytes()
  return heard.rstrip(b"\0").decode("utf-8", "replace") or None


def _validation_loss(manager: ocp.CheckpointManager, step: int) -> float:
  """Returns the validation loss saved with a checkpoint; infinity if there is none."""
  metrics, _ = _attempt(manager.metrics, step)
  return _loss(metrics) if metrics else math.inf


def _read_average(
  manager: ocp.CheckpointManager, step: int, mesh: Mesh
) -> tuple[Config, Params, dict[str, Any]]:
  meta = _read_meta(manager, step)
  config = from_dict(meta["config"])
  shapes = jax.eval_shape(build(config.model).init, jax.random.key(0))
  restored = manager.restore(
    step,
    args=ocp.args.Composite(average=ocp.args.StandardRestore(abstract_like(shapes, mesh))),
  )
  return config, restored["average"], {**meta, "step": step}


def abstract_like(shapes: Any, mesh: Mesh) -> Any:
  """Returns the shapes with their shardings on the mesh, for restoring straight to devices."""
  return jax.tree.map(
    lambda s, place: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place),
    shapes,
    sharding.tree_shardings(shapes, mesh),
  )


def _read_meta(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
  return manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]


def _attempt(call: Callable[..., Any], *arguments: Any, **named: Any) -> tuple[Any, str | None]:
  """Returns what a read gives, or what is wrong with it; a user's mistakes go their way."""
  try:
    return call(*arguments, **named), None
  except UserError:
    raise
  except Exception as error:  # a damaged file can fail in any way
    return None, f"{type(error).__name__}: {_shorten(error)}"


def _shorten(error: Exception) -> str:
  return " ".join(str(error).split())[:160]


def _last_whole(workdir: Path) -> int | str:
  steps = [int(path.stem) for path in (workdir / "digests").glob("*.json")]
  return max(steps, default="none")


def hush_closed_loops() -> None:
  """Keeps this process from printing what follows a failed write, whose own error is raised.

  TensorStore then calls back into event loops that Orbax has closed, and Python prints each call.
  """

  def hook(unraisable: Any) -> None:
    if str(unraisable.exc_value) != "Event loop is closed":
      sys.__unraisablehook__(unraisable)

  sys.unraisablehook = hook
