# SPDX-License-Identifier: Apache-2.0
"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
  """Returns the lines of a table; cells are shown as `str` gives them."""
  lines = [head, ["---"] * len(head), *rows]
  return ["| " + " | ".join(map(str, line)) + " |" for line in lines]
