# SPDX-License-Identifier: Apache-2.0
"""The one kind of error a user can mend, and how a command reports it: one line, exit code 2."""

import errno
import io
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

Rule = tuple[bool, str, Any]
"""Whether it is kept, what it says, as `dim must be positive`, and the value it is about."""


class UserError(Exception):
  """A mistake in what the user gave: `<what> must <rule>; got <name>=<value>. <what to do>.`

  Attributes:
    commands: that mend it; each is printed on a line of its own.
  """

  def __init__(self, message: str, commands: Sequence[str] = ()):
    super().__init__(message)
    self.commands = tuple(commands)


def find_broken(rules: Iterable[Rule]) -> list[str]:
  """Returns what each rule that is not kept says, and what was got instead."""
  return [f"{rule}; got {value!r}" for kept, rule, value in rules if not kept]


def run_cli(main: Callable[[], int | None]) -> int:
  """Runs `main` and returns its exit code; what a user can mend is one line on stderr and code 2.

  That is a UserError, a full disk, and a JAX_PLATFORMS that cannot start. What a terminal cannot
  show, as a file's name in other bytes than its own, is printed with backslashes.
  """
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors="backslashreplace")
  try:
    return main() or 0
  except UserError as error:
    print("\n  ".join([f"error: {' '.join(str(error).split())}", *error.commands]), file=sys.stderr)
    return 2
  except OSError as error:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
      raise
    where = f" for {error.filename}" if error.filename else ""
    print(
      f"error: the disk must have room{where}; got {error.strerror}. Free some.", file=sys.stderr
    )
    return 2
  except RuntimeError as error:
    if "Unable to initialize backend" not in str(error):
      raise
    print(
      f"error: JAX_PLATFORMS must name a platform that JAX can start; got"
      f" {' '.join(str(error).split())[:160]}. Unset it.",
      file=sys.stderr,
    )
    return 2
  except KeyboardInterrupt:
    print("interrupted", file=sys.stderr)
    return 130
