# SPDX-License-Identifier: Apache-2.0
"""Files of JSON lines, each of which may be wrong by itself."""

import codecs
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stemgen_jax.errors import UserError


def raise_it(error: UserError) -> None:
  """Raises an error: what is done with a wrong line where nothing else is."""
  raise error


def read_lines(
  path: Path, flag: str, leave_out: Callable[[UserError], None] = raise_it
) -> Iterator[tuple[int, Any]]:
  """Yields the number and the value of every line of a JSONL file, a flag's, that is not empty.

  A line that is no JSON goes to `leave_out`, as an error that names it.
  """
  try:
    lines = path.read_bytes().removeprefix(codecs.BOM_UTF8).splitlines()  # editors begin with it
  except OSError as error:
    raise UserError(f"{flag} must be a text file of JSON lines; got {path} ({error}).") from error
  if any(b"\0" in line for line in lines):
    raise UserError(f"{flag} must be text in UTF-8; got {path}, which is none. Save it as UTF-8.")
  found = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
  if not found:
    raise UserError(f"{flag} must hold at least one line; got {path} with none.")
  for number, line in found:
    try:
      value = json.loads(line.decode("utf-8"), object_pairs_hook=_give_once)
    except UserError as error:
      leave_out(UserError(f"line {number} of {path}: {error}"))
    except UnicodeDecodeError as error:
      leave_out(UserError(f"line {number} of {path} must be text in UTF-8; got {error}."))
    except (ValueError, RecursionError) as error:
      leave_out(UserError(f"line {number} of {path} must be JSON; got {error}."))
    else:
      yield number, value


def _give_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  """Returns an object of JSON, none of whose keys may be given twice."""
  found: dict[str, Any] = {}
  for name, value in pairs:
    if name in found:
      raise UserError(f"its keys must each be given once; got {name!r} twice. Remove one.")
    found[name] = value
  return found
