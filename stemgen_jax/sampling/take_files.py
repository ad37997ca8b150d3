# SPDX-License-Identifier: Apache-2.0
"""The files of a folder of takes, and batches whose lines must not read what others write."""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stemgen_jax.errors import UserError
from stemgen_jax.sampling.job import Job
from stemgen_jax.sampling.request_files import Planned
from stemgen_jax.shell.folders import keep_what_is_read, name_file, refuse_folder

SETTINGS_FILE = "settings.json"
_TAKE = re.compile(r"take_\d{2,}(_mix)?\.wav")


def name_take(number: int) -> list[str]:
  """Returns the names of a take's stem and mix."""
  return [f"take_{number:02d}.wav", f"take_{number:02d}_mix.wav"]


def list_files(folder: Path, job: Job) -> Iterator[Path]:
  """Yields the files that a job's result takes the place of, or makes, in its folder."""
  made = [file for i in range(job.request.takes) for file in name_take(i)]
  yield from (folder / file for file in {*made, *read_files(folder), SETTINGS_FILE})


def read_files(folder: Path) -> set[str]:
  """Returns the files of the takes that an earlier command wrote to a folder."""
  try:
    record = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
    return {Path(name).name for take in record["takes"] for name in take["files"]}
  except (OSError, ValueError, KeyError, TypeError):
    return set()


def refuse_places(out: Path, named: Sequence[Planned]) -> None:
  """Raises a UserError if a file of a take is one that is read, or the name of a folder.

  Args:
    out: the folder in which each of `named` has one of its own.
    named: what is to be made.
  """
  written = [path for one in named for path in list_files(out / one.name, one.job)]
  for path in written:
    refuse_folder(path, "a file of a take")
  for planned in named:
    keep_what_is_read(planned.read, written)


def refuse_crossing(
  lines: Sequence[tuple[int, Any]], batch: Path, out: Path, given: Mapping[str, Any]
) -> None:
  """Refuses a batch of which a line reads what a line writes, be it there yet or not.

  Args:
    lines: the number and the value of each.
    batch: their file, beside which their files are looked for.
    out: the folder in which each line has one of its own.
    given: what the flags say, for all lines.

  Raises:
    UserError: if a line reads a file of takes in the folder of a line; it names both.
  """
  objects = [(number, line) for number, line in lines if isinstance(line, dict)]
  folders: dict[str, int] = {}
  for number, line in objects:
    try:
      folder = os.path.realpath(out / name_file(str(line.get("name", f"{number:04d}"))))
    except ValueError:  # no name that a folder can have
      continue
    folders.setdefault(folder, number)
  for number, line in objects:
    for field in ("context", "stem"):
      if isinstance(line.get(field), str):
        path = batch.parent / name_file(line[field])
      elif field in given and field not in line:
        path = Path(given[field])
      else:
        continue
      try:
        folder, file = os.path.split(os.path.realpath(path))
      except ValueError:  # no path of any file
        continue
      if folder in folders and (_TAKE.fullmatch(file) or file == SETTINGS_FILE):
        raise UserError(
          f"line {number} of {batch} must not read what line {folders[folder]} writes; got its"
          f" {field} {path}. Put it in a batch of its own, to be run afterwards with another --out."
        )
