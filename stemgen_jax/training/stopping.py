# SPDX-License-Identifier: Apache-2.0
"""When a run ends before its last step: a signal, steps that are not finite, or flat accuracy."""

import signal
from collections.abc import Sequence
from types import FrameType, TracebackType

import jax
from jax.experimental import multihost_utils

from stemgen_jax.errors import UserError


class StopSignal:
  """Takes SIGTERM, which schedulers send ahead of an end, as a request: see `reached`."""

  def __init__(self) -> None:
    self._asked = False

  def __enter__(self) -> "StopSignal":
    if jax.process_count() == 1:  # of several, JAX tells all when one is asked
      self._before = signal.signal(signal.SIGTERM, self._ask)
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    if jax.process_count() == 1:
      signal.signal(signal.SIGTERM, self._before)

  def _ask(self, number: int, frame: FrameType | None) -> None:
    self._asked = True

  def reached(self, step: int) -> bool:
    """Whether to end after this step; all processes are told so at the same step.

    To be asked after every step: the processes agree on a step that none of them has passed.
    """
    if jax.process_count() == 1:
      return self._asked
    return multihost_utils.reached_preemption_sync_point(step)


class SkipWatch:
  """Ends a run whose steps keep being skipped, as its loss or gradient is not finite."""

  def __init__(self, most: int):
    """`most`: a run of that many skipped steps is the end."""
    self._most, self._run = most, 0

  def see(self, step: int, skipped: bool, songs: Sequence[str]) -> None:
    """Takes note of a step, and of the songs of its examples (on this process).

    Raises:
      UserError: if it ends such a run.
    """
    self._run = self._run + 1 if skipped else 0
    if self._run >= self._most:
      raise UserError(
        f"loss and gradient must be finite; got {self._run} steps in a row where they are not, up"
        f" to step {step}, whose examples are of {', '.join(sorted(set(songs)))}. The parameters"
        " are those before these steps. Lower --config.optim.learning_rate, or look at these songs"
        " with python -m data_prep.inspect."
      )


class Patience:
  """Ends a run whose validation accuracy has not risen for a number of steps; 0 never ends one.

  Source: StemGen (PAPER.md) section 3 trains until it has been flat for 20,000 steps.
  """

  def __init__(self, steps: int):
    """`steps`: how long it waits."""
    self._steps, self.best, self.since, self.over = steps, -1.0, 0, False

  def see(self, step: int, accuracy: float) -> None:
    """Notes a validation."""
    if accuracy > self.best:
      self.best, self.since = accuracy, step
    self.over = 0 < self._steps <= step - self.since

  def get_state(self) -> dict[str, float]:
    """Returns what a resumed run goes on from."""
    return {"best": self.best, "since": self.since}

  def set_state(self, state: dict[str, float], step: int) -> None:
    """Goes on from a state, as it was after `step`."""
    self.best, self.since = state["best"], int(state["since"])
    self.over = 0 < self._steps <= step - self.since
