# SPDX-License-Identifier: Apache-2.0
"""The mesh, and where every array lives on it: one table of path patterns.

Axes: `data` splits examples; `fsdp` splits examples and stores a share of each parameter; `tensor`
splits heads, MLP columns and vocabulary.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from stemgen_jax.config import MeshConfig, ModelConfig
from stemgen_jax.errors import UserError
from stemgen_jax.model.arithmetic import fastest_dtype
from stemgen_jax.types import Device, Params

AXES = ("data", "fsdp", "tensor")
BATCH = PartitionSpec(("data", "fsdp"))
GPU_OPTIONS: dict[str, str | bool] = {"xla_gpu_enable_latency_hiding_scheduler": True}

# Parameters end with these paths; optimiser moments and averaged weights repeat them.
TABLE = (
  (r"blocks/qkv", PartitionSpec(None, "fsdp", None, "tensor", None)),  # L D 3 N H
  (r"blocks/out", PartitionSpec(None, "tensor", None, "fsdp")),  # L N H D
  (r"blocks/gate_up", PartitionSpec(None, "fsdp", None, "tensor")),  # L D 2 F
  (r"blocks/down", PartitionSpec(None, "tensor", "fsdp")),  # L F D
  (r"blocks/(attention|mlp)_norm", PartitionSpec(None, None)),  # L D
  (r"codebooks", PartitionSpec(None, None, "fsdp")),  # Q V+1 D/2
  (r"null_context|norm", PartitionSpec(None)),  # D/2, D
  (r"conditions/[^/]+", PartitionSpec(None, "fsdp")),  # values+1 D/2
  (r"steering/tables/[^/]+", PartitionSpec(None, None, None, None)),  # scales 2L+1 2 D
  (r"heads", PartitionSpec(None, "fsdp", "tensor")),  # Q D V
)


def build_mesh(config: MeshConfig, devices: Sequence[Device] | None = None) -> Mesh:
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
      f" {(config.data, config.fsdp, config.tensor)}. Set --config.mesh.data, .fsdp or .tensor;"
      " one may be -1."
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
  spec = _spec(name)
  if len(spec) != leaf.ndim:
    raise ValueError(f"{name} must have rank {len(spec)} as {spec}; got shape {leaf.shape}.")
  for size, axis in zip(leaf.shape, spec, strict=True):
    if axis and size % mesh.shape[axis]:
      raise UserError(
        f"mesh axis '{axis}' must divide every array it splits; got {name} of shape {leaf.shape}"
        f" on mesh {dict(mesh.shape)}. Choose a size that divides {size}."
      )
  return NamedSharding(mesh, spec)


def _spec(name: str) -> PartitionSpec:
  for pattern, spec in TABLE:
    if re.search(rf"(^|/)({pattern})$", name):
      return spec
  raise ValueError(f"every parameter must have a row in sharding.TABLE; got {name}.")


def gather(params: Any, mesh: Mesh | None, prefix: str = "") -> Any:
  """Returns parameters whole along `fsdp`, to compute with; their gradients are scattered again.

  Left to itself, the partitioner would rather split the activations as the parameters are, and send
  those about, which are far larger.

  Args:
    params: a tree of parameters; or of one layer's, with `prefix` "blocks".
    mesh: None leaves all as it is.
  """
  if mesh is None or mesh.shape["fsdp"] == 1:
    return params

  def one(path, leaf):
    name = "/".join(filter(None, (prefix, jax.tree_util.keystr(path, simple=True, separator="/"))))
    spec = PartitionSpec(*_spec(name)[1:]) if prefix else _spec(name)
    whole = PartitionSpec(*(None if axis == "fsdp" else axis for axis in spec))
    return _gather(NamedSharding(mesh, whole), NamedSharding(mesh, spec), leaf)

  return jax.tree.map_with_path(one, params)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _gather(whole: NamedSharding, split: NamedSharding, leaf: jax.Array) -> jax.Array:
  return jax.lax.with_sharding_constraint(leaf, whole)


_gather.defvjp(
  lambda whole, split, leaf: (_gather(whole, split, leaf), None),
  lambda whole, split, _, cotangent: (jax.lax.with_sharding_constraint(cotangent, split),),
)


def split_rows(x: jax.Array, mesh: Mesh | None) -> jax.Array:
  """Holds an array to its rows' split over examples."""
  return x if mesh is None else jax.lax.with_sharding_constraint(x, NamedSharding(mesh, BATCH))


def compiler_options(mesh: Mesh) -> dict[str, str | bool]:
  """What to tell the compiler of the mesh's platform.

  TPU: gather a layer's parameters in one piece. In pieces, each multiplied as it comes, the small
  products cost more than they hide: 1.7 times the whole step at 16 v5e chips, by its own estimate.
  Several GPUs: send parameters and gradients while others are multiplied (not measured yet).
  """
  platform = mesh.devices.flat[0].platform
  if platform == "tpu":
    return {"xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000"}
  if platform == "gpu" and mesh.size > 1:
    return GPU_OPTIONS
  return {}


def suit_platform(model: ModelConfig, params: Params, platform: str) -> tuple[ModelConfig, Params]:
  """Returns a network and its weights as they sample fastest on a platform.

  The weights of its layers are cast once, not in every pass.
  """
  dtype = fastest_dtype(platform)
  return dataclasses.replace(model, compute_dtype=dtype), cast_layers(params, dtype)


def cast_layers(params: Params, dtype: str) -> Params:
  """Returns parameters whose layers are of a type of number; what is outside them is as it was."""

  def cast(blocks: Params) -> Params:
    return jax.tree.map(lambda leaf: leaf.astype(dtype), blocks)

  return {**params, "blocks": jax.jit(cast)(params["blocks"])}  # jitted, as one program


def everywhere(mesh: Mesh) -> NamedSharding:
  """The whole array on every device, so that every process can read it."""
  return NamedSharding(mesh, PartitionSpec())


def batch_share(mesh: Mesh) -> tuple[int, int]:
  """Returns (p, P): the rows of a batch fall into P equal shares, and this process feeds share p.

  Processes that only a tensor split tells apart feed the same rows.

  Raises:
    UserError: if the mesh gives the processes' devices shares that differ or overlap in part.
  """
  groups: dict[int, set[int]] = {}  # of each process: the splits of the batch on its devices
  splits = mesh.devices.reshape(-1, mesh.shape["tensor"])
  for i, devices in enumerate(splits):
    for device in devices:
      groups.setdefault(device.process_index, set()).add(i)
  shares = sorted({tuple(sorted(group)) for group in groups.values()})
  if len({len(share) for share in shares}) > 1 or sum(map(len, shares)) != len(splits):
    raise UserError(
      f"the processes must have equal shares of a batch, or the same; got mesh {dict(mesh.shape)}"
      f" over {jax.process_count()} processes. Choose --config.mesh.tensor to divide the devices of"
      " a process, or to be a multiple of them."
    )
  return shares.index(tuple(sorted(groups[jax.process_index()]))), len(shares)


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
  """Returns the rows that this process feeds (`batch_share`) as global arrays, split by example.

  Only what a network reads goes to the devices: targets, contexts and conditions.
  """
  sharding = NamedSharding(mesh, BATCH)
  return {
    name: jax.make_array_from_process_local_data(sharding, batch[name])
    for name in ("target", "context", "conditions")
  }
