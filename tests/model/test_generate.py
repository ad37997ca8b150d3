# SPDX-License-Identifier: Apache-2.0
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

from stemgen_jax.config import MeshConfig
from stemgen_jax.model import guidance, sharding
from stemgen_jax.model.decode import DecodeOptions, options_of
from stemgen_jax.model.generate import GuidanceOptions, build_generate, steering_of, take_keys
from stemgen_jax.model.network import Model, build

B, T, Q, V = 2, 12, 4, 16


def options(**changes):
  numbers = {"w_c": 1.0, "w_s": 0.5, "w_r": 0.5, "temperature": 1.0, "top_p": 1.0}
  numbers |= {"fine_temperature": 1.0}
  return DecodeOptions(**({"steps": jnp.array([3, 2, 2, 1])} | numbers | changes))


def steering(scales, guided=(True, True), levels=Q, **changes):
  scales = jnp.array(scales, jnp.float32)
  return GuidanceOptions(scales=scales, guided=guided, levels=levels, **changes)


def copying_model(calls=None):
  """Knows that the target repeats the context, if it hears it; else it is sure of code 0."""

  def apply(params, target, context, conditions, keep, dropout_key=None):
    if calls is not None:
      jax.debug.callback(lambda k: calls.append(np.array(k)), keep, ordered=True)
    heard = jnp.where(keep[:, :1, None], context, 0)
    return 50.0 * jax.nn.one_hot(heard, V).reshape(*heard.shape[:2], Q * V)

  def read_level(params, features, level):
    return features.reshape(*features.shape[:2], Q, V)[:, :, level]

  return Model(dict, apply, read_level, *[None] * 2)


def music(batch=B):
  return jnp.asarray(np.random.default_rng(0).integers(1, V, (batch, T, Q)), jnp.int32)


def run(generate, params, context, turn=None, seed=0, conditions=None, mode="independent", **opts):
  batch = len(context)
  nothing = jnp.zeros(context.shape, bool)
  if conditions is None:
    conditions = jnp.zeros((batch, 1), jnp.int32)
  turn = steering([2.0, 1.0], mode=mode) if turn is None else turn
  keys = take_keys(seed, batch)
  return np.asarray(
    generate(params, context, conditions, context * 0, nothing, keys, options(**opts), turn)
  )


@pytest.mark.parametrize("mode", ["independent", "nested", "joint"])
def test_the_context_reaches_every_branch_that_keeps_it(mode):
  generate = build_generate(copying_model(), V)
  context = music()
  np.testing.assert_array_equal(run(generate, {}, context, mode=mode), context)
  if mode == "independent":
    deaf = run(generate, {}, context, steering([0.0, 1.0]))
    np.testing.assert_array_equal(deaf, np.zeros((B, T, Q)))


def test_an_examples_branches_are_its_own(tiny_config):
  """Guided logits by hand, one forward for each branch of each example."""
  config = tiny_config()
  model = build(config.model)
  params = model.init(jax.random.key(0))
  context, scales = music(), jnp.array([3.0, -1.0])
  conditions = jnp.array([[0], [2]])
  seen = {}

  def spy(features):
    seen["features"] = np.array(features)

  def read_level(params, features, level):
    jax.debug.callback(spy, features, ordered=True)
    return model.read_level(params, features, level)

  generate = build_generate(model._replace(read_level=read_level), V)
  nothing = jnp.zeros(context.shape, bool)
  one = DecodeOptions(
    steps=jnp.array([1, 0, 0, 0]),
    w_c=1.0,
    w_s=0.0,
    w_r=0.0,
    temperature=0.0,
    top_p=1.0,
    fine_temperature=0.0,
  )
  jax.block_until_ready(
    generate(
      params,
      context,
      conditions,
      context,
      nothing,
      take_keys(0, B),
      one,
      steering(scales, mode="nested"),
    )
  )
  jax.effects_barrier()
  hidden = jnp.full((1, T, Q), V)
  weights = guidance.branch_weights(scales, [True] * 2, "nested")
  for b in range(B):
    branches = [
      model.read_all(
        params,
        model.apply(
          params, hidden, context[b : b + 1], conditions[b : b + 1], jnp.asarray(keep)[None]
        ),
      )[0, :, 0]
      for keep in guidance.branches([True] * 2, "nested")
    ]
    want = sum(w * logits for w, logits in zip(weights, branches, strict=True))
    got = model.read_level(params, jnp.asarray(seen["features"][b : b + 1]), jnp.int32(0))[0]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_levels_that_are_not_guided_take_one_branch_that_hears_all():
  calls = []
  generate = build_generate(copying_model(calls), V)
  tokens = run(generate, {}, music(1), steering([2.0, 1.0], levels=1))
  jax.effects_barrier()
  np.testing.assert_array_equal(tokens, music(1))
  assert [len(keep) for keep in calls] == [3, 3, 3, 1, 1, 1, 1, 1]  # 3, 2, 2 and 1 iterations
  assert all(keep.all() for keep in calls[3:])


def test_a_source_that_is_not_guided_is_heard_by_every_branch():
  calls = []
  generate = build_generate(copying_model(calls), V)
  run(generate, {}, music(1), steering([2.0, 1.0], guided=(True, False)))
  jax.effects_barrier()
  for keep in calls:
    np.testing.assert_array_equal(keep, [[False, True], [True, True]])


@pytest.mark.parametrize("wrap", [0, 5])
def test_a_loop_is_shown_its_end_before_its_start(wrap):
  """The model is sure of the code that its context has three frames before: round, or not."""

  def apply(params, target, context, conditions, keep, dropout_key=None):
    before = jnp.pad(context, ((0, 0), (3, 0), (0, 0)))[:, :-3]
    return 50.0 * jax.nn.one_hot(before, V).reshape(*before.shape[:2], Q * V)

  generate = build_generate(copying_model()._replace(apply=apply), V)
  context, none = music(), jnp.zeros((B, T, Q), bool)
  got = generate(
    {},
    context,
    jnp.zeros((B, 1), jnp.int32),
    context * 0,
    none,
    take_keys(0, B),
    options(),
    steering([1.0, 1.0]),
    wrap=wrap,
  )
  want = np.roll(context, 3, axis=1)
  if not wrap:
    want[:, :3] = 0
  np.testing.assert_array_equal(got, want)


def test_a_loop_hears_what_is_written_beyond_its_seam():
  shown = []

  def apply(params, target, context, conditions, keep, dropout_key=None):
    jax.debug.callback(lambda t: shown.append(np.array(t)), target, ordered=True)
    return jnp.zeros((*target.shape[:2], Q * V))

  generate = build_generate(copying_model()._replace(apply=apply), V)
  context, none = music(1), jnp.zeros((1, T, Q), bool)
  generate(
    {},
    context,
    jnp.zeros((1, 1), jnp.int32),
    context * 0,
    none,
    take_keys(0, 1),
    options(),
    steering([1.0, 1.0], mode="joint"),
    wrap=4,
  )
  jax.effects_barrier()
  for tokens in shown:
    assert tokens.shape[1] == T + 8
    np.testing.assert_array_equal(tokens, tokens[:, 4 : 4 + T][:, np.arange(-4, T + 4) % T])


@pytest.mark.parametrize("devices", [2, 4, 8])
def test_takes_over_devices_are_those_of_one(tiny_config, devices):
  config = tiny_config()
  params = build(config.model).init(jax.random.key(0))
  context = jnp.repeat(music(1), 8, axis=0)
  one = run(build_generate(build(config.model), V), params, context)
  assert len({take.tobytes() for take in one}) == 8
  mesh = sharding.build_mesh(MeshConfig(), jax.devices()[:devices])
  generate = build_generate(build(config.model, mesh), V, mesh)
  split = jax.device_put(context, NamedSharding(mesh, sharding.BATCH))
  spread = run(generate, jax.device_put(params, sharding.tree_shardings(params, mesh)), split)
  np.testing.assert_array_equal(spread, one)


@pytest.mark.parametrize(
  "changes",
  [
    {"steps": jnp.array([1, 1, 1, 1])},
    {"steps": jnp.array([50, 1, 30, 2])},  # more than there are frames
    {"temperature": 0.0},
    {"top_p": 1e-6},
  ],
)
@pytest.mark.parametrize("frames", [1, 2, T])
@pytest.mark.parametrize("scale", [-2.0, 0.0, 1.0])
def test_limits(tiny_config, changes, frames, scale):
  model = build(tiny_config().model)
  params = model.init(jax.random.key(0))
  turn = steering([scale, 1.0])
  tokens = run(build_generate(model, V), params, music()[:, :frames], turn, **changes)
  assert tokens.shape == (B, frames, Q)
  assert ((tokens >= 0) & (tokens < V)).all()


def test_settings_become_options(tiny_config):
  config = tiny_config()
  settings = dataclasses.replace(config.sample, guidance={"instrument": 3.0}, guided_levels=1)
  turn = steering_of(settings, config.model)
  np.testing.assert_array_equal(turn.scales, [1.0, 3.0])
  assert (turn.guided, turn.levels, turn.mode) == ((False, True), 1, "independent")
  assert options_of(settings).steps.tolist() == [4, 3, 2, 2]
