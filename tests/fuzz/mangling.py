# SPDX-License-Identifier: Apache-2.0
"""Files as accidents leave them, and what every command owes them: a right result or one line.

Set FUZZ_SEED for other inputs, FUZZ_EXAMPLES to multiply how many of them are tried.
"""

import dataclasses
import os

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from stemgen_jax.errors import UserError, run_cli

SEED = int(os.environ.get("FUZZ_SEED", "0"))
MORE = int(os.environ.get("FUZZ_EXAMPLES", "1"))
HEAD = 128  # bytes of a file that is mostly header
# What stands in a header where nobody knew better, and what no header should hold.
NUMBERS = (0, 1, 2, 8, 16, 36, 255, 4096, 0x7FFF, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


@dataclasses.dataclass(frozen=True)
class Accident:
  """One thing that becomes of a file; places are shares of its length, or bytes of its head."""

  kind: str
  place: float
  in_head: bool
  more: bytes

  def at(self, size: int) -> int:
    """Where it happens."""
    return int(self.place * (min(size, HEAD) if self.in_head else size))

  def __call__(self, content: bytes) -> bytes:
    """Returns what is left."""
    at, more = self.at(len(content)), self.more
    behind = at + len(more)
    match self.kind:
      case "overwrite":
        return content[:at] + more + content[behind:]
      case "flip":
        bits = bytes(a ^ b for a, b in zip(content[at:behind], more, strict=False))
        return content[:at] + bits + content[at + len(bits) :]
      case "cut":
        return content[:at]
      case "lose":
        return content[:at] + content[behind:]
      case "insert":
        return content[:at] + more + content[at:]
      case "append":
        return content + more
      case "empty":
        return b""
      case "double":
        return content + content
    raise ValueError(self.kind)


def _number(value: int, order: str) -> bytes:
  return value.to_bytes(4, "big" if order == "big" else "little")


accidents = st.builds(
  Accident,
  st.sampled_from(
    [*("overwrite", "flip", "cut", "lose", "insert") * 3, "append", "double", "empty"]
  ),
  st.floats(0, 1, exclude_max=True),
  st.booleans(),
  st.one_of(
    st.binary(min_size=1, max_size=8),
    st.builds(_number, st.sampled_from(NUMBERS), st.sampled_from(["big", "little"])),
    st.integers(0, 7).map(lambda bit: bytes([1 << bit])),
  ),
)
several = st.lists(accidents, min_size=1, max_size=3)


def mangle(content: bytes, what: list[Accident]) -> bytes:
  """Returns a file after all of these."""
  for accident in what:
    content = accident(content)
  return content


TEXTS = (
  "null",
  "true",
  "[]",
  "{}",
  '""',
  "-1",
  "1e999",
  "NaN",
  "0",
  "\\ud800",
  "é",
  "\0",
  "\ufeff",
)


@st.composite
def texts(draw, whole: str):
  """Text of which some stretches are gone, or others than they were."""
  text = whole
  for _ in range(draw(st.integers(1, 3))):
    at = draw(st.integers(0, max(len(text) - 1, 0)))
    behind = min(len(text), at + draw(st.integers(0, 12)))
    text = text[:at] + draw(st.one_of(st.sampled_from(TEXTS), st.text(max_size=4))) + text[behind:]
  return text


# What may stand in the place of a value in JSON, of any kind.
values = st.recursive(
  st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 2**31, 2**63, 10**30]),
    st.floats(),
    st.text(max_size=6),
    st.sampled_from(["", ".", "/", "none", "../x", "a\0b", "nan", "\ud800", "1e999", "0:00-0:01"]),
  ),
  lambda inner: st.one_of(
    st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
  ),
  max_leaves=4,
)


def places_of(content, here=()):
  """Yields the path of every value in JSON."""
  pairs = content.items() if isinstance(content, dict) else enumerate(content)
  for key, value in pairs:
    yield (*here, key)
    if isinstance(value, dict | list):
      yield from places_of(value, (*here, key))


def put(content, place, value):
  """Returns a copy of JSON with another value at a place."""
  if not place:
    return value
  copy = dict(content) if isinstance(content, dict) else list(content)
  copy[place[0]] = put(copy[place[0]], place[1:], value)
  return copy


def try_all(strategy, check, examples: int) -> None:
  """Holds `check` to as many inputs of a strategy, the same ones for a seed."""

  @seed(SEED)
  @settings(
    max_examples=examples * MORE,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    print_blob=False,
  )
  @given(strategy)
  def tried(value):
    check(value)

  tried()


def refusal(call, *named: str):
  """Returns what a call gives and None, or None and its one line, which names one of these."""
  try:
    return call(), None
  except UserError as error:
    line = str(error)
    assert any(name in line for name in named), f"names none of {named}: {line}"
    return None, line


def run(main, capsys, *named: str) -> tuple[int, str]:
  """Runs a command and returns its exit code and output: one line for the user, if it is not 0."""
  capsys.readouterr()
  code = run_cli(main)
  out, err = capsys.readouterr()
  assert code in (0, 2, 3), (code, err)
  assert "Traceback" not in err
  errors = [line for line in err.splitlines() if line.startswith("error: ")]
  assert len(errors) == (code == 2), err
  if code:
    told = out + err
    assert any(name in told for name in named), f"names none of {named}: {told}"
  return code, out
