# SPDX-License-Identifier: Apache-2.0
"""Reads a compiled program's text: what runs how often, in cycles and in collectives.

The compiler's own cost analysis counts the body of a loop once; here every instruction is counted
as often as its loop turns.
"""

import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Iterator

BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8}
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^  (?:ROOT )?%?([\w.\-]+) = (.*?)\s([a-z][a-z0-9\-]*)\((.*)$", re.S)
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_CALLED = re.compile(r"(?:calls|body|to_apply|called_computations=\{)=?%?([\w.\-]+)")


@dataclasses.dataclass(frozen=True)
class Op:
  """One instruction. `repeats`: how often a step runs it. `top`: it is scheduled by itself."""

  name: str
  shape: str
  kind: str
  rest: str  # operands and attributes
  repeats: int
  top: bool

  @property
  def cycles(self) -> int:
    """The compiler's estimate for one run, 0 where it gives none."""
    found = re.search(r'"estimated_cycles":"(\d+)"', self.rest)
    return int(found[1]) if found else 0


@dataclasses.dataclass(frozen=True)
class Collective:
  """One collective of `group` devices that moves `size` bytes a device, `repeats` times a step."""

  kind: str
  size: int
  group: int
  repeats: int
  hidden_cycles: float  # the compiler's estimate of the work it has put under it, each time

  def seconds(self, bytes_per_s: float) -> float:
    """The time of one on a ring: (n-1)/n of the bytes, twice for an all-reduce."""
    if self.kind == "collective-permute":
      return self.size / bytes_per_s
    rounds = 2 if self.kind == "all-reduce" else 1
    return rounds * self.size * (self.group - 1) / self.group / bytes_per_s


def count_ops(text: str) -> list[Op]:
  """Returns every instruction of a program that a step runs, in the order of its schedule."""
  computations, entry = _split(text)

  def walk(name: str, repeats: int, top: bool) -> Iterator[Op]:
    for line in computations[name]:
      found = _INSTRUCTION.match(line)
      if not found:
        continue
      label, shape, kind, rest = found.groups()
      op = Op(label, shape, kind, rest, repeats, top)
      yield op
      if op.kind == "while":
        body, condition = (_first(rf"{k}=%?([\w.\-]+)", op.rest) for k in ("body", "condition"))
        yield from walk(body, repeats * _turns(computations[condition]), top)
      elif op.kind in ("fusion", "call", "async-start", "custom-call"):
        for called in _CALLED.findall(op.rest):
          if called in computations:
            yield from walk(called, repeats, top and op.kind == "call")

  return list(walk(entry, 1, True))


def count_collectives(ops: list[Op], devices: int) -> list[Collective]:
  """Returns the collectives; one that the compiler has cut up among fusions counts once."""
  clock = list(itertools.accumulate(op.cycles if op.top else 0 for op in ops))
  done = {
    _first(r"^%?([\w.\-]+)", op.rest): i for i, op in enumerate(ops) if op.kind.endswith("-done")
  }
  found = {}
  for i, op in enumerate(ops):
    kind = op.kind.removesuffix("-start")
    if kind not in KINDS:
      continue
    sizes = [_array_bytes(*array) for array in _ARRAY.findall(op.shape)]
    size = max(sizes) if op.kind.endswith("-start") else sum(sizes)
    group = 2 if kind == "collective-permute" else _group(op.rest, devices)
    size *= group if kind == "reduce-scatter" else 1  # its result is a share
    hidden = 0.0
    if op.name in done:
      hidden = clock[done[op.name]] - clock[i]
    elif not op.top:
      hidden = math.inf  # inside a fusion that computes meanwhile
    channel = re.search(r"channel_id=(\d+)", op.rest)
    key = (channel[1] if channel else op.name, op.shape)
    if key not in found or hidden > found[key].hidden_cycles:
      found[key] = Collective(kind, size, group, op.repeats, hidden)
  return list(found.values())


def kernel_flops(ops: list[Op]) -> float:
  """Returns the FLOP of the fused attention, of which the compiler knows nothing.

  2 products of 2 B N T^2 H forward; 5 backward, which computes the scores again.
  """
  total = 0.0
  for op in ops:
    if op.kind == "custom-call" and "splash_mha" in op.name:
      sizes = [_dims(dims) for _, dims in _ARRAY.findall(op.shape)]
      *_, batch, heads, frames, width = max((s for s in sizes if len(s) >= 4), key=_heads_first)
      products = 5 if "dkv" in op.name else 2
      total += op.repeats * products * 2 * batch * heads * frames**2 * width
  return total


def _heads_first(dims: tuple[int, ...]) -> tuple[int, int]:
  """Orders the arrays of a kernel so that 'B N T H' comes last, not sums of 128 equal lanes."""
  return (len(dims) == 4, -dims[-1])


def _first(pattern: str, text: str) -> str:
  """Returns the group of a pattern's first match; raises a ValueError where there is none."""
  if found := re.search(pattern, text):
    return found[1]
  raise ValueError(f"a compiled program's instruction must hold {pattern}; got {text[:200]!r}.")


def _split(text: str) -> tuple[dict[str, list[str]], str]:
  """Returns the lines of each computation, one an instruction, and the name of the entry."""
  computations: dict[str, list[str]] = {}
  entry, current = "", None
  for line in text.splitlines():
    if found := _COMPUTATION.match(line):
      current = computations.setdefault(found[2], [])
      entry = found[2] if found[1] else entry
    elif line == "}":
      current = None
    elif current is not None and line.startswith("  ") and " = " in line:
      current.append(line)
    elif current:
      current[-1] += "\n" + line  # a kernel's description has line breaks in it
  return computations, entry


def _turns(condition: list[str]) -> int:
  """The number that a loop counts to; 1 where it is not a constant."""
  numbers = [
    int(n) for line in condition for n in re.findall(r"s32\[\]\S* constant\((\d+)\)", line)
  ]
  return numbers[0] if len(numbers) == 1 else 1


def _group(rest: str, devices: int) -> int:
  """How many devices take part in one collective."""
  if named := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", rest):
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
    return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", named[2]))
  if iota := re.search(r"replica_groups=\[(\d+),(\d+)\]", rest):
    return int(iota[2])
  if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", rest):
    return len(listed[1].split(","))
  return devices


@functools.cache
def _dims(dims: str) -> tuple[int, ...]:
  return tuple(int(n) for n in dims.split(",") if n)


def _array_bytes(kind: str, dims: str) -> int:
  return BYTES.get(kind, 4) * math.prod(_dims(dims))
