# SPDX-License-Identifier: Apache-2.0
"""What listeners said: their ratings on disk, and mean opinion scores (MOS) of them all.

REPORT/ratings/RATER.jsonl has one line a click, added at once and never changed; of a rater's
ratings of one stem the last counts. It knows nothing of the page that asks for them.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from stemgen_jax.errors import UserError
from stemgen_jax.evaluate.metrics.intervals import bootstrap
from stemgen_jax.pages.markdown import table
from stemgen_jax.shell.folders import make_folder

SETS = {"true": "the song's own stem", "model": "the model's", "other": "another song's"}
BEST = 5  # the worst is 1
RATINGS = "ratings"
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")  # one file on any file system


def check_rater(name: str) -> str:
  """Returns the name; raises a UserError if it is not fit to name a file."""
  if not NAME.fullmatch(name):
    raise UserError(
      "rater's name must be 1 to 40 of a-z, 0-9, '-' and '_', with a letter or digit first;"
      f" got {name!r}. Choose a name such as anna or listener-3."
    )
  return name


def add_rating(report: Path, rater: str, example: str, song: str, stem: str, rating: int) -> None:
  """Adds a rating to the rater's file; when it returns, the rating is on the disk.

  Args:
    report: the folder of the examples.
    rater: a name that `check_rater` allows.
    example: the example's id.
    song: where it comes from, over which `mean_opinion_scores` draws.
    stem: one of SETS.
    rating: 1 to BEST.

  Raises:
    UserError: if it cannot be written.
  """
  make_folder(report / RATINGS, "REPORT/ratings")
  row = {"rater": rater, "example": example, "song": song, "set": stem, "rating": rating}
  path = report / RATINGS / f"{rater}.jsonl"
  try:
    with path.open("a", encoding="utf-8") as file:
      file.write(json.dumps(row) + "\n")
      file.flush()
      os.fsync(file.fileno())
  except OSError as error:
    raise UserError(f"ratings must be a file that can be written; got {path} ({error}).") from error


def read_ratings(report: Path, rater: str) -> dict[tuple[str, str], dict[str, Any]]:
  """Returns a rater's latest rating of each (example, set), as its line has it; none: empty.

  Raises:
    UserError: if a line is not a rating.
  """
  path, found = report / RATINGS / f"{rater}.jsonl", {}
  if not path.is_file():
    return found
  for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
    row = _read(line)
    if row is None:
      raise UserError(
        f"line {number} of {path} must be a rating as this program writes it; got {line[:80]!r}."
        " Remove that line."
      )
    found[row["example"], row["set"]] = row
  return found


def mean_opinion_scores(report: Path) -> list[dict[str, Any]]:
  """Returns a row for each set that was rated: its MOS, and how far to trust it.

  A row has `set`, `mos` (the mean of all ratings), `low` and `high` (95 % bootstrap interval, whole
  songs drawn), `ratings`, `raters` and `songs` (how many).

  Raises:
    UserError: if there are no ratings, or a line is not one.
  """
  if not report.is_dir():
    raise UserError(f"REPORT must be a folder that exists; got {report}, none. Check the path.")
  paths = sorted((report / RATINGS).glob("*.jsonl"))
  ratings = [row for path in paths for row in read_ratings(report, path.stem).values()]
  if not ratings:
    raise UserError(
      f"REPORT must hold ratings in its folder {RATINGS}/; got {report} with none."
      " Let someone listen first."
    )
  rows = []
  for name in SETS:
    own = [row for row in ratings if row["set"] == name]
    if own:
      values = np.array([row["rating"] for row in own], np.float64)
      songs = np.array([row["song"] for row in own])
      low, high = bootstrap(values, songs)
      rows.append(
        {
          "set": name,
          "mos": float(values.mean()),
          "low": low,
          "high": high,
          "ratings": len(own),
          "raters": len({row["rater"] for row in own}),
          "songs": len(set(songs)),
        }
      )
  return rows


def tabulate_opinions(rows: list[dict[str, Any]]) -> str:
  """Returns the rows of `mean_opinion_scores` as a Markdown table."""
  cells = [
    [SETS[row["set"]], f"{row['mos']:.2f}", f"{row['low']:.2f} to {row['high']:.2f}"]
    + [row[name] for name in ("ratings", "raters", "songs")]
    for row in rows
  ]
  head = ["stem", "MOS (1 to 5)", "95 %", "ratings", "raters", "songs"]
  return "\n".join(table(head, cells)) + "\n"


def is_rating(value: object) -> bool:
  """Whether a value from JSON is a whole number from 1 to BEST."""
  return type(value) is int and 1 <= value <= BEST


def _read(line: str) -> dict[str, Any] | None:
  """Returns the rating that a line holds, if it does."""
  try:
    row = json.loads(line)
  except json.JSONDecodeError:
    return None
  words = ("rater", "example", "song", "set")
  if not isinstance(row, dict) or not all(isinstance(row.get(word), str) for word in words):
    return None
  return row if row["set"] in SETS and is_rating(row.get("rating")) else None
