# SPDX-License-Identifier: Apache-2.0
"""The progress bars that every command shows, on stderr."""

from rich.console import Console
from rich.progress import (
  BarColumn,
  MofNCompleteColumn,
  Progress,
  ProgressColumn,
  TextColumn,
  TimeRemainingColumn,
)


def make_bars(*more: ProgressColumn, shown: bool = True, kept: bool = True) -> Progress:
  """Returns bars with their description, how many are done of how many, and the time left.

  `more` columns stand before the time left. Bars that are not `kept` go when they are done.
  """
  return Progress(
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    *more,
    TimeRemainingColumn(),
    console=Console(stderr=True),
    transient=not kept,
    disable=not shown,
  )
