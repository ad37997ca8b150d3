# SPDX-License-Identifier: Apache-2.0
r"""Compiles training and sampling for a TPU slice that is not there, and says what they would take.

Example:
  pip install --target runs/libtpu --no-deps libtpu==0.0.52
  TPU_LIBRARY_PATH=runs/libtpu/libtpu/libtpu.so python -m stemgen_jax.compile \
    --config configs/slakh_pod.py --topology v5e:4x4

Runs on any machine, with JAX's own compiler for TPU (libtpu; the extra `compile` installs it, best
in an environment of its own, as JAX looks for a TPU wherever it is installed). `--topology cpu`
compiles for this machine, without times. Settings are overridden as in training; `--mesh` and
`--batch_chip` measure several meshes and batches in one go.

Columns, all of one chip: GB of arguments, temporaries and outputs, and the share of its memory;
FLOP, bytes accessed; the collectives, by kind, with their bytes; the time of the three at the
chip's peak, bandwidth and links; `bound`: the longest of them, with the model FLOP utilisation
(MFU) it implies; `estimate`: the compiler's own cycles and the collectives left uncovered, with
its MFU. A compiled program's figures, not a run's. For `sample` they are of one iteration.
"""

import argparse
import dataclasses
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # before JAX starts: no TPU is to be looked for
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # there is no TPU to share

import jax
from jax.experimental import topologies

from stemgen_jax.bench.table import Row, show_rows
from stemgen_jax.compile.chips import CHIPS, Chip
from stemgen_jax.compile.measure import measure
from stemgen_jax.compile.programs import PROGRAMS
from stemgen_jax.config import Config, MeshConfig
from stemgen_jax.errors import UserError, run_cli
from stemgen_jax.model.sharding import build_mesh
from stemgen_jax.shell.flags import build_parser, parse_config
from stemgen_jax.shell.folders import make_folder
from stemgen_jax.types import Device

NAMES = {
  "program": ("program", ""),
  "mesh": ("mesh", ""),
  "batch_chip": ("windows a chip", "g"),
}
NEEDS = NAMES | {
  "argument_gb": ("args GB", ".2f"),
  "temporary_gb": ("temps GB", ".2f"),
  "output_gb": ("outs GB", ".2f"),
  "hbm_share": ("of memory", ".0%"),
  "tflop": ("TFLOP", ".2f"),
  "accessed_gb": ("accessed GB", ".0f"),
  "collectives": ("collectives", ""),
}
TIMES = NAMES | {
  "compute_ms": ("compute ms", ".1f"),
  "memory_ms": ("memory ms", ".1f"),
  "collective_ms": ("links ms", ".1f"),
  "bound_mfu": ("bound MFU", ".0%"),
  "exposed_ms": ("uncovered ms", ".1f"),
  "estimate_ms": ("estimate ms", ".0f"),
  "estimate_mfu": ("estimate MFU", ".0%"),
}


def main(argv: list[str] | None = None) -> None:
  """Compiles the programs of the command line, and prints their tables.

  Raises:
    UserError: if the topology cannot be had, or a mesh does not fit it.
  """
  parser = build_parser(__doc__)
  parser.add_argument("--topology", required=True, help="v5e:4x4, v4:2x2x4, ..., or cpu")
  parser.add_argument("--program", nargs="+", choices=tuple(PROGRAMS), default=["train"])
  parser.add_argument(
    "--mesh",
    nargs="+",
    type=parse_mesh,
    metavar="DxFxT",
    help="data x fsdp x tensor; default: the config's",
  )
  parser.add_argument(
    "--batch_chip", nargs="+", type=int, metavar="N", help="windows a chip; default: the config's"
  )
  parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here too")
  arguments = parse_config(parser, Config, argv)
  if arguments.json:
    make_folder(arguments.json.parent, "the folder of --json")
  devices, chip = find_devices(arguments.topology)
  measured = _measure_all(arguments, devices, chip)
  rows = show_rows(measured, NEEDS, arguments.json)
  if chip:
    show_rows([{name: row.get(name) for name in TIMES} for row in rows], TIMES)


def _measure_all(
  arguments: argparse.Namespace, devices: Sequence[Device], chip: Chip | None
) -> Iterator[Row]:
  config: Config = arguments.config
  for mesh_config in arguments.mesh or [config.mesh]:
    mesh = build_mesh(mesh_config, devices)
    for batch_chip in arguments.batch_chip or [None]:
      size = config.data.batch_size if batch_chip is None else batch_chip * len(devices)
      data = dataclasses.replace(config.data, batch_size=size)
      asked = dataclasses.replace(config, data=data, mesh=mesh_config)
      asked.validate()
      for program in arguments.program:
        row = measure(program, asked, mesh, chip)
        yield {"config": config.name, "topology": arguments.topology, **row}


def parse_mesh(text: str) -> MeshConfig:
  """Reads e.g. 4x4x1.

  Raises:
    ArgumentTypeError: if it is not three numbers.
  """
  try:
    data, fsdp, tensor = (int(n) for n in text.split("x"))
  except ValueError as error:
    raise argparse.ArgumentTypeError(f"must be DATAxFSDPxTENSOR, e.g. 4x4x1; got {text}") from error
  return MeshConfig(data=data, fsdp=fsdp, tensor=tensor)


def find_devices(topology: str) -> tuple[list[Device], Chip | None]:
  """Returns the devices of a topology by name, and what its chip can do.

  Raises:
    UserError: if libtpu is not there, or knows no such topology.
  """
  if topology == "cpu":
    return jax.devices("cpu"), None
  version = topology.partition(":")[0]
  if version not in CHIPS:
    raise UserError(
      f"--topology must be cpu, or VERSION:SHAPE of {list(CHIPS)}; got {topology!r}. Try v5e:4x4."
    )
  options = {"chip_config_name": "megacore"} if version == "v4" else {}  # a device is a chip
  try:
    found = topologies.get_topology_desc(platform="tpu", topology_name=topology, **options)
  except (jax.errors.JaxRuntimeError, RuntimeError, ValueError) as error:
    raise UserError(
      f"--topology must be one that libtpu can load; got {topology!r} ({str(error)[:160]}). Check"
      " its shape, and that libtpu is installed or TPU_LIBRARY_PATH names it (see --help)."
    ) from error
  return list(found.devices), CHIPS[version]


if __name__ == "__main__":
  sys.exit(run_cli(main))
