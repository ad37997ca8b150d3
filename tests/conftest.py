# SPDX-License-Identifier: Apache-2.0
"""Eight simulated CPU devices, strict JAX, and type-checked calls for every test."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

from jaxtyping import install_import_hook

install_import_hook("stemgen_jax", "beartype.beartype")

import jax  # after the settings above
from absl import flags

jax.config.update("jax_numpy_rank_promotion", "raise")
if not flags.FLAGS.is_parsed():
  flags.FLAGS.mark_as_parsed()  # Grain workers read absl flags
