# SPDX-License-Identifier: Apache-2.0
"""What every command shows on a terminal: bars, a line of state, lines and tables.

Text is shown as it is. Rich would take what stands in brackets for its own markup, and not print
it, so that nothing else makes one of its consoles.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
  BarColumn,
  MofNCompleteColumn,
  Progress,
  ProgressColumn,
  TextColumn,
  TimeRemainingColumn,
)
from rich.text import Text

from stemgen_jax.shell.folders import spell


def make_console(stderr: bool = False) -> Console:
  """Returns a console that prints what it is given, letter by letter."""
  return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def say(console: Console, text: str) -> None:
  """Prints a line as it is, however long."""
  console.print(spell(text), soft_wrap=True)


@contextlib.contextmanager
def show_state() -> Iterator[Callable[[str], None]]:
  """Yields a function that says in a few words, on stderr, what is being done."""
  with make_console(stderr=True).status(Text()) as status:
    yield lambda text: status.update(Text(spell(text)))


class LineHandler(logging.Handler):
  """Prints what is logged on stderr, a line each, also beside bars."""

  def emit(self, record: logging.LogRecord) -> None:
    """Prints one of them."""
    say(make_console(stderr=True), f"{record.levelname.lower()}: {record.getMessage()}")


def make_bars(*more: ProgressColumn, shown: bool = True, kept: bool = True) -> Progress:
  """Returns bars with their description, how many are done of how many, and the time left.

  `more` columns stand before the time left. Bars that are not `kept` go when they are done.
  """
  return Progress(
    TextColumn("{task.description}", markup=False),
    BarColumn(),
    MofNCompleteColumn(),
    *more,
    TimeRemainingColumn(),
    console=make_console(stderr=True),
    transient=not kept,
    disable=not shown,
  )
