# SPDX-License-Identifier: Apache-2.0
"""Tokens of context mixes -> tokens of stems, in one window: the model, guidance, the sampler."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import Mesh
from jax.stages import Wrapped

from stemgen_jax.config import ModelConfig, SampleConfig
from stemgen_jax.model import guidance, sharding
from stemgen_jax.model.decode import DecodeOptions, decode
from stemgen_jax.model.network import Model
from stemgen_jax.types import Array, Bool, Float, Int, Keys, Params


@struct.dataclass
class GuidanceOptions:
  """How the sources steer. Scales are traced; what is static decides which networks are compiled.

  Levels from `levels` on, counted from 0, and mode `joint` take one branch that hears every source;
  so does mode `distilled`, whose network takes the scales as inputs.
  """

  scales: Float[Array, " K"]  # of the context, then of each condition
  guided: tuple[bool, ...] = struct.field(pytree_node=False)  # of the same; others are always heard
  levels: int = struct.field(pytree_node=False)
  mode: str = struct.field(pytree_node=False, default="independent")
  inputs: tuple[int, ...] = struct.field(pytree_node=False, default=())  # the network's scales


def steering_of(settings: SampleConfig, model: ModelConfig) -> GuidanceOptions:
  """Returns how the sources steer by a model's settings; one without a scale is not guided."""
  names = ("context", *model.sources)
  return GuidanceOptions(
    scales=jax.device_put(np.array([settings.guidance.get(n, 1.0) for n in names], np.float32)),
    guided=tuple(name in settings.guidance for name in names),
    levels=min(settings.guided_levels, model.n_levels),
    mode=settings.guidance_mode,
    inputs=tuple(names.index(name) for name in model.scale_inputs),
  )


_fold_one = jax.jit(jax.vmap(jax.random.fold_in, (None, 0)))
_fold_all = jax.jit(jax.vmap(jax.random.fold_in, (0, None)))


def take_keys(seed: int, takes: int) -> Keys:
  """One key a take; take i has the same chances whatever the number of takes."""
  return _fold_one(jax.random.key(seed), np.arange(takes))


def window_keys(keys: Keys, number: int) -> Keys:
  """The keys of one window of the takes, from those of the takes."""
  return _fold_all(keys, number)


def build_generate(model: Model, n_codes: int, mesh: Mesh | None = None) -> Wrapped:
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
    wrap: int = 0,
  ) -> Int[Array, "B T Q"]:
    """Returns the tokens of stems; see `decode.decode` for what is given.

    `wrap` is for loops: the network is shown that many frames of the end before the start, and of
    the start after the end, so that the seam is written like any other place.
    """
    guided, mode, frames = steering.guided, steering.mode, context.shape[1]
    branches = guidance.branches(guided, mode)
    weights = guidance.branch_weights(steering.scales, guided, mode)
    around = np.arange(-wrap, frames + wrap) % frames

    def hear(
      tokens: Int[Array, "B T Q"], keep: Bool[np.ndarray, "G K"], scales=None
    ) -> Float[Array, "G B T D"]:
      """The features of some branches, all run as one batch, an example's branches together."""
      times = len(keep)
      rows = functools.partial(jnp.repeat, repeats=times, axis=0)
      features = model.apply(
        params,
        rows(tokens[:, around]),
        rows(context[:, around]),
        rows(conditions),
        jnp.tile(jnp.asarray(keep), (len(tokens), 1)),
        **({} if scales is None else {"scales": jnp.tile(scales, (len(tokens) * times, 1))}),
      )[:, wrap : wrap + frames]
      return jnp.moveaxis(features.reshape(-1, times, *features.shape[1:]), 1, 0)

    def steered(tokens: Int[Array, "B T Q"]) -> Float[Array, "B T D"]:
      return guidance.guide(hear(tokens, branches), weights)

    def straight(tokens: Int[Array, "B T Q"], scales=None) -> Float[Array, "B T D"]:
      return hear(tokens, np.ones((1, len(guided)), bool), scales)[0]

    def network(tokens: Int[Array, "B T Q"], level: Int[Array, ""]) -> Float[Array, "B T V"]:
      if mode == "joint" or steering.levels == 0:
        features = straight(tokens)
      elif mode == "distilled":
        scales = jnp.where(jnp.array(guided) & (level < steering.levels), steering.scales, -1.0)
        features = straight(tokens, scales[np.array(steering.inputs, int)])
      elif steering.levels < tokens.shape[2]:
        features = jax.lax.cond(level < steering.levels, steered, straight, tokens)
      else:
        features = steered(tokens)
      return model.read_level(params, features, level)

    tokens = decode(network, given, known, keys, options, n_codes)
    return sharding.split_rows(tokens, mesh)

  return jax.jit(generate, static_argnames="wrap")
