# SPDX-License-Identifier: Apache-2.0
"""Rows of measurements: the machine they were taken on, a table on stdout, a JSON file."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
from rich import box
from rich.console import Console
from rich.table import Table

from stemgen_jax.files import write_text

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


def print_rows(rows: Sequence[Row], columns: Mapping[str, tuple[str, str]]) -> None:
  """Prints what all rows share, then a table of the rows; a value as in the row above is left out.

  Args:
    rows: measurements, at least one.
    columns: key in a row -> (heading, format of its numbers, "" for text). A row may lack some.
  """
  console = Console(highlight=False)
  if not console.is_terminal:
    console.width = 120  # a file or a pipe has no width of its own
  shared = [k for k, v in rows[0].items() if k not in columns and all(r.get(k) == v for r in rows)]
  console.print(", ".join(f"{key} {rows[0][key]}" for key in shared), soft_wrap=True)
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
  console.print(table)


def save_rows(path: Path, rows: Sequence[Row]) -> None:
  """Writes the rows as a JSON list, by rename."""
  write_text(path, json.dumps(rows, indent=1) + "\n")


def _show(value: str | int | float | None, form: str) -> str:
  return "" if value is None else format(value, form)


def _cpu_model() -> str:
  try:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
  except OSError:  # not Linux
    return platform.processor() or platform.machine()
  names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
  return names[0] if names else platform.machine()
