# SPDX-License-Identifier: Apache-2.0
"""A stop of a chain of commands ends the one that runs in order, and leaves no process behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHILD = """
import pathlib, time
pathlib.Path("begun").touch()
try:
  time.sleep(60)
except KeyboardInterrupt:
  time.sleep(1)
  pathlib.Path("ended").touch()
  raise SystemExit(130)
"""
CHAIN = """
import pathlib
from stemgen_jax.errors import run_cli
from stemgen_jax.shell import stages
stages.PATIENCE_S = 0.1
raise SystemExit(run_cli(lambda: stages.Stages(pathlib.Path("stages.json")).run("long", "child")))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_ends_the_command_in_order(tmp_path, number):
  (tmp_path / "child.py").write_text(CHILD)
  env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
  with subprocess.Popen([sys.executable, "-c", CHAIN], cwd=tmp_path, env=env) as chain:
    until_s = time.monotonic() + 60
    while not (tmp_path / "begun").exists() and time.monotonic() < until_s:
      time.sleep(0.05)
    chain.send_signal(number)  # to the chain alone: a terminal would send ctrl-C to both
    assert chain.wait(60) == 130
  assert (tmp_path / "ended").exists()
  assert not (tmp_path / "stages.json").exists()
