# SPDX-License-Identifier: Apache-2.0
"""A compiled program's needs on each chip, and the time they imply: a bound, and an estimate.

Bound: the longest of FLOP / peak, bytes / bandwidth and the collectives' bytes / links, each as if
the others cost nothing. Estimate: the cycles that the compiler itself gives each of its operations,
one after another, with the fused attention at the peak and what the schedule leaves of the
collectives uncovered. Neither is a run.
"""

import collections
import math
from typing import Any

import jax
from jax.sharding import Mesh

from stemgen_jax.compile import hlo
from stemgen_jax.compile.chips import Chip
from stemgen_jax.compile.programs import PROGRAMS, with_unroll
from stemgen_jax.config import Config
from stemgen_jax.model.flops import forward_flops, train_flops
from stemgen_jax.model.generate import steering_of
from stemgen_jax.model.guidance import branches

Row = dict[str, Any]


def measure(program: str, config: Config, mesh: Mesh, chip: Chip | None) -> Row:
  """Compiles a program for the mesh and returns its row; `chip` None gives no times.

  All figures are a chip's. `flops`, `bytes` and cycles are of a whole step, or of one iteration of
  the sampler: of loops, every turn counts.
  """
  devices = mesh.devices.size
  compiled = PROGRAMS[program](config, mesh).compile()
  memory, text = compiled.memory_analysis(), compiled.as_text()
  if memory is None or text is None:
    raise ValueError(f"the compiler must describe its programs; got nothing for {program}.")
  flops, accessed = _count_cost(program, config, mesh, compiled)
  ops = hlo.count_ops(text)
  kernels = hlo.kernel_flops(ops)
  moved = hlo.count_collectives(ops, devices)
  kept = memory.output_size_in_bytes - memory.alias_size_in_bytes
  row = {
    "program": program,
    "chips": devices,
    "mesh": "x".join(str(n) for n in mesh.shape.values()),
    "batch_chip": config.data.batch_size / devices,
    "argument_gb": memory.argument_size_in_bytes / 1e9,
    "temporary_gb": memory.temp_size_in_bytes / 1e9,
    "output_gb": memory.output_size_in_bytes / 1e9,
    "tflop": (flops + kernels) / 1e12,
    "accessed_gb": accessed / 1e9,
    "collectives": _name_collectives(moved),
    "collective_gb": sum(c.size * c.repeats for c in moved) / 1e9,
  }
  if chip is None:
    return row
  used = memory.argument_size_in_bytes + memory.temp_size_in_bytes + kept
  needed = _model_flops(program, config) / devices
  times = {
    "compute_ms": (flops + kernels) / chip.flops,
    "memory_ms": accessed / chip.hbm_bytes_per_s,
    "collective_ms": sum(
      c.repeats * c.seconds(chip.spread_bytes_per_s(c.group, devices)) for c in moved
    ),
  }
  row |= {"hbm_share": used / chip.hbm_bytes, **{name: 1e3 * s for name, s in times.items()}}
  row |= {
    "bound_ms": 1e3 * max(times.values()),
    "bound_mfu": needed / chip.flops / max(times.values()),
  }
  if chip.clock_hz:
    exposed = sum(
      c.repeats
      * max(
        0.0, c.seconds(chip.spread_bytes_per_s(c.group, devices)) - c.hidden_cycles / chip.clock_hz
      )
      for c in moved
    )
    cycles = sum(op.cycles * op.repeats for op in ops if op.top)
    estimate = cycles / chip.clock_hz + kernels / chip.flops + exposed
    row |= {"exposed_ms": 1e3 * exposed, "estimate_ms": 1e3 * estimate}
    row |= {"estimate_mfu": needed / chip.flops / estimate}
  return row


def _count_cost(
  program: str, config: Config, mesh: Mesh, compiled: jax.stages.Compiled
) -> tuple[float, float]:
  """Returns FLOP and bytes accessed, every layer counted.

  The compiler counts the body of the loop over layers once, whatever its turns. The same program
  with twice the layers in the body tells what a body costs.
  """
  once = _read_cost(compiled)
  layers, unroll = config.model.n_layers, config.model.unroll
  if unroll == layers:
    return once
  # The loop's last turns are written out where they do not divide: then take another pair.
  twice = _read_cost(PROGRAMS[program](with_unroll(config, 2 * unroll), mesh).compile())
  turns = layers // unroll - 1
  flops, accessed = (a + turns * (b - a) for a, b in zip(once, twice, strict=True))
  return flops, accessed


def _read_cost(compiled: jax.stages.Compiled) -> tuple[float, float]:
  """Returns the compiler's own count of FLOP and bytes accessed."""
  cost = compiled.cost_analysis()
  if cost is None:
    raise ValueError("the compiler must count what a program costs; got nothing.")
  return cost["flops"], cost["bytes accessed"]


def _model_flops(program: str, config: Config) -> float:
  """The FLOP that the mathematics needs, over all chips."""
  frames, batch = config.data.crop_frames, config.data.batch_size
  if program == "train":
    return batch * train_flops(config.model, frames)
  steering = steering_of(config.sample, config.model)
  rows = len(branches(steering.guided, steering.mode))
  return batch * rows * forward_flops(config.model, frames)


def _name_collectives(moved: list[hlo.Collective]) -> str:
  """E.g. "86 all-gather 0.52 GB, 7 all-reduce 0.58 GB"."""
  counts: dict[str, list[float]] = collections.defaultdict(lambda: [0, 0.0])
  for c in moved:
    counts[c.kind][0] += c.repeats
    counts[c.kind][1] += c.repeats * c.size / 1e9
  return ", ".join(f"{n} {kind} {size:.2f} GB" for kind, (n, size) in sorted(counts.items()))


def fits(row: Row) -> bool:
  """Whether a program's row says that it fits the chip's memory."""
  return row.get("hbm_share", -math.inf) <= 1
