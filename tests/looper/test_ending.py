# SPDX-License-Identifier: Apache-2.0
"""How the looper ends: by ctrl-C or SIGTERM, with a page that listens, and without a word."""

import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, -15)])
def test_it_ends_at_once_and_says_nothing_though_a_page_listens(tmp_path, number, code):
  command = [sys.executable, "-m", "stemgen_jax.looper", "--recorded", "--no-open"]
  command += ["--session", str(tmp_path / "mine")]
  process = subprocess.Popen(
    command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
  )
  assert process.stdout is not None
  base, _, query = process.stdout.readline().removeprefix("looper:").strip().partition("/?")
  with urllib.request.urlopen(f"{base}/api/events?{query}", timeout=60) as listening:
    assert listening.readline() == b"event: state\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
  assert process.returncode == code
  assert errors == f"session: {tmp_path / 'mine'} (ctrl-C ends it)\n"
