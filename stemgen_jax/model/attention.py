# SPDX-License-Identifier: Apache-2.0
"""softmax(q k^T / sqrt(H)) v over all frames: plain, by head, or a fused kernel.

Which suits where, and by how much: stemgen_jax/bench/README.md.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from stemgen_jax.model.arithmetic import multiply_wide, platform_of
from stemgen_jax.types import Array, Float

HEADS = PartitionSpec(("data", "fsdp"), "tensor", None, None)  # B N T H on the mesh
KEPT = "attention"  # the name under which rematerialisation may keep the fused kernel's results
_TILE = 128  # lanes of a TPU
_LONG = 400  # frames from which on a CPU is faster by head
_BLOCK = 512  # rows that the kernel holds at once
_GPU_KERNEL = "cudnn"


class Attention(NamedTuple):
  """`attend(q, k, v, frames)`, for sequences padded to a multiple of `tile`."""

  attend: Callable[..., Float[Array, "B N T H"]]
  tile: int


def choose_attention(mesh: Mesh | None) -> Attention:
  """Returns what suits the mesh's devices: on GPU and TPU a kernel that writes no T x T scores."""
  platform = platform_of(mesh)
  if platform == "gpu":
    return Attention(attend_cudnn, 1)
  if platform != "tpu" or mesh is None:
    return Attention(attend_by_head if _is_one_cpu(mesh) else attend_plain, 1)

  def attend(q, k, v, frames):
    local = functools.partial(attend_fused, frames=frames)
    specs = {"in_specs": (HEADS,) * 3, "out_specs": HEADS, "check_vma": False}
    return jax.shard_map(local, mesh=mesh, **specs)(q, k, v)

  return Attention(attend, _TILE)


def _is_one_cpu(mesh: Mesh | None) -> bool:
  return platform_of(mesh) == "cpu" and (mesh is None or mesh.size == 1)


def attend_plain(
  q: Float[Array, "*B T H"], k: Float[Array, "*B T H"], v: Float[Array, "*B T H"], frames: int
) -> Float[Array, "*B T H"]:
  """The equation, in float32; divided by the sum last, once for H numbers instead of for T.

  `frames` is T: nothing is padded.
  """
  scores = multiply_wide("...th,...sh->...ts", q * q.shape[-1] ** -0.5, k)
  weight = jnp.exp(scores - jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True)))
  counted = jnp.pad(v, [(0, 0)] * (v.ndim - 1) + [(0, 1)], constant_values=1)  # v and 1
  heard = multiply_wide("...ts,...sh->...th", weight.astype(v.dtype), counted)
  return (heard[..., :-1] / heard[..., -1:]).astype(v.dtype)


def attend_by_head(
  q: Float[Array, "B N T H"], k: Float[Array, "B N T H"], v: Float[Array, "B N T H"], frames: int
) -> Float[Array, "B N T H"]:
  """The same, one head after the other where T is long, so that a CPU's caches hold the scores.

  The backward pass computes the scores again.
  """
  if frames < _LONG:
    return attend_plain(q, k, v, frames)

  @jax.checkpoint
  def attend_one(head: tuple[Array, Array, Array]) -> Array:
    return attend_plain(*head, frames)

  heads = tuple(x.reshape(-1, *x.shape[2:]) for x in (q, k, v))  # B * N T H
  return jax.lax.map(attend_one, heads).reshape(q.shape)


def attend_cudnn(
  q: Float[Array, "B N T H"], k: Float[Array, "B N T H"], v: Float[Array, "B N T H"], frames: int
) -> Float[Array, "B N T H"]:
  """The same by cuDNN's kernel on a GPU, which takes numbers of 16 bits; plain for others.

  `frames` is T: nothing is padded.
  """
  if q.dtype.itemsize != 2:
    return attend_plain(q, k, v, frames)
  heads_last = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
  heard = jax.nn.dot_product_attention(*heads_last, implementation=_GPU_KERNEL)
  return jnp.swapaxes(heard, 1, 2)


def attend_fused(
  q: Float[Array, "B N T H"],
  k: Float[Array, "B N T H"],
  v: Float[Array, "B N T H"],
  frames: int,
  interpret: bool = False,
) -> Float[Array, "B N T H"]:
  """The same by JAX's splash kernel, which never writes the T x T scores to memory.

  Args:
    q, k, v: T a multiple of 128.
    frames: how many of the T are real; those after them are padding, and heard by none.
    interpret: runs the kernel without a TPU, slowly (for tests).

  Source: FlashAttention (arXiv:2205.14135).
  """
  # Imported here, so that a JAX that has moved it fails on a TPU alone.
  from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
  from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as mask

  heads, whole, width = q.shape[1:]
  padding = jnp.asarray(np.arange(whole) >= frames, jnp.int32)
  block = next(size for size in (_BLOCK, 3 * _TILE, 2 * _TILE, _TILE) if whole % size == 0)
  minor = splash.QKVLayout.SEQ_MINOR
  kernel = splash.make_splash_mha(
    mask.MultiHeadMask([mask.FullMask((whole, whole))] * heads),
    block_sizes=splash.BlockSizes(
      block_q=block,
      block_kv=whole,
      block_kv_compute=block,
      block_q_dkv=block,
      block_kv_dkv=whole,
      block_kv_dkv_compute=block,
      use_fused_bwd_kernel=True,
      q_layout=minor,
      k_layout=minor,
      v_layout=minor,
    ),
    head_shards=1,
    q_seq_shards=1,
    residual_checkpoint_name=KEPT,
    interpret=interpret,
  )
  segments = splash.SegmentIds(q=padding, kv=padding)

  def attend_one(q: Array, k: Array, v: Array) -> Array:
    heard = kernel(q * width**-0.5, k, v, segment_ids=segments)
    return cast(Array, heard)  # without residuals, which come only if asked for

  return jax.vmap(attend_one)(q, k, v)
