# SPDX-License-Identifier: Apache-2.0
"""Which numbers a device multiplies fastest, and products of short numbers with long sums."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from stemgen_jax.types import Array

Product = Callable[[str, Array, Array], Array]
_CPU_FLAGS = Path("/proc/cpuinfo")
_SHORT_FLAGS = {"amx_bf16", "avx512_bf16"}  # Intel since 2023, AMD since 2022


def platform_of(mesh: Mesh | None) -> str:
  """Returns what a mesh consists of, cpu, gpu or tpu; without a mesh, what JAX uses."""
  return jax.default_backend() if mesh is None else mesh.devices.flat[0].platform


def fastest_dtype(platform: str) -> str:
  """Returns bfloat16, but float32 on a CPU without instructions for its products."""
  return "float32" if platform == "cpu" and not _multiplies_short() else "bfloat16"


@functools.cache
def _multiplies_short() -> bool:
  try:
    flags = _CPU_FLAGS.read_text(encoding="utf-8").split()
  except OSError:  # not Linux
    return False
  return not _SHORT_FLAGS.isdisjoint(flags)


class Arithmetic(NamedTuple):
  """How a network computes on its devices.

  Attributes:
    product: einsum of two arrays, `product(equation, a, b)`.
    dtype: of what is multiplied.
    stream: the dtype of what runs from layer to layer, and of what `product` returns.
  """

  product: Product
  dtype: str
  stream: str


def choose_arithmetic(dtype: str, mesh: Mesh | None) -> Arithmetic:
  """Returns what suits the mesh's devices, `dtype` being float32, bfloat16 or auto.

  A CPU multiplies bfloat16 fast only where its sums are asked for in float32.
  """
  platform = platform_of(mesh)
  dtype = fastest_dtype(platform) if dtype == "auto" else dtype
  if platform == "cpu":
    return Arithmetic(multiply_wide, dtype, "float32")
  return Arithmetic(jnp.einsum, dtype, dtype)


def multiply_wide(equation: str, a: Array, b: Array) -> Array:
  """einsum(equation, a, b) in float32, and so are the products of its backward pass.

  Every index of `equation` must be in two of its three terms.
  """
  if a.dtype == jnp.float32:
    return jnp.einsum(equation, a, b)
  return _multiply_short(equation, a, b)


def _sum_wide(equation: str, a: Array, b: Array) -> Array:
  return jnp.einsum(equation, a, b, preferred_element_type=jnp.float32)


_multiply_short = jax.custom_vjp(_sum_wide, nondiff_argnums=(0,))


def _forward(equation: str, a: Array, b: Array) -> tuple[Array, tuple[Array, Array]]:
  return _sum_wide(equation, a, b), (a, b)


def _backward(equation: str, kept: tuple[Array, Array], slope: Array) -> tuple[Array, Array]:
  """The slope of a is slope times b, summed over what only these two have; so for b."""
  a, b = kept
  slope = slope.astype(a.dtype)  # or the products would be of long numbers
  terms, result = equation.split("->")
  left, right = terms.split(",")
  to_a = _sum_wide(f"{result},{right}->{left}", slope, b)
  to_b = _sum_wide(f"{left},{result}->{right}", a, slope)
  return to_a.astype(a.dtype), to_b.astype(b.dtype)


_multiply_short.defvjp(_forward, _backward)
