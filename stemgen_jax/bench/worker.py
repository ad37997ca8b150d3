# SPDX-License-Identifier: Apache-2.0
"""A process that times PyTorch, so that this one never loads it: a line asked, a line answered."""

import contextlib
import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from stemgen_jax.bench.table import count_threads
from stemgen_jax.types import Params


def save_flat(params: Params, path: Path) -> Path:
  """Writes parameters to an .npz, by their paths, and returns where."""
  flat = jax.tree.leaves_with_path(params)
  named: dict[str, Any] = {
    jax.tree_util.keystr(p, simple=True, separator="/"): np.asarray(x) for p, x in flat
  }
  np.savez(path, **named)
  return path


class TorchWorker:
  """Runs `python -m MODULE ...`, whose first answer is torch's version; a context manager.

  `note` says why there are no figures; every time is then NaN.
  """

  library = "torch"

  def __init__(
    self, module: str, words: Sequence[object], needs: Sequence[str] = (), start: bytes = b""
  ):
    """Starts it with flags, and what it reads first; the packages it needs may be absent."""
    self.version: str | None = None
    self.note = ""
    self._process: subprocess.Popen[bytes] | None = None
    absent = [name for name in ("torch", *needs) if importlib.util.find_spec(name) is None]
    if absent:
      self.note = f"{absent[0]} not installed"
      return
    command = [sys.executable, "-m", module, "--threads", str(count_threads()), *map(str, words)]
    self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    self.version = self._ask(start)

  def __enter__(self) -> "TorchWorker":
    return self

  def __exit__(self, *_: object) -> None:
    if self._process:
      self._process.communicate()  # the end of its input ends it

  def time(self, call: str) -> float:
    """Returns the seconds that a call took there."""
    return float(self._ask(f"{call}\n".encode()) or "nan")

  def _ask(self, request: bytes) -> str:
    """Returns the line that the process answers; an empty one, and a note, if it is gone."""
    process = self._process
    if self.note or process is None or process.stdin is None or process.stdout is None:
      return ""
    answer = b""
    with contextlib.suppress(BrokenPipeError):
      process.stdin.write(request)
      process.stdin.flush()
      answer = process.stdout.readline()
    if not answer:
      self.note = f"stopped with code {process.wait()}, see above"
    return answer.decode().strip()
