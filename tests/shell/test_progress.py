# SPDX-License-Identifier: Apache-2.0
"""What is printed is printed letter by letter, on any terminal."""

import logging

import pytest
from rich.table import Table

from stemgen_jax.shell.progress import LineHandler, make_bars, make_console, say, show_state

NAME = "loop [v1] :smile: [/] [red]"


def test_names_in_brackets_are_printed_whole(capsys, monkeypatch):
  monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal, where bars and states are drawn
  monkeypatch.setenv("TTY_INTERACTIVE", "1")
  monkeypatch.setenv("COLUMNS", "150")
  console = make_console()
  say(console, NAME)
  table = Table(NAME)
  table.add_row(NAME)
  console.print(table)
  assert capsys.readouterr().out.count(NAME) == 3
  with make_bars() as bars:
    bars.add_task(NAME, total=1)
    bars.refresh()
  assert NAME in capsys.readouterr().err
  with show_state() as tell:
    tell(NAME)
    for _ in range(3):
      tell(NAME)
  assert NAME in capsys.readouterr().err


@pytest.mark.parametrize("name", [NAME, "na\udce9ve", "x" * 300])
def test_what_is_logged_is_a_line(capsys, name):
  record = logging.LogRecord("a", logging.WARNING, "", 0, "%s is left out", (name,), None)
  LineHandler().emit(record)
  text = capsys.readouterr().err
  shown = name.replace("\udce9", "\\xe9")
  assert text == f"warning: {shown} is left out\n"
