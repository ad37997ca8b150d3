# SPDX-License-Identifier: Apache-2.0
"""Keeps the books of a run: metrics of every step, one step late so that the device never waits."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from stemgen_jax.config import Config
from stemgen_jax.training.console import TrainConsole
from stemgen_jax.training.metrics import MetricLog, Sound
from stemgen_jax.training.stopping import SkipWatch


class Recorder:
  """The log, the console and the watch over skipped steps, of one process."""

  def __init__(self, config: Config, workdir: Path, songs: Sequence[str], start: int):
    """`songs`: of each clip of the training split; `start`: steps done before."""
    first = jax.process_index() == 0
    self._log = MetricLog(workdir if first else None, config.train.wandb, config.name)
    self._console = TrainConsole(start, config.optim.steps, enabled=first)
    self._watch = SkipWatch(config.optim.max_skipped)
    self._songs = songs
    self._frames = config.data.batch_size * config.data.crop_frames
    self._pending: tuple | None = None
    self.latest: dict[str, float] = {}  # the last value of each scalar

  def __enter__(self) -> "Recorder":
    return self

  def __exit__(self, *_: Any) -> None:
    self._console.close()
    self._log.close()

  def add(self, step: int, metrics: dict[str, jax.Array], wait_s: float, clips: np.ndarray) -> None:
    """Takes a step that is under way, and notes the one before.

    Raises:
      UserError: if too many steps in a row were skipped.
    """
    self.settle()
    self._pending = (step, metrics, wait_s, clips)
    self._console.advance(step)

  def settle(self) -> None:
    """Waits for the step under way and notes it."""
    if self._pending:
      step, metrics, wait_s, clips = self._pending
      self._pending = None
      found = self._log.add(metrics, self._frames, wait_s)
      self._watch.see(step, bool(found["skipped"]), [self._songs[int(i)] for i in clips])

  def tell_step(self, step: int) -> None:
    """Writes the means since the last time, and prints a line."""
    self.settle()
    self._console.tell_step(step, self._flush(step))

  def tell_validation(self, step: int, scalars: dict[str, float]) -> None:
    """Writes what was measured on held-out songs, and prints a line."""
    self.settle()
    self._flush(step, **scalars)
    self._console.tell_validation(step, scalars)

  def add_sounds(self, sounds: Iterable[Sound], step: int) -> None:
    """Writes sounds, and their spectrograms."""
    for sound in sounds:
      self._log.add_audio(sound, step)

  def _flush(self, step: int, **more: float) -> dict[str, float]:
    scalars = self._log.flush(step, **more)
    self.latest |= scalars
    return scalars

  def say(self, text: str) -> None:
    """Prints a line."""
    self._console.say(text)

  def tell_end(self, step: int, workdir: Path, seconds: float) -> None:
    """Prints the summary."""
    self._console.tell_end(step, workdir, self.latest, seconds)

  def listening_score(self) -> float | None:
    """Returns the mean listening score of true stems at the last validation, if there was one."""
    none, true = (self.latest.get(f"listening/{context}/level_1") for context in ("none", "true"))
    return None if none is None or true is None else none - true

  def get_state(self) -> dict[str, Any]:
    """Returns what a resumed run goes on from."""
    self.settle()
    return self._log.get_state()

  def set_state(self, state: dict[str, Any]) -> None:
    """Goes on from a state."""
    self._log.set_state(state)
