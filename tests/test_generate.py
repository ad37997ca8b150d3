# SPDX-License-Identifier: Apache-2.0
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

from stemgen_jax import guidance, sharding
from stemgen_jax.config import MeshConfig
from stemgen_jax.decode import DecodeOptions, options_of
from stemgen_jax.generate import GuidanceOptions, build_generate, steering_of, take_keys
from stemgen_jax.model import Model, build

B, T, Q, V = 2, 12, 4, 16


def options(**changes):
  numbers = {"w_conf": 1.0, "w_causal": 0.5, "w_noise": 0.5, "temperature": 1.0, "top_p": 1.0}
  return DecodeOptions(**({"steps": jnp.array([3, 2, 2, 1])} | numbers | changes))


def steering(scales, **changes):
  return GuidanceOptions(scales=jnp.array(scales, jnp.float32), **changes)


def copying_model(calls=None):
  """Knows that the target repeats the context, if it hears it; else it is sure of code 0."""

  def apply(params, target, context, conditions, keep, head, dropout_key=None):
    if calls is not None:
      jax.debug.callback(lambda k: calls.append(np.array(k)), keep, ordered=True)
    heard = jnp.where(keep[:, :1, None], context, 0)
    return 50.0 * jax.nn.one_hot(heard, V).reshape(*heard.shape[:2], Q * V)

  def project(params, features, level):
    return features.reshape(*features.shape[:2], Q, V)[:, :, level]

  return Model(dict, apply, project)


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

  def project(params, features, level):
    jax.debug.callback(spy, features, ordered=True)
    return model.project(params, features, level)

  generate = build_generate(Model(model.init, model.apply, project), V)
  nothing = jnp.zeros(context.shape, bool)
  one = DecodeOptions(
    steps=jnp.array([1, 0, 0, 0]), w_conf=1.0, w_causal=0.0, w_noise=0.0, temperature=0.0, top_p=1.0
  )
  jax.block_until_ready(
    generate(
      params, context, conditions, context, nothing, take_keys(0, B), one,
      steering(scales, mode="nested"),
    )
  )  # fmt: skip
  jax.effects_barrier()
  hidden = jnp.full((1, T, Q), V)
  weights = guidance.branch_weights(scales, "nested")
  for b in range(B):
    branches = [
      model.apply(
        params, hidden, context[b : b + 1], conditions[b : b + 1], jnp.asarray(keep)[None], "all"
      )[0, :, 0]
      for keep in guidance.branches(2, "nested")
    ]
    want = sum(w * logits for w, logits in zip(weights, branches))
    got = model.project(params, jnp.asarray(seen["features"][b : b + 1]), jnp.int32(0))[0]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_outside_of_the_window_one_branch_hears_all():
  calls = []
  generate = build_generate(copying_model(calls), V)
  turn = steering([2.0, 1.0], start=0.5, stop=1.0, windowed=True)
  tokens = run(generate, {}, music(1), turn)
  jax.effects_barrier()
  np.testing.assert_array_equal(tokens, music(1))
  # Levels of 3, 2, 2 and 1 iterations: their shares done are 0 1/3 2/3, 0 1/2, 0 1/2, 0.
  assert [len(keep) for keep in calls] == [1, 1, 3, 1, 3, 1, 3, 1]
  assert calls[0].all()


def test_the_unconditional_branch_is_reused_within_a_level():
  calls = []
  generate = build_generate(copying_model(calls), V)
  tokens = run(generate, {}, music(1), steering([2.0, 1.0], refresh=2, cached=True))
  jax.effects_barrier()
  np.testing.assert_array_equal(tokens, music(1))
  assert [len(keep) for keep in calls] == [3, 2, 3, 3, 2, 3, 2, 3]
  assert not calls[0][0].any()
  assert calls[1].any(axis=1).all()


def test_a_branch_that_is_always_fresh_changes_nothing(tiny_config):
  model = build(tiny_config().model)
  params = model.init(jax.random.key(0))
  generate = build_generate(model, V)
  plain = run(generate, params, music())
  for same in (
    steering([2.0, 1.0], refresh=1, cached=True),
    steering([2.0, 1.0], windowed=True),
    steering([2.0, 1.0], windowed=True, refresh=1, cached=True),
  ):
    np.testing.assert_array_equal(run(generate, params, music(), same), plain)


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
  settings = dataclasses.replace(
    config.sample, guidance={"instrument": 3.0}, guidance_stop=0.5, guidance_refresh=4
  )
  turn = steering_of(settings, config.model)
  np.testing.assert_array_equal(turn.scales, [1.0, 3.0])
  assert (turn.windowed, turn.cached, turn.mode) == (True, True, "independent")
  assert options_of(settings).steps.tolist() == [4, 3, 2, 2]
