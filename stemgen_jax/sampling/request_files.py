# SPDX-License-Identifier: Apache-2.0
"""Requests as a person gives them: flags, and lines of a JSONL file, which name audio files."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stemgen_jax.audio.files import Samples, convert_audio, read_audio
from stemgen_jax.categories import ACTIVITY
from stemgen_jax.errors import UserError
from stemgen_jax.sampling.job import Job
from stemgen_jax.sampling.request import Request
from stemgen_jax.shell.folders import is_file_name, name_file, refuse_address
from stemgen_jax.shell.lines import raise_it, read_lines

SILENCE_HZ = 44_100
MOST_SILENCE_S = 3600.0
SETTINGS = (
  "steps", "w_c", "w_s", "w_r", "confidence", "noise", "temperature", "fine_temperature",
  "top_p", "guidance_mode", "guided_levels", "guidance", "preset",
)  # fmt: skip
# What a request takes besides settings; each is a flag, and may stand in a line of --batch.
PARTS = (
  "context", "silence_s", "instrument", "activity", "condition", "takes", "seed", "stem", "keep",
  "continue", "vary", "loop", "level",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Planned:
  """A job, and what a person calls it.

  Attributes:
    name: of its folder; "" if it is the only one.
    source: the name of its context.
    read: flag -> the file that it names.
    job: what the model is to do.
  """

  name: str
  source: str
  read: dict[str, Path]
  job: Job


def plan_jobs(
  given: dict[str, Any],
  batch: Path | None,
  plan: Callable[[Request], Job],
  leave_out: Callable[[UserError], None] = raise_it,
  check: Callable[[list[tuple[int, Any]]], None] = lambda _: None,
) -> Iterator[Planned]:
  """Yields the jobs that flags, or flags and the lines of a file, come to.

  Args:
    given: what the flags say, by the names of PARTS and SETTINGS.
    batch: a JSONL file whose lines add to that, or go before it.
    plan: `StemGen.plan`, which raises a UserError where the model cannot meet a request.
    leave_out: called with the error of a line that cannot be met, which is then passed over.
    check: called with the number and the value of each line before any of their files is read.

  Raises:
    UserError: if a request of the flags cannot be met, or `batch` is no file of lines; and what
      `leave_out` and `check` raise.
  """
  if batch is None:
    source, request = build_request(given)
    yield Planned("", source, _name_files(given), plan(request))
    return
  names: set[str] = set()
  lines: list[tuple[int, Any]] = []  # or what is wrong with them, in their order
  for numbered in read_lines(batch, "--batch", lambda error: lines.append((0, error))):
    lines.append(numbered)
  check([(number, line) for number, line in lines if number])
  for number, line in lines:
    if not number:
      leave_out(line)
      continue
    try:
      planned = _plan_line(number, line, given, batch, names, plan)
    except UserError as error:
      leave_out(UserError(f"line {number} of {batch}: {error}"))
    else:
      yield planned


def _plan_line(
  number: int,
  line: Any,
  given: dict[str, Any],
  batch: Path,
  names: set[str],
  plan: Callable[[Request], Job],
) -> Planned:
  """Returns what a line of a batch comes to; its name is added to those of the lines before it."""
  if not isinstance(line, dict):
    raise UserError(f"it must be an object as {{...}}; got {type(line).__name__}.")
  name = name_file(str(line.pop("name", f"{number:04d}")))
  if not is_file_name(name):
    raise UserError(f"its name must be one that a folder can have, without '/'; got {name!r}.")
  if name in names:
    raise UserError(f"it must have a name that no other has; got {name!r} again.")
  names.add(name)
  if unknown := sorted(set(line) - {*PARTS, *SETTINGS}):
    fields = ["name", *PARTS, *SETTINGS]
    raise UserError(f"its fields must be among {fields}; got {unknown}.")
  for file in {"context", "stem"} & set(line):
    if not isinstance(line[file], str):
      raise UserError(f"its {file} must be a string, the path of a file; got {line[file]!r}.")
    path = name_file(line[file])
    refuse_address(path, f"--{file}")
    line[file] = batch.parent / path
  whole = {**given, **line}
  source, request = build_request(whole)
  return Planned(name, source, _name_files(whole) | {"--batch": batch}, plan(request))


def _name_files(given: dict[str, Any]) -> dict[str, Path]:
  return {f"--{name}": Path(given[name]) for name in ("context", "stem") if name in given}


def build_request(given: dict[str, Any]) -> tuple[str, Request]:
  """Returns the name of the context and the request that flags, or fields of a line, come to.

  Raises:
    UserError: if a file cannot be read or a value is of the wrong kind.
  """
  context, rate_hz, source = read_context(given)
  stem = read_stem(given["stem"], rate_hz) if "stem" in given else None
  try:
    keep = [read_stretch(word) for word in given.get("keep", ())]
    if given.get("continue"):
      keep.append(span_of(stem, context, rate_hz))
    conditions = dict(given.get("condition", {}))
    conditions |= {name: given[name] for name in ("instrument", ACTIVITY) if name in given}
    for name, value in conditions.items():
      if not (isinstance(name, str) and isinstance(value, str)):
        raise UserError(f"conditions must be words; got {name!r}={value!r}.")
    request = Request(
      context=context,
      rate_hz=rate_hz,
      conditions=conditions,
      takes=given.get("takes", 1),
      seed=given.get("seed", 0),
      stem=stem,
      keep_s=keep,
      vary=given.get("vary", 0.0),
      loop=given.get("loop", False),
      level_lu=read_level(given),
      settings={
        name: read_guidance(given[name]) if name == "guidance" else given[name]
        for name in SETTINGS
        if name in given
      },
    )
  except (TypeError, ValueError, AttributeError) as error:
    raise UserError(f"values must be of their flags' kinds; got {error}. See --help.") from error
  return source, request


def read_stem(path: Any, rate_hz: int) -> Samples:
  """Returns the samples of a stem that is given, at the rate of its context."""
  samples, own_hz = read_audio(_as_path(path, "stem"))
  return convert_audio(samples, own_hz, rate_hz, len(samples))


def _as_path(value: Any, name: str) -> Path:
  if not isinstance(value, str | Path):
    raise UserError(f"--{name} must be the path of a file; got {value!r}.")
  return Path(value)


def read_context(given: dict[str, Any]) -> tuple[Samples, int, str]:
  """Returns the context's samples, rate and name: the file's, or silence."""
  if ("context" in given) == ("silence_s" in given):
    raise UserError("exactly one of --context and --silence_s must be given. See --help.")
  if "context" in given:
    path = _as_path(given["context"], "context")
    return *read_audio(path), str(path)
  try:
    seconds = math.nan if isinstance(given["silence_s"], bool) else float(given["silence_s"])
  except (TypeError, ValueError, OverflowError) as error:
    raise UserError(f"--silence_s must be a number; got {given['silence_s']!r}.") from error
  if not 0 < seconds <= MOST_SILENCE_S:
    raise UserError(
      f"--silence_s must be more than 0 and at most {MOST_SILENCE_S:g}, an hour; got {seconds:g}."
      " Give a shorter silence."
    )
  silence = np.zeros((1, max(1, round(seconds * SILENCE_HZ))), np.float32)
  return silence, SILENCE_HZ, f"silence of {seconds} s"


def read_level(given: dict[str, Any]) -> float | None:
  """Returns the level in LU, or None for the model's own, or that of the stem that is given.

  Raises:
    UserError: if it is no number.
  """
  level = given.get("level", "none")
  try:
    return None if level == "none" else float(level)
  except (TypeError, ValueError, OverflowError) as error:
    raise UserError(f"--level must be a number of LU, or none; got {level!r}.") from error


def read_guidance(given: Any) -> dict[str, float]:
  """Returns the scale of each source, of pairs as the flags give them, or of a line's object.

  Raises:
    UserError: if it is neither.
  """
  try:
    return {str(name): float(scale) for name, scale in dict(given).items()}
  except (TypeError, ValueError, OverflowError) as error:
    raise UserError(
      f'guidance must be an object of source: number, as {{"context": 3}}; got {given!r}.'
    ) from error


def span_of(stem: Samples | None, context: Samples, rate_hz: int) -> tuple[float, float]:
  """Returns the whole of a stem that is to be continued, as a stretch in seconds.

  Raises:
    UserError: if there is no stem, or nothing of the context comes after it.
  """
  if stem is None:
    raise UserError("--continue must be given with --stem, what to go on from; got none.")
  if stem.shape[1] >= context.shape[1]:
    raise UserError(
      f"--continue must have a context longer than the stem; got {context.shape[1] / rate_hz:.2f} s"
      f" for a stem of {stem.shape[1] / rate_hz:.2f} s. Give more music to continue over, or"
      " --silence_s."
    )
  return 0.0, stem.shape[1] / rate_hz


def read_stretch(word: Any) -> tuple[float, float]:
  """Returns the seconds of a stretch such as 0:00-0:08, 12.5-20 or [0, 8].

  Raises:
    UserError: if it is not one.
  """
  ends = word.split("-") if isinstance(word, str) else list(word)
  try:
    start_s, stop_s = (
      sum(60**i * float(part) for i, part in enumerate(reversed(str(end).split(":"))))
      for end in ends
    )
  except ValueError as error:
    raise UserError(
      f"--keep must be FROM-TO in minutes and seconds, as 0:00-0:08; got {word!r}."
    ) from error
  return start_s, stop_s
