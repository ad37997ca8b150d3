# SPDX-License-Identifier: Apache-2.0
"""What the page asks to be changed: each edit is checked and gives a new document."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stemgen_jax.config import MOST_SCALE
from stemgen_jax.errors import UserError
from stemgen_jax.looper.document import (
  LOOP_S,
  RATE_HZ,
  Document,
  Lane,
  Take,
  is_number,
  next_label,
)  # fmt: skip

MOST_LANES = 16
MOST_NAME = 80
MOST_KEPT = 32  # stretches of a take


def _between(low: float, high: float) -> tuple[Callable[[Any], bool], str]:
  return lambda v: is_number(v) and low <= v <= high, f"a number from {low:g} to {high:g}"


def _whole(low: int, high: int) -> tuple[Callable[[Any], bool], str]:
  return lambda v: type(v) is int and low <= v <= high, f"a whole number from {low} to {high}"


_FLAG = (lambda v: isinstance(v, bool), "true or false")
_WORDS = (
  lambda v: isinstance(v, str) and 0 < len(v.strip()) <= MOST_NAME and v.isprintable(),
  f"1 to {MOST_NAME} printable characters",
)
# What a lane and the song can be given: whether a value will do, and what would.
LANE = {
  "name": _WORDS,
  "level_db": _between(-60.0, 12.0),
  "pan": _between(-1.0, 1.0),
  "mute": _FLAG,
  "solo": _FLAG,
  "lock": _FLAG,
  "guidance": _between(0.0, float(MOST_SCALE)),
  "seed": _whole(0, 2**32 - 1),
}
SONG = {
  "name": _WORDS,
  "tempo_bpm": _between(20.0, 480.0),  # a bar of four beats in the shortest loop
  "beats_per_bar": _whole(1, 16),
  "bars": _whole(1, 64),
  "offset_s": _between(0.0, 600.0),
}


NUMBERS = {"level_db", "pan", "guidance", "tempo_bpm", "offset_s"}  # that need not be whole


class NotFound(UserError):
  """What is asked for is not there."""


class Conflict(UserError):
  """What is asked for cannot be as things are now."""


class Unavailable(UserError):
  """What is asked for needs a model, and there is none."""


def edit(
  document: Document, asked: dict[str, Any], instruments: Sequence[str], lane_id: str
) -> Document:
  """Returns the document after an edit.

  Args:
    document: before it.
    asked: "op" and its fields.
    instruments: those that a lane can have.
    lane_id: of a lane that is added.

  Raises:
    UserError: if the edit is no edit, or breaks a rule.
  """
  fields = dict(asked)
  op = fields.pop("op", None)
  rules = {**LANE, "instrument": _one_of(instruments)}
  if op == "add_lane":
    fields = _check(fields, {"instrument": rules["instrument"]}, all_of=True)
    need_room(document)
    name = fields["instrument"]
    lane = Lane(lane_id, _free_name(document, name.replace("_", " ")), name)
    return dataclasses.replace(document, lanes=(*document.lanes, lane))
  if op == "set_song":
    return _set_song(document, _check(fields, SONG))
  if op not in ("remove_lane", "set_lane", "choose_take"):
    raise UserError(
      "op must be one of add_lane, remove_lane, set_lane, choose_take, set_song; got"
      f" {str(op)[:40]!r}."
    )
  lane = need_lane(document, fields.pop("lane", None))
  if op == "remove_lane":
    _check(fields, {})
    if lane.lock:
      raise Conflict(f"Lane '{lane.name}' is locked. Unlock it to remove it.")
    lanes = tuple(one for one in document.lanes if one.id != lane.id)
    return dataclasses.replace(document, lanes=lanes)
  if op == "choose_take":
    if set(fields) != {"take"}:
      raise UserError("choose_take must have just a lane and a take.")
    if fields["take"] not in lane.takes:
      raise NotFound(f"Lane '{lane.name}' has no such take.")
    return document.put(dataclasses.replace(lane, active=fields["take"]))
  return document.put(dataclasses.replace(lane, **_check(fields, rules)))


def _free_name(document: Document, name: str) -> str:
  """Returns a name that no lane has: it, or with a number behind it."""
  taken = {lane.name for lane in document.lanes}
  numbered = (f"{name} {number}" for number in itertools.count(2))
  return next(one for one in itertools.chain([name], numbered) if one not in taken)


def need_room(document: Document) -> None:
  """Raises a Conflict if there is no room for another lane."""
  if len(document.lanes) >= MOST_LANES:
    raise Conflict(f"A session has at most {MOST_LANES} lanes. Remove one first.")


def need_lane(document: Document, lane: Any) -> Lane:
  """Returns the lane of an id; raises NotFound if there is none."""
  found = document.find(lane)
  if found is None:
    raise NotFound("There is no such lane; another tab may have removed it.")
  return found


def add_take(
  document: Document, lane_id: str, take: Take, known: Mapping[str, Take]
) -> tuple[Document, Take]:
  """Returns the document with one more take in a lane, active, and the take with its label.

  Args:
    document: before it.
    lane_id: of its lane.
    take: without a label.
    known: all takes by their ids.
  """
  lane = need_lane(document, lane_id)
  taken = {known[name].label for name in lane.takes}
  label = next(x for x in map(next_label, range(len(taken) + 1)) if x not in taken)
  lane = dataclasses.replace(lane, takes=(*lane.takes, take.id), active=take.id)
  return document.put(lane), dataclasses.replace(take, label=label)


def read_keep(asked: Any, loop_s: float) -> tuple[tuple[float, float], ...]:
  """Returns the stretches of a take that are to stay, in seconds.

  Raises:
    UserError: if they are none, or do not lie inside the loop.
  """
  good = isinstance(asked, list) and len(asked) <= MOST_KEPT
  for pair in asked if good else ():
    good = good and isinstance(pair, list) and len(pair) == 2 and all(map(is_number, pair))
    good = good and 0 <= pair[0] < pair[1] <= loop_s + 0.01
  if not good:
    raise UserError(
      f"keep must be at most {MOST_KEPT} stretches [from, to] inside the loop's {loop_s:.2f} s;"
      f" got {str(asked)[:80]}."
    )
  return tuple((float(a), float(b)) for a, b in asked)


def _set_song(document: Document, fields: dict[str, Any]) -> Document:
  song = dataclasses.replace(document.song, **fields).begin()
  seconds = song.loop_samples / RATE_HZ
  if not LOOP_S[0] <= seconds <= LOOP_S[1]:
    raise UserError(
      f"A loop must last from {LOOP_S[0]} to {LOOP_S[1]:.0f} s; got {song.bars} bars of"
      f" {song.bar_s:.2f} s. Change the bars or the tempo."
    )
  return dataclasses.replace(document, song=song)


def _one_of(names: Sequence[str]) -> tuple[Callable[[Any], bool], str]:
  return lambda v: v in names, f"one of {', '.join(names)}"


def _check(
  fields: dict[str, Any],
  rules: dict[str, tuple[Callable[[Any], bool], str]],
  all_of: bool = False,
) -> dict[str, Any]:
  """Returns the fields as the document has them; raises a UserError unless all keep their rules."""
  unknown = sorted(set(fields) - set(rules))
  if unknown:
    raise UserError(f"Fields must be among {sorted(rules)}; got {str(unknown)[:80]}.")
  if all_of and set(fields) != set(rules):
    raise UserError(f"Fields must be {sorted(rules)}; got {sorted(fields)}.")
  for name, value in fields.items():
    fits, wanted = rules[name]
    if not fits(value):
      raise UserError(f"{name} must be {wanted}; got {str(value)[:40]!r}.")
  return {name: float(value) if name in NUMBERS else value for name, value in fields.items()}
