# SPDX-License-Identifier: Apache-2.0
"""How a checkpoint is known to be whole: it has been read back, and has the CRC-32 of then.

Orbax writes a checkpoint under another name until it is complete. Whether that can be read, and
what happens to its files later, on a failing disk or in a copy cut short, it may not notice. Of
several processes only the first is to call what is here: it reads every byte.
"""

import json
import zlib
from collections.abc import Iterable
from pathlib import Path

import tensorstore

from stemgen_jax.shell.folders import write_text

_CHUNK = 1 << 24
_STORED = ("jax.Array", "np.ndarray", "scalar")  # what Orbax calls that which is an array on disk


def write_digest(workdir: Path, steps: Iterable[int]) -> None:
  """Reads back each of these checkpoints that has no digest, and writes it; removes others'.

  Raises:
    ValueError, OSError, KeyError: if one cannot be read.
  """
  steps = set(steps)
  folder = workdir / "digests"
  folder.mkdir(exist_ok=True)
  for path in folder.glob("*.json"):
    if int(path.stem) not in steps:
      path.unlink()
  for step in steps:
    path = folder / f"{step}.json"
    if not path.exists():
      checkpoint = workdir / "checkpoints" / str(step)
      read_back(checkpoint)
      write_text(path, json.dumps(_digest(checkpoint), indent=1) + "\n")


def read_back(checkpoint: Path) -> None:
  """Reads every array of a checkpoint from the disk, one at a time, and its settings.

  Raises:
    ValueError, OSError, KeyError: if something is missing or cannot be read.
  """
  json.loads((checkpoint / "meta" / "metadata").read_text(encoding="utf-8"))
  for item in ("state", "average"):
    about = json.loads((checkpoint / item / "_METADATA").read_text(encoding="utf-8"))
    base = (checkpoint / item).resolve().as_uri()
    for entry in about["tree_metadata"].values():
      if entry["value_metadata"]["value_type"] not in _STORED:
        continue
      name = ".".join(str(part["key"]) for part in entry["key_metadata"])
      array = tensorstore.open(
        {
          "driver": "zarr3" if about["use_zarr3"] else "zarr",
          "kvstore": {"driver": "ocdbt", "base": base, "path": f"{name}/"},
          "fill_missing_data_reads": False,
        },
        open=True,
        read=True,
      )
      array.result().read().result()


def find_damage(workdir: Path, step: int) -> str | None:
  """Returns what differs from a checkpoint's digest, or where it has none, what cannot be read.

  None if it is whole.
  """
  path, checkpoint = workdir / "digests" / f"{step}.json", workdir / "checkpoints" / str(step)
  try:
    if not path.exists():  # it was killed, or the disk is one that cannot be written
      read_back(checkpoint)
      return None
    expected = json.loads(path.read_text(encoding="utf-8"))
    found = _digest(checkpoint)
  except (OSError, ValueError, KeyError, TypeError) as error:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
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
