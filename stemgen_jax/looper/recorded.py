# SPDX-License-Identifier: Apache-2.0
"""Takes that were recorded beforehand, for where no model may run."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import signal

from stemgen_jax.audio.files import Samples, read_audio, write_audio
from stemgen_jax.errors import UserError
from stemgen_jax.looper.document import RATE_HZ, Document, Song, first_document
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
from stemgen_jax.looper.session import saving
from stemgen_jax.looper.song import refit

PARTS, PART_S = 4, 0.15  # of a pretended job
FOLDER = Path(__file__).parent / "takes"  # `stemgen_jax.looper.record` wrote them
ROUND_SAMPLES = 3200  # that go round before a take's start and after its end
BARS, SECONDS = 5, 7.29196875  # of the example loop
SENTENCE = (
  "No model is running: these takes, two of each instrument, were recorded beforehand, to the"
  " package's example loop, and listen to nothing else."
)


class Recorded:
  """Hands out recorded takes, as if they were being written."""

  def __init__(self, folder: Path):
    """`folder` is the session's."""
    self.folder = folder
    self.files = list_files()
    self._tell: Callable[[Report], None] = lambda report: None
    self._tasks: set[asyncio.Task] = set()
    self._cancelled = 0

  def start(self, tell: Callable[[Report], None]) -> None:
    """Is ready at once."""
    self._tell = tell
    asyncio.get_running_loop().call_soon(tell, Ready(tuple(self.files), "", None, SENTENCE))

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
    except UserError as error:
      self._tell(Failed(task.job, str(error)))
      return
    self._tell(Made(task.job, time.monotonic() - began))

  def _write(self, task: Make) -> None:
    words = list(task.words)
    seed, instrument = (words[words.index(flag) + 1] for flag in ("--seed", "--instrument"))
    files = self.files.get(instrument) or next(iter(self.files.values()))
    loop = refit(read_take(files[int(seed) % len(files)]), task.loop_samples)
    if "--keep" in words:
      from stemgen_jax.sampling.mixing import splice  # which takes a while to load

      old, _ = read_audio(self.folder / words[words.index("--stem") + 1])
      kept = [words[i + 1].split("-") for i, word in enumerate(words) if word == "--keep"]
      loop = splice(loop, old, [(float(a), float(b)) for a, b in kept], RATE_HZ)
    settings = json.dumps({"recorded": True, "instrument": instrument, "seed": int(seed)})
    with saving("The take"):
      task.out.mkdir(parents=True, exist_ok=True)
      write_audio(task.out / "take_00.wav", loop, RATE_HZ)
      (task.out / "settings.json").write_text(settings + "\n", encoding="utf-8")


def list_files() -> dict[str, list[Path]]:
  """Returns the recorded takes of each instrument."""
  found: dict[str, list[Path]] = {}
  for path in sorted(FOLDER.glob("*_[0-9].ogg")):
    found.setdefault(path.stem.rpartition("_")[0], []).append(path)
  return found


def read_take(path: Path) -> Samples:
  """Returns a recorded take as long as the example loop at RATE_HZ; its end meets its start."""
  samples, _ = read_audio(path)
  loop = samples[:, ROUND_SAMPLES:-ROUND_SAMPLES]
  return np.asarray(signal.resample(loop, round(SECONDS * RATE_HZ), axis=1), np.float32)


def begin_recorded() -> Document:
  """Returns what a session of recorded takes begins with: the tempo and bars that they have."""
  document = first_document()
  song = Song(tempo_bpm=BARS * document.song.beats_per_bar * 60 / SECONDS, bars=BARS)
  return Document(song, document.lanes)
