# SPDX-License-Identifier: Apache-2.0
"""What a user can mend is one line and exit code 2, whatever the terminal and the disk are like."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stemgen_jax.errors import UserError, run_cli

ROOT = Path(__file__).parents[1]


def fail(error):
  def main():
    raise error

  return main


def test_commands_that_mend_it_have_lines_of_their_own(capsys):
  assert run_cli(fail(UserError("a must\n be  b; got c.", commands=["do this", "then that"]))) == 2
  assert capsys.readouterr().err == "error: a must be b; got c.\n  do this\n  then that\n"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_line(capsys, number):
  assert run_cli(fail(OSError(number, os.strerror(number), "out/take_00.wav"))) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith("error: the disk must have room for out/take_00.wav; got ")


@pytest.mark.parametrize("linked", ["__cause__", "__context__"])
def test_a_full_disk_behind_a_librarys_own_error_is_one_line(capsys, linked):
  error = RuntimeError("unexpected pos 576 vs 534")
  setattr(error, linked, OSError(errno.EFBIG, "File too large"))
  assert run_cli(fail(error)) == 2
  assert run_cli(fail(RuntimeError("write() failed: No space left on device; writing a/r"))) == 2
  one, other = capsys.readouterr().err.splitlines()
  assert one == "error: the disk must have room; got File too large. Free some."
  assert "writing a/r" in other


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENAMETOOLONG])
def test_a_file_that_may_not_be_used_is_one_line_that_names_it(capsys, number):
  assert run_cli(fail(OSError(number, os.strerror(number), "a/codec.json"))) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith("error: a/codec.json must be open to this user; got ")


def test_other_errors_are_not_hidden():
  for error in (OSError(errno.EIO, "broken"), RuntimeError("a mistake of ours")):
    with pytest.raises(type(error)):
      run_cli(fail(error))


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_names_that_a_terminal_cannot_show_do_not_end_a_command(tmp_path, encoding):
  text = "print('caf\\u00e9', 'na\\udce9ve'); raise UserError('caf\\u00e9 must be na\\udce9ve.')"
  program = (
    f"from stemgen_jax.errors import *\ndef main():\n  {text}\nraise SystemExit(run_cli(main))"
  )
  env = os.environ | {"PYTHONIOENCODING": encoding}
  done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=env, capture_output=True)
  assert done.returncode == 2
  assert done.stderr.startswith(b"error: caf")
  assert done.stderr.count(b"\n") == 1
  assert b"na\\udce9ve" in done.stdout


@pytest.mark.parametrize("platform", ["quantum", "cuda"])
def test_a_platform_that_cannot_start_is_one_line(platform):
  program = (
    "import jax\nfrom stemgen_jax.errors import run_cli\nraise SystemExit(run_cli(jax.devices))"
  )
  env = os.environ | {"JAX_PLATFORMS": platform}
  done = subprocess.run(
    [sys.executable, "-c", program], cwd=ROOT, env=env, capture_output=True, text=True, check=False
  )
  assert done.returncode == 2
  assert done.stderr.splitlines()[-1].startswith("error: JAX_PLATFORMS must name a platform")


def test_a_command_that_is_interrupted_while_its_modules_are_loaded_ends_in_a_word():
  """While `python -m` loads a package, "-m" stands for the command's name."""
  code = "import sys; sys.argv = ['-m']; import data_prep; raise KeyboardInterrupt"
  done = subprocess.run(
    [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
  )
  assert done.returncode
  assert done.stderr == "interrupted\n"
