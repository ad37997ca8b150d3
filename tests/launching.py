# SPDX-License-Identifier: Apache-2.0
"""Running the launch scripts, with stand-ins in the place of what is not there."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOOLS = (
  "bash", "cat", "date", "df", "dirname", "env", "git", "grep", "gzip", "head", "mkdir", "mktemp",
  "mv", "nohup", "rm", "sed", "sh", "sleep", "tail", "tar", "tee", "timeout", "touch", "true", "wc",
)  # fmt: skip


def environment(tmp_path, **variables):
  """Only what a script needs: no cluster's command that this machine may have is in reach."""
  tools = tmp_path / "bin"
  tools.mkdir(exist_ok=True)
  for name in TOOLS:
    if not (tools / name).exists():
      (tools / name).symlink_to(shutil.which(name))
  return {
    "PATH": str(tools),
    "HOME": str(tmp_path),
    "TMPDIR": str(tmp_path),
    "RECORD": str(tmp_path),
    "REAL_PYTHON": sys.executable,
    **variables,
  }


def install(tmp_path, name, text):
  path = tmp_path / "bin" / name
  path.parent.mkdir(exist_ok=True)
  path.write_text(text)
  path.chmod(0o755)


def launch(tmp_path, script, *words, **variables):
  return subprocess.run(
    [ROOT / "launch" / f"{script}.sh", *words],
    capture_output=True,
    text=True,
    timeout=60,
    cwd=ROOT,
    env=environment(tmp_path, **variables),
    check=False,
  )


def dry_run(tmp_path, script, *words, **variables):
  """The words of each command that would run."""
  done = launch(tmp_path, script, *words, "--dry_run", **variables)
  assert done.returncode == 0, done.stderr
  lines = done.stdout.splitlines()
  assert all(line.startswith("+ ") for line in lines)
  return [shlex.split(line[2:]) for line in lines]


def option(words, name):
  (value,) = [word.removeprefix(f"{name}=") for word in words if word.startswith(f"{name}=")]
  return value
