# SPDX-License-Identifier: Apache-2.0
"""How a checkpoint is known to be whole: the size and CRC-32 of each of its files.

Orbax writes a checkpoint under another name until it is complete. What happens to its files later,
on a failing disk or in a copy cut short, it may not notice.
"""

import json
import zlib
from collections.abc import Iterable
from pathlib import Path

from stemgen_jax.shell.folders import write_text

_CHUNK = 1 << 24


def write_digest(workdir: Path, steps: Iterable[int]) -> None:
  """Writes the digest of each of these whole checkpoints, and removes those of others."""
  steps = set(steps)
  folder = workdir / "digests"
  folder.mkdir(exist_ok=True)
  for path in folder.glob("*.json"):
    if int(path.stem) not in steps:
      path.unlink()
  for step in steps:
    path = folder / f"{step}.json"
    if not path.exists():
      write_text(path, json.dumps(_digest(workdir / "checkpoints" / str(step)), indent=1) + "\n")


def find_damage(workdir: Path, step: int) -> str | None:
  """Returns what differs from a checkpoint's digest; None if nothing does, or it has none."""
  path = workdir / "digests" / f"{step}.json"
  if not path.exists():
    return None
  try:
    expected = json.loads(path.read_text(encoding="utf-8"))
    found = _digest(workdir / "checkpoints" / str(step))
  except (OSError, ValueError) as error:
    return f"{type(error).__name__}: {error}"
  for name, (size, _) in expected.items():
    if name not in found:
      return f"file {name} is missing"
    if found[name][0] != size:
      return f"file {name} has {found[name][0]} bytes of {size}"
    if found[name] != expected[name]:
      return f"file {name} has other contents than were written"
  return None


def set_aside(workdir: Path, step: int) -> Path:
  """Moves a checkpoint and its digest to `damaged/`, and returns its new place."""
  folder = workdir / "damaged"
  folder.mkdir(exist_ok=True)
  number = sum(1 for _ in folder.glob(f"{step}.*"))
  where = folder / f"{step}.{number}"
  (workdir / "checkpoints" / str(step)).rename(where)
  (workdir / "digests" / f"{step}.json").unlink(missing_ok=True)
  return where


def _digest(folder: Path) -> dict[str, list[int]]:
  files = sorted(path for path in folder.rglob("*") if path.is_file())
  return {str(path.relative_to(folder)): [path.stat().st_size, _crc32(path)] for path in files}


def _crc32(path: Path) -> int:
  value = 0
  with path.open("rb") as file:
    while chunk := file.read(_CHUNK):
      value = zlib.crc32(chunk, value)
  return value
