# SPDX-License-Identifier: Apache-2.0
"""The one kind of error a user can mend, and how a command reports it: one line, exit code 2."""

import sys
from collections.abc import Callable


class UserError(Exception):
  """A mistake in what the user gave: `<what> must <rule>; got <name>=<value>. <what to do>.`"""


def run_cli(main: Callable[[], int | None]) -> int:
  """Runs `main` and returns its exit code; a UserError becomes one line on stderr and code 2."""
  try:
    return main() or 0
  except UserError as error:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print("interrupted", file=sys.stderr)
    return 130
