# SPDX-License-Identifier: Apache-2.0
"""The real training step and the real sampler, lowered for a mesh from shapes alone."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.stages import Lowered

from stemgen_jax.config import Config, ModelConfig
from stemgen_jax.model import sharding
from stemgen_jax.model.decode import options_of
from stemgen_jax.model.generate import build_generate, steering_of
from stemgen_jax.model.network import build
from stemgen_jax.training.checkpoint import abstract_like
from stemgen_jax.training.step import init_state, jit_train_step


def lower_train(config: Config, mesh: Mesh) -> Lowered:
  """Returns the step that `stemgen_jax.train` runs, for the config's batch."""
  model = build(config.model, mesh)
  state = abstract_like(jax.eval_shape(functools.partial(init_state, config, model)), mesh)
  rows = NamedSharding(mesh, sharding.BATCH)
  codes = (config.data.batch_size, config.data.crop_frames, config.model.n_levels)
  shapes = {
    "target": codes,
    "context": codes,
    "conditions": (codes[0], len(config.model.sources)),
  }
  batch = {n: jax.ShapeDtypeStruct(s, jnp.int32, sharding=rows) for n, s in shapes.items()}
  shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
  return jit_train_step(config, model, shardings).lower(state, batch)


def lower_sample(config: Config, mesh: Mesh) -> Lowered:
  """Returns the sampler that `stemgen_jax.sample` runs, for as many takes as the config's batch."""
  model, takes = build(config.model, mesh), config.data.batch_size
  params = abstract_like(jax.eval_shape(model.init, jax.random.key(0)), mesh)
  rows, everywhere = NamedSharding(mesh, sharding.BATCH), sharding.everywhere(mesh)

  def place(value, where):
    value = jax.eval_shape(lambda: value)
    return jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=where)

  codes = jnp.zeros((1, config.data.crop_frames, config.model.n_levels), jnp.int32)
  codes = jax.ShapeDtypeStruct((takes, *codes.shape[1:]), jnp.int32, sharding=rows)
  n_sources = len(config.model.sources)
  sample = config.sample
  options, steering = options_of(sample), steering_of(sample, config.model)
  keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), takes))
  return build_generate(model, config.model.n_codes, mesh).lower(
    params,
    codes,
    jax.ShapeDtypeStruct((takes, n_sources), jnp.int32, sharding=rows),
    codes,
    jax.ShapeDtypeStruct(codes.shape, bool, sharding=rows),
    jax.ShapeDtypeStruct(keys.shape, keys.dtype, sharding=rows),
    jax.tree.map(lambda x: place(x, everywhere), options),
    jax.tree.map(lambda x: place(x, everywhere), steering),
  )


PROGRAMS = {"train": lower_train, "sample": lower_sample}


def with_unroll(config: Config, unroll: int) -> Config:
  """Returns the config with another number of layers in one turn of the loop over them."""
  model: ModelConfig = dataclasses.replace(config.model, unroll=unroll)
  return dataclasses.replace(config, model=model)
