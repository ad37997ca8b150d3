# SPDX-License-Identifier: Apache-2.0
"""StemGen (arXiv:2312.08723) in JAX: a music model that listens."""

import sys
from typing import Any

__version__ = "0.1.0"
__all__ = ["StemGen"]

if sys.argv[:1] == ["-m"]:  # a command, whose modules take seconds to load: Ctrl-C may come in them
  _show = sys.excepthook

  def _show_unless_interrupted(kind: type[BaseException], *rest: Any) -> None:
    if issubclass(kind, KeyboardInterrupt):
      print("interrupted", file=sys.stderr)
    else:
      _show(kind, *rest)

  sys.excepthook = _show_unless_interrupted


def __getattr__(name: str) -> Any:
  """Loads `StemGen` where it is asked for: training and tokenising do without."""
  if name == "StemGen":
    from stemgen_jax.sampling.stemgen import StemGen

    return StemGen
  raise AttributeError(f"module 'stemgen_jax' has no attribute {name!r}")
