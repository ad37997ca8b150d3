# SPDX-License-Identifier: Apache-2.0
"""Tokens of context mixes -> tokens of stems, in one window: the model, guidance, the sampler."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import Mesh

from stemgen_jax import guidance, sharding
from stemgen_jax.config import ModelConfig, SampleConfig
from stemgen_jax.decode import DecodeOptions, Memory, Turn, decode
from stemgen_jax.model import Model
from stemgen_jax.types import Array, Bool, Float, Int, Keys, Params, Scalar

Generate = Callable[..., Int[Array, "B T Q"]]


@struct.dataclass
class GuidanceOptions:
  """How the sources steer. Numbers are traced; what is static decides which networks are compiled.

  In the iterations outside of the window, and in mode `joint`, one branch hears every source.
  """

  scales: Float[Array, " K"]  # of the context, then of each condition
  start: Scalar = 0.0  # of the window, as a share of each level's iterations
  stop: Scalar = 1.0
  refresh: Int[Array, ""] | int = 1  # iterations for which the unconditional branch is reused
  mode: str = struct.field(pytree_node=False, default="independent")
  windowed: bool = struct.field(pytree_node=False, default=False)
  cached: bool = struct.field(pytree_node=False, default=False)


def steering_of(settings: SampleConfig, model: ModelConfig) -> GuidanceOptions:
  """Returns how the sources steer by a model's settings; a source without a scale has 1."""
  window = (settings.guidance_start, settings.guidance_stop)
  scales = [settings.guidance.get(name, 1.0) for name in ("context", *model.sources)]
  return GuidanceOptions(
    scales=jnp.array(scales, jnp.float32),
    start=jnp.float32(window[0]),
    stop=jnp.float32(window[1]),
    refresh=jnp.int32(settings.guidance_refresh),
    mode=settings.guidance_mode,
    windowed=window != (0.0, 1.0),
    cached=settings.guidance_refresh > 1,
  )


def take_keys(seed: int, takes: int) -> Keys:
  """One key a take; take i has the same chances whatever the number of takes."""
  return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.arange(takes))


def build_generate(model: Model, n_codes: int, mesh: Mesh | None = None) -> Generate:
  """Returns a jitted function of the parameters and of what stems are to be made from.

  It compiles once for each shape and each static option; every number may change freely.

  Args:
    model: the network.
    n_codes: V.
    mesh: splits the examples over its devices; None for one device.
  """

  def generate(
    params: Params,
    context: Int[Array, "B T Q"],
    conditions: Int[Array, "B C"],
    given: Int[Array, "B T Q"],
    known: Bool[Array, "B T Q"],
    keys: Keys,
    options: DecodeOptions,
    steering: GuidanceOptions,
  ) -> Int[Array, "B T Q"]:
    """See `decode.decode`."""
    if steering.mode == "joint":
      steering = steering.replace(windowed=False, cached=False)
    branches = guidance.branches(1 + conditions.shape[1], steering.mode)
    weights = guidance.branch_weights(steering.scales, steering.mode)

    def hear(tokens: Int[Array, "B T Q"], keep: Bool[Array, "G K"]) -> Float[Array, "G B T D"]:
      """The features of some branches, all run as one batch, an example's branches together."""
      times = len(keep)
      rows = functools.partial(jnp.repeat, repeats=times, axis=0)
      tiled = jnp.tile(keep, (len(tokens), 1))
      features = model.apply(
        params, rows(tokens), rows(context), rows(conditions), tiled, "features"
      )
      return jnp.moveaxis(features.reshape(-1, times, *features.shape[1:]), 1, 0)

    def network(
      tokens: Int[Array, "B T Q"], level: Int[Array, ""], turn: Turn, memory: Memory
    ) -> tuple[Float[Array, "B T V"], Memory]:
      def all_branches(memory):
        heard = hear(tokens, jnp.asarray(branches))
        features = guidance.guide(heard, weights)
        return features, ((heard[0], jnp.int32(1)) if steering.cached else memory)

      def all_but_the_first(memory):
        unconditional, age = memory
        heard = hear(tokens, jnp.asarray(branches[1:]))
        features = guidance.guide(heard, weights[1:]) + weights[0] * unconditional
        return features, (unconditional, age + 1)

      def guided(memory):
        if not steering.cached:
          return all_branches(memory)
        fresh = (memory[1] < steering.refresh) & (turn.k > 1)
        return jax.lax.cond(fresh, all_but_the_first, all_branches, memory)

      def unguided(memory):
        features = hear(tokens, jnp.ones((1, branches.shape[1]), bool))[0]
        return features, ((memory[0], jnp.int32(2**30)) if steering.cached else memory)

      if steering.windowed:
        done = (turn.k - 1) / turn.n
        inside = (done >= steering.start) & (done < steering.stop)
        features, memory = jax.lax.cond(inside, guided, unguided, memory)
      else:
        features, memory = guided(memory)
      return model.project(params, features, level), memory

    memory = ()
    if steering.cached:
      like = jax.eval_shape(lambda: hear(given, jnp.asarray(branches[:1]))[0])
      memory = (jnp.zeros(like.shape, like.dtype), jnp.int32(2**30))
    tokens = decode(network, given, known, keys, options, n_codes, memory)
    return sharding.split_rows(tokens, mesh)

  return jax.jit(generate)
