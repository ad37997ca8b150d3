# SPDX-License-Identifier: Apache-2.0
"""StemGen (arXiv:2312.08723) in JAX: a music model that listens."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["StemGen"]


def __getattr__(name: str) -> Any:
  """Loads `StemGen` where it is asked for: training and tokenising do without."""
  if name == "StemGen":
    from stemgen_jax.sampling.stemgen import StemGen

    return StemGen
  raise AttributeError(f"module 'stemgen_jax' has no attribute {name!r}")
