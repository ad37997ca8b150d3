# SPDX-License-Identifier: Apache-2.0
"""The device of a bench: its numbers, PyTorch's word for it, and a product timed on it."""

import time

import jax
import jax.numpy as jnp

from stemgen_jax.types import Array

TURNS = 5  # products of a run on an accelerator


def compute_dtype() -> str:
  """Returns the numbers to multiply: bfloat16, but float32 on a CPU, which gains nothing by it."""
  return "float32" if jax.default_backend() == "cpu" else "bfloat16"


def torch_device() -> str:
  """Returns PyTorch's word for the device that JAX uses."""
  return "cuda" if jax.default_backend() == "gpu" else "cpu"


class MatrixProduct:
  """A product of two square matrices, of the numbers that the device's networks are made of."""

  def __init__(self, rows: int | None = None):
    """Takes the rows of the matrices; by default as many as keep the device busy."""
    self.rows = rows = rows or (2048 if jax.default_backend() == "cpu" else 8192)
    self._matrix: Array = jax.random.normal(jax.random.key(0), (rows, rows), compute_dtype())
    self._multiply = jax.jit(jnp.matmul)

  def run(self) -> None:
    """Multiplies, on an accelerator several times: one product would be over before the call is."""
    jax.block_until_ready([self._multiply(self._matrix, self._matrix) for _ in range(self.turns)])

  @property
  def turns(self) -> int:
    """Products of a run."""
    return 1 if jax.default_backend() == "cpu" else TURNS

  def rate(self, seconds: float) -> float:
    """Returns the FLOP a second of a run that took so long."""
    return 2 * self.turns * self.rows**3 / seconds

  def time(self) -> float:
    """Returns the seconds of a run."""
    began_s = time.perf_counter()
    self.run()
    return time.perf_counter() - began_s
