# SPDX-License-Identifier: Apache-2.0
"""The mesh, and where every array lives on it: one table of path patterns.

Axes: `data` splits examples; `fsdp` splits examples and stores a share of each parameter; `tensor`
splits heads, MLP columns and vocabulary.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from stemgen_jax.config import MeshConfig
from stemgen_jax.errors import UserError

AXES = ("data", "fsdp", "tensor")
BATCH = PartitionSpec(("data", "fsdp"))

# Parameters end with these paths; optimiser moments and averaged weights repeat them.
TABLE = (
  (r"blocks/qkv", PartitionSpec(None, "fsdp", None, "tensor", None)),  # L D 3 N H
  (r"blocks/out", PartitionSpec(None, "tensor", None, "fsdp")),  # L N H D
  (r"blocks/gate_up", PartitionSpec(None, "fsdp", None, "tensor")),  # L D 2 F
  (r"blocks/down", PartitionSpec(None, "tensor", "fsdp")),  # L F D
  (r"blocks/(attention|mlp)_norm", PartitionSpec(None, None)),  # L D
  (r"codebooks", PartitionSpec(None, None, "fsdp")),  # Q V+1 D
  (r"(context|target)_in", PartitionSpec("fsdp", "tensor")),  # D D
  (r"null_context|norm", PartitionSpec(None)),  # D
  (r"conditions/[^/]+", PartitionSpec(None, "fsdp")),  # values+1 D
  (r"heads", PartitionSpec(None, "fsdp", "tensor")),  # Q D V
)


def build_mesh(config: MeshConfig, devices: list[jax.Device] | None = None) -> Mesh:
  """Returns the (data, fsdp, tensor) mesh; one axis may be -1 and takes the devices left.

  Raises:
    UserError: if the axes do not multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  sizes = [config.data, config.fsdp, config.tensor]
  if sizes.count(-1) == 1:
    sizes[sizes.index(-1)] = len(devices) // max(1, -math.prod(sizes))
  if min(sizes) < 1 or math.prod(sizes) != len(devices):
    raise UserError(
      f"mesh axes {AXES} must multiply to the number of devices, {len(devices)}; got"
      f" {(config.data, config.fsdp, config.tensor)}. Set --config.mesh.data=-1 or other sizes."
    )
  return Mesh(np.asarray(devices).reshape(sizes), AXES, axis_types=(AxisType.Auto,) * 3)


def tree_shardings(tree: Any, mesh: Mesh) -> Any:
  """Returns the NamedSharding of each leaf of a tree of arrays (or shapes), by TABLE.

  Raises:
    ValueError: if a path has no row or a row of another rank; it names path and shape.
    UserError: if an axis does not divide; it names path, shape and mesh.
  """
  return jax.tree.map_with_path(lambda path, leaf: _leaf_sharding(path, leaf, mesh), tree)


def _leaf_sharding(path: tuple, leaf: Any, mesh: Mesh) -> NamedSharding:
  name = jax.tree_util.keystr(path, simple=True, separator="/")
  if leaf.ndim == 0:
    return NamedSharding(mesh, PartitionSpec())
  spec = next((spec for pattern, spec in TABLE if re.search(rf"(^|/)({pattern})$", name)), None)
  if spec is None:
    raise ValueError(f"every parameter must have a row in sharding.TABLE; got {name} {leaf.shape}.")
  if len(spec) != leaf.ndim:
    raise ValueError(f"{name} must have rank {len(spec)} as {spec}; got shape {leaf.shape}.")
  for size, axis in zip(leaf.shape, spec):
    if axis and size % mesh.shape[axis]:
      raise UserError(
        f"mesh axis '{axis}' must divide every array it splits; got {name} of shape {leaf.shape}"
        f" on mesh {dict(mesh.shape)}. Choose a size that divides {size}."
      )
  return NamedSharding(mesh, spec)


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
  """Returns this process's rows of a batch as global arrays, split over examples."""
  sharding = NamedSharding(mesh, BATCH)
  return {
    name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()
  }
