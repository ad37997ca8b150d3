# SPDX-License-Identifier: Apache-2.0
"""Rows of measurements: the machine they were taken on, a table on stdout, a JSON file."""

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import jax
from rich import box
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from stemgen_jax.shell.folders import write_text
from stemgen_jax.shell.progress import make_console

Row = dict[str, str | int | float | None]


def describe_machine() -> Row:
  """Returns what the figures depend on: processor, threads allowed, JAX's device, versions."""
  return {
    "cpu": _cpu_model(),
    "threads": count_threads(),
    "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
    "python": platform.python_version(),
    "jax": jax.__version__,
    "os": platform.platform(terse=True),
  }


def count_threads() -> int:
  """Returns how many cores this process may use (`taskset` lowers it); XLA takes them all."""
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def show_rows(
  measured: Iterable[Row], columns: Mapping[str, tuple[str, str]], save: Path | None = None
) -> list[Row]:
  """Prints a table that grows as rows come, saves and returns them; a stop loses none that came.

  Above it stands what all rows share; a leading text as in the row above is left out. Not on a
  terminal, the table is printed once, at the end.

  Args:
    measured: measurements, maybe still to be made.
    columns: key in a row -> (heading, format of its numbers, "" for text). A row may lack some.
    save: a JSON file, written anew with each row.
  """
  console = make_console()
  if not console.is_terminal:
    console.width = 120  # a file or a pipe has no width of its own
  rows: list[Row] = []
  with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
    for row in measured:
      rows.append(row)
      live.update(_draw(rows, columns), refresh=True)
      if save:
        write_text(save, json.dumps(rows, indent=1) + "\n")
  return rows


def _draw(rows: Sequence[Row], columns: Mapping[str, tuple[str, str]]) -> Group:
  shared = [k for k, v in rows[0].items() if k not in columns and all(r.get(k) == v for r in rows)]
  table = Table(box=box.SIMPLE)
  for heading, form in columns.values():
    table.add_column(heading, justify="right" if form else "left", overflow="fold")
  above: list[str] = []
  for row in rows:
    cells = [_show(row.get(key), form) for key, (_, form) in columns.items()]
    text = [not form for _, form in columns.values()]
    same = 0  # leading columns of text in which nothing changed
    while above and text[same] and cells[same] == above[same]:
      same += 1
    table.add_row(*[""] * same, *cells[same:])
    above = cells
  return Group(Text(", ".join(f"{key} {rows[0][key]}" for key in shared)), table)


def _show(value: str | int | float | None, form: str) -> str:
  return "" if value is None else format(value, form)


def _cpu_model() -> str:
  try:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
  except OSError:  # not Linux
    return platform.processor() or platform.machine()
  names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
  return names[0] if names else platform.machine()
