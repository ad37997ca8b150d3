# SPDX-License-Identifier: Apache-2.0
"""The locks in requirements/: each holds what setup.py asks for, and `make` takes the right one."""

import ast
import re
import stat
import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text()
PYTHONS = re.search(r"^PYTHONS := (.*)$", MAKEFILE, re.MULTILINE).group(1).split()


def read_setup():
  """Returns `BASE` and `EXTRAS` of setup.py, which is not run."""
  names = {}
  for node in ast.parse((ROOT / "setup.py").read_text()).body:
    if isinstance(node, ast.Assign):
      names[node.targets[0].id] = ast.literal_eval(node.value)
  return names["BASE"], names["EXTRAS"]


def read_lock(name):
  """Returns each package's version; every line must be `package==version` or a comment."""
  found = {}
  for line in (ROOT / "requirements" / name).read_text().splitlines():
    line = line.partition("#")[0].strip()
    if line:
      package, version = re.fullmatch(r"([\w.\[\]-]+)==([\w.]+)", line).groups()
      assert canonicalize_name(package) not in found, line
      found[canonicalize_name(package)] = Version(version)
  return found


def make(tmp_path, version):
  """Returns what `make setup` would do with a Python that says it is of this version."""
  python = tmp_path / "python"
  python.write_text(f'#!/bin/sh\n[ "$1" = -V ] && echo "Python {version}.0" || echo {version}\n')
  python.chmod(python.stat().st_mode | stat.S_IXUSR)
  command = ["make", "setup", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}"]
  dry = ["--dry-run"] if version in PYTHONS else []
  return subprocess.run([*command, *dry], cwd=ROOT, capture_output=True, text=True)


def test_a_lock_for_each_python():
  assert {f"py{version}.txt" for version in PYTHONS} | {"nodeps.txt"} == {
    path.name for path in (ROOT / "requirements").iterdir()
  }


@pytest.mark.parametrize("version", PYTHONS)
def test_lock_holds_what_setup_asks_for(version):
  base, extras = read_setup()
  lock = read_lock(f"py{version}.txt")
  locked = ("data", "hub", "eval", "beam", "dev")
  for line in [*base, *(line for name in locked for line in extras[name])]:
    wanted = Requirement(line)
    name = canonicalize_name(wanted.name)
    assert name in lock, f"{line} is in no line of the lock: run `make locks`"
    assert lock[name] in wanted.specifier, f"{line}, but {lock[name]} is locked: run `make locks`"
  assert not {name for name in lock if name.startswith(("nvidia-", "cuda-", "triton"))}
  assert not lock.keys() & read_lock("nodeps.txt").keys()


@pytest.mark.parametrize("version", PYTHONS)
def test_make_takes_the_lock_of_its_python(tmp_path, version):
  done = make(tmp_path, version)
  assert re.findall(r"requirements/(\S+)", done.stdout) == [f"py{version}.txt", "nodeps.txt"]


@pytest.mark.parametrize("version", ["3.10", "3.99"])
def test_make_refuses_a_python_without_a_lock(tmp_path, version):
  done = make(tmp_path, version)
  assert done.returncode == 2
  assert f"error: Python must be one of {' '.join(PYTHONS)}; got Python {version}.0" in done.stderr
  assert not (tmp_path / "venv").exists()
