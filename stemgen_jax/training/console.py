# SPDX-License-Identifier: Apache-2.0
"""What a person sees of a run: a bar, a line every so often, and a summary."""

import datetime
import time
from pathlib import Path
from shlex import quote

from stemgen_jax.shell.progress import make_bars, say


class TrainConsole:
  """Reports a run on stderr; silent where not `enabled`."""

  def __init__(self, start: int, steps: int, enabled: bool):
    """`start`: steps done before; `steps`: in all."""
    self._bar = make_bars(shown=enabled)
    self._enabled, self._steps = enabled, steps
    self._task = self._bar.add_task("train", total=steps, completed=start)
    self._start, self._since = None, 0.0
    self._bar.start()

  def close(self) -> None:
    """Ends the bar."""
    self._bar.stop()

  def advance(self, step: int) -> None:
    """Moves the bar; the time left is reckoned from the second step on, as the first compiles."""
    if self._start is None:
      self._start, self._since = step, time.perf_counter()
    self._bar.update(self._task, completed=step)

  def say(self, text: str) -> None:
    """Prints a line above the bar."""
    if self._enabled:
      say(self._bar.console, text)

  def tell_step(self, step: int, scalars: dict[str, float]) -> None:
    """Prints how training stands."""
    done = step - (step if self._start is None else self._start)
    left = ""
    if done and step < self._steps:
      seconds = (time.perf_counter() - self._since) / done * (self._steps - step)
      left = f"  {datetime.timedelta(seconds=round(seconds))} left"
    skipped = scalars["skipped_steps"]
    state = "every step skipped"
    if "loss" in scalars:
      state = (
        f"loss {scalars['loss']:.3f} nats  lr {scalars['learning_rate']:.1e}"
        f"  gradient {scalars['gradient_norm']:.2f}"
      )
      state += f"  {skipped:.0f} skipped" if skipped else ""
    self.say(f"step {step}/{self._steps}  {state}  {scalars['frames_per_s']:.0f} frames/s{left}")

  def tell_validation(self, step: int, scalars: dict[str, float]) -> None:
    """Prints what hearing the context is worth."""
    names = {"true": "true context", "foreign": "another song's", "none": "none"}
    losses = [
      f"{words} {scalars[key]:.3f}"
      for name, words in names.items()
      if (key := f"listening/{name}/mean") in scalars
    ]
    text = f"step {step}/{self._steps}  validation: {', '.join(losses)} nats"
    if "listening/gain/mean" in scalars:
      text += f"; listening gain {scalars['listening/gain/mean']:+.3f}"
    self.say(text)

  def tell_end(self, step: int, workdir: Path, log: dict[str, float], seconds: float) -> None:
    """Prints where a run has got to, and what to do next."""
    took = datetime.timedelta(seconds=round(seconds))
    figures = [
      f"{what} {log[name]:.3f}"
      for name, what in (("loss", "loss"), ("listening/gain/mean", "listening gain"))
      if name in log
    ]
    self.say(f"done: step {step}/{self._steps} after {took}  {'  '.join(figures)}")
    self.say(f"  checkpoints and metrics  {workdir}")
    logs, run = (quote(str(path)) for path in (workdir / "tensorboard", workdir))
    self.say(f"  curves                   tensorboard --logdir {logs}")
    self.say(f"  a stem                   python -m stemgen_jax.sample --checkpoint {run} --help")
