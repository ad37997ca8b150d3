# SPDX-License-Identifier: Apache-2.0
"""How `inspect` prints: tables without lines, and problems, of which the first suffice."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from stemgen_jax.shell.progress import say

FIRST = 20  # problems listed if not all are asked for


def make_table(first: str, *rest: str) -> Table:
  """Returns a table whose first column is text and whose others are numbers."""
  table = Table(first, box=None, pad_edge=False)
  for name in rest:
    table.add_column(name, justify="right")
  return table


def list_problems(console: Console, problems: Sequence[Mapping[str, str]], show_all: bool) -> None:
  """Prints problems as data, `where` and `what`, a line each."""
  shown = problems if show_all else problems[:FIRST]
  for problem in shown:
    say(console, f"{problem['where']}: {problem['what']}")
  if len(shown) < len(problems):
    say(console, f"... and {len(problems) - len(shown)} more: --all lists them")
