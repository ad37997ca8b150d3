# SPDX-License-Identifier: Apache-2.0
"""The one kind of error a user can mend, and how a command reports it: one line, exit code 2."""

import errno
import io
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no room, by the disk, a quota or a limit
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP, errno.ENAMETOOLONG, errno.EIO)

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

  That is a UserError, a full disk, a file that may not be used, and a JAX_PLATFORMS that cannot
  start. What a terminal cannot show, as a file's name in other bytes than its own, is printed with
  backslashes.
  """
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors="backslashreplace")
  try:
    return main() or 0
  except UserError as error:
    print("\n  ".join([f"error: {' '.join(str(error).split())}", *error.commands]), file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print("interrupted", file=sys.stderr)
    return 130
  except Exception as error:  # of a library; whatever says more is raised again
    line = _explain(error)
    if line is None:
      raise
    print(f"error: {line}", file=sys.stderr)
    return 2


def find_full(error: BaseException) -> int | None:
  """Returns which of FULL an error is, by its number or its words; None if it is none of them."""
  number = error.errno if isinstance(error, OSError) else None
  return next((n for n in FULL if n == number or os.strerror(n) in str(error)), None)


def _raised_by(error: BaseException) -> str:
  """Returns the name of the file whose line raised an error."""
  frames = traceback.extract_tb(error.__traceback__)
  return os.path.basename(frames[-1].filename) if frames else ""


def _explain(error: BaseException) -> str | None:
  """Returns what of this machine is to be mended after a library's error; None if that is not it.

  A library may raise its own error where the system has raised another: both are looked at.
  """
  link: BaseException | None = error
  while link is not None:
    text = " ".join(str(link).split())
    number = link.errno if isinstance(link, OSError) else None
    full = find_full(link)
    if full is not None:
      file = getattr(link, "filename", None)
      where = f" for {file}" if file else "" if number else f" ({text[:160]})"
      return f"the disk must have room{where}; got {os.strerror(full)}. Free some."
    if link is error and isinstance(link, OSError) and link.filename and number in FORBIDDEN:
      return f"{link.filename} must be open to this user; got {link.strerror}. Change that."
    if isinstance(link, RuntimeError) and "Unable to initialize backend" in text:
      reason = text.partition(" (set JAX_PLATFORMS")[0][:160]
      return f"JAX_PLATFORMS must name a platform that JAX can start; got {reason}. Unset it."
    if isinstance(link, AssertionError) and _raised_by(link) == "xla_bridge.py":  # of CUDA, say
      platforms = os.environ.get("JAX_PLATFORMS", "")
      return f"JAX_PLATFORMS must name a platform that JAX can start; got {platforms!r}. Unset it."
    link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
  return None
