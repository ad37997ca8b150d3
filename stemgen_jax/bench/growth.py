# SPDX-License-Identifier: Apache-2.0
"""How cost grows: rows of a table that differ from the first in one number, drawn over it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def plot_growth(
  rows: Sequence[Mapping[str, Any]],
  over: Mapping[str, str],
  seconds: str,
  label: str,
  path: Path,
) -> None:
  """Draws seconds over each number, beside what the FLOP would take at the matmul rate.

  Args:
    rows: measurements, the base first; each has "matmul_share", "cpu" and "threads".
    over: key in a row -> what it is called.
    seconds: key of what is drawn.
    label: what that is called.
    path: of the picture.
  """
  from matplotlib.figure import Figure
  from matplotlib.ticker import FormatStrFormatter, LogLocator

  figure = Figure(figsize=(4 * len(over), 4), layout="constrained")
  columns = figure.subplots(1, len(over), sharey=True)
  for axes, name in zip(columns, over, strict=True):
    chosen = sorted(list_alike(rows, over, name), key=lambda row: row[name])
    x = [row[name] for row in chosen]
    axes.loglog(x, [row[seconds] for row in chosen], "o-", label="measured")
    ideal = [row[seconds] * row["matmul_share"] for row in chosen]
    axes.loglog(x, ideal, "--", label="its FLOP at the matmul rate")
    axes.set_xticks(x, x)
    axes.minorticks_off()
    axes.set_xlabel(over[name])
  columns[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
  columns[0].yaxis.set_major_formatter(FormatStrFormatter("%g"))
  columns[0].set_ylabel(label)
  columns[0].legend()
  figure.suptitle(", ".join(f"{name} {rows[0][name]}" for name in ("cpu", "threads", "layers")))
  figure.savefig(path, dpi=120)


def list_alike(
  rows: Sequence[Mapping[str, Any]], over: Mapping[str, str], name: str
) -> list[Mapping[str, Any]]:
  """Returns the rows that differ from the first in no number of `over` but `name`."""
  others = [key for key in over if key != name]
  return [row for row in rows if all(row[key] == rows[0][key] for key in others)]
