# SPDX-License-Identifier: Apache-2.0
"""Takes that were recorded beforehand, for where no model may run."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

from stemgen_jax.audio.files import convert_audio, read_audio, write_audio
from stemgen_jax.categories import CATEGORIES
from stemgen_jax.looper.document import RATE_HZ
from stemgen_jax.looper.messages import (
  Advanced,
  Failed,
  Made,
  Make,
  Ready,
  Report,
  Task,
  Warm,
  Warmed,
)  # fmt: skip
from stemgen_jax.looper.song import refit

PARTS, PART_S = 4, 0.15  # of a pretended job
FOLDER = Path(__file__).parents[1] / "shipped/listen"


class Recorded:
  """Hands out recorded takes, as if they were being written."""

  def __init__(self, folder: Path):
    """`folder` is the session's."""
    self.folder = folder
    self._tell: Callable[[Report], None] = lambda report: None
    self._tasks: set[asyncio.Task] = set()
    self._cancelled = 0

  def start(self, tell: Callable[[Report], None]) -> None:
    """Is ready at once."""
    self._tell = tell
    sentence = "Takes were recorded beforehand: they fit the example loop, and no other."
    asyncio.get_running_loop().call_soon(tell, Ready(CATEGORIES, "", 3.0, sentence))

  def ask(self, task: Task) -> None:
    """Hands out a take after a moment."""
    if isinstance(task, Warm):
      warmed = Warmed(task.loop_samples, PARTS * PART_S)
      asyncio.get_running_loop().call_soon(self._tell, warmed)
      return
    work = asyncio.get_running_loop().create_task(self._make(task))
    self._tasks.add(work)
    work.add_done_callback(self._tasks.discard)

  def cancel(self, job: int) -> None:
    """Ends a job at its next part."""
    self._cancelled = job

  def stop(self) -> None:
    """Ends what runs."""
    for work in self._tasks:
      work.cancel()

  async def _make(self, task: Make) -> None:
    began = time.monotonic()
    for part in range(PARTS):
      await asyncio.sleep(PART_S)
      if self._cancelled == task.job:
        self._tell(Failed(task.job, "It was cancelled."))
        return
      self._tell(Advanced(task.job, part + 1, PARTS))
    try:
      await asyncio.to_thread(self._write, task)
    except OSError as error:
      self._tell(Failed(task.job, f"The take cannot be written: {error.strerror}."))
      return
    self._tell(Made(task.job, time.monotonic() - began))

  def _write(self, task: Make) -> None:
    words = list(task.words)
    number = int(words[words.index("--seed") + 1])
    files = sorted(FOLDER.glob("*_generated.ogg"))
    samples, rate_hz = read_audio(files[number % len(files)])
    samples = convert_audio(samples, rate_hz, RATE_HZ, len(samples))
    task.out.mkdir(parents=True, exist_ok=True)
    write_audio(task.out / "take_00.wav", refit(samples, task.loop_samples), RATE_HZ)
    (task.out / "settings.json").write_text(json.dumps({"recorded": True}) + "\n")
