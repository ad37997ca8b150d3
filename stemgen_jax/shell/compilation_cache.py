# SPDX-License-Identifier: Apache-2.0
"""Compiled functions on disk, so that the second process starts fast."""

import jax

from stemgen_jax.shell.folders import cache_folder


def enable() -> None:
  """Keeps what is compiled in `~/.cache/stemgen_jax/xla`: a start has many small programs.

  `JAX_COMPILATION_CACHE_DIR`, or a folder set in JAX, goes before; `XDG_CACHE_HOME` is heeded. A
  folder that cannot be made is passed over: compiling again is all it costs.
  """
  if jax.config.values["jax_compilation_cache_dir"] is not None:
    return
  folder = cache_folder("xla")
  if folder is None:
    return
  jax.config.update("jax_compilation_cache_dir", str(folder))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
