# SPDX-License-Identifier: Apache-2.0
"""The device of a bench: its numbers, PyTorch's word for it, and a product timed on it."""

import argparse
import functools
import time

import jax

from stemgen_jax.model.arithmetic import choose_arithmetic, fastest_dtype
from stemgen_jax.types import Array

TURNS = 5  # products of a run on an accelerator


def add_dtype(parser: argparse.ArgumentParser) -> None:
  """Adds --dtype, the numbers of all that is compared."""
  parser.add_argument(
    "--dtype",
    choices=("auto", "float32", "bfloat16"),
    default="auto",
    help="what networks, PyTorch's too, multiply (default auto: the device's fastest)",
  )


def resolve_dtype(asked: str) -> str:
  """Returns the numbers to multiply: those asked for, or for "auto" the device's fastest."""
  return fastest_dtype(jax.default_backend()) if asked == "auto" else asked


def torch_device() -> str:
  """Returns PyTorch's word for the device that JAX uses."""
  return "cuda" if jax.default_backend() == "gpu" else "cpu"


class MatrixProduct:
  """A product of two square matrices, of the numbers that the networks are made of."""

  def __init__(self, dtype: str, rows: int | None = None):
    """Takes the rows of the matrices; by default as many as keep the device busy."""
    self.rows = rows = rows or (2048 if jax.default_backend() == "cpu" else 8192)
    self._matrix: Array = jax.random.normal(jax.random.key(0), (rows, rows), dtype)
    self._multiply = jax.jit(functools.partial(choose_arithmetic(dtype, None).product, "ij,jk->ik"))

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
