# SPDX-License-Identifier: Apache-2.0
"""Commands run one after the other, each shown as it is run, and what each took."""

import contextlib
import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from stemgen_jax.errors import UserError
from stemgen_jax.shell.folders import read_json, write_text

PATIENCE_S = 5.0  # for a command that ctrl-C has reached already
GRACE_S = 60.0  # for one that is told to end


class Stages:
  """Runs commands and keeps what each took, over as many starts as it needed."""

  def __init__(self, path: Path):
    """Reads what earlier starts took, if any, from a JSON file."""
    self.path = path
    self.rows = read_json(path) if path.is_file() else {}

  def run(self, name: str, module: str, *words: object) -> None:
    """Runs `python -m module words...`; raises a UserError if it fails."""
    command = ["-m", module, *map(str, words)]
    print(f"\n== {name}: python {' '.join(command)}", file=sys.stderr, flush=True)
    start_s = time.perf_counter()
    code = _run([sys.executable, *command])
    if code:
      raise UserError(f"stage '{name}' must succeed; got exit code {code}. Its message is above.")
    spent_s = time.perf_counter() - start_s + self.rows.get(name, {}).get("seconds", 0.0)
    peak_kb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    self.rows[name] = {
      "command": "python " + " ".join(command),
      "seconds": spent_s,
      "peak_gb_so_far": peak_kb / 2**20,  # of any one process up to here
    }
    write_text(self.path, json.dumps(self.rows, indent=1) + "\n")


def _run(command: list[str]) -> int:
  """Returns the exit code of a command; ctrl-C and SIGTERM end it in order before they end us."""

  def stop(number: int, frame: Any) -> None:
    raise KeyboardInterrupt

  before = signal.signal(signal.SIGTERM, stop)
  with subprocess.Popen(command) as child:
    try:
      return child.wait()
    except BaseException:
      try:
        with contextlib.suppress(subprocess.TimeoutExpired):
          child.wait(PATIENCE_S)  # a terminal sends ctrl-C to all
        if child.poll() is None:
          child.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
          child.wait(GRACE_S)
      finally:  # a second ctrl-C waits no more
        child.kill()  # nothing where it has ended
      raise
    finally:
      signal.signal(signal.SIGTERM, before)
