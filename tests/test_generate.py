# SPDX-License-Identifier: Apache-2.0
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stemgen_jax.decode import DecodeOptions
from stemgen_jax.generate import build_generate, generate_windows, plan_windows, take_keys
from stemgen_jax.model import Model, build

T, Q, V = 12, 4, 16


def options(**changes):
  numbers = {"w_conf": 1.0, "w_causal": 0.5, "w_noise": 0.5, "temperature": 1.0, "top_p": 1.0}
  return DecodeOptions(steps=jnp.array([3, 2, 2, 1]), **(numbers | changes))


def copying_model():
  """Knows that the target repeats the context, if it hears it; else it is sure of code 0."""

  def apply(params, target, context, conditions, keep, head, dropout_key=None):
    heard = jnp.where(keep[:, :1], jnp.take(context, head, axis=2), 0)
    return 50.0 * jax.nn.one_hot(heard, V)

  return Model(dict, apply)


@pytest.mark.parametrize("mode", ["independent", "nested", "joint"])
def test_the_context_reaches_every_branch_that_keeps_it(mode):
  context = np.random.default_rng(0).integers(1, V, (T, Q)).astype(np.int32)
  generate = build_generate(copying_model(), V, mode)

  def run(context_scale):
    scales = jnp.array([context_scale, 1.0])
    return generate_windows(
      generate, {}, context, np.zeros(1, np.int32), take_keys(0, 2), options(), scales, T
    )

  np.testing.assert_array_equal(run(2.0), np.broadcast_to(context, (2, T, Q)))
  if mode == "independent":
    np.testing.assert_array_equal(run(0.0), np.zeros((2, T, Q)))


@pytest.mark.parametrize("frames", [3, 12, 13, 40, 47])
def test_long_contexts_are_written_in_overlapping_windows(frames):
  context = np.random.default_rng(frames).integers(1, V, (frames, Q)).astype(np.int32)
  seen = []
  stems = generate_windows(
    build_generate(copying_model(), V, "joint"),
    {}, context, np.zeros(1, np.int32), take_keys(0, 1), options(), jnp.ones(2), T,
    lambda done, total: seen.append((done, total)),
  )  # fmt: skip
  np.testing.assert_array_equal(stems[0], context)
  assert seen[-1][0] == seen[-1][1] == len(seen) == len(plan_windows(frames, min(frames, T)))


def test_windows_cover_all_and_overlap():
  for frames in range(1, 60):
    size = min(frames, T)
    starts = plan_windows(frames, size)
    covered = {t for start in starts for t in range(start, start + size)}
    assert covered == set(range(frames))
    assert all(b - a <= max(1, size // 2) for a, b in itertools.pairwise(starts))


def test_a_later_window_keeps_what_is_written(tiny_config):
  model = build(tiny_config().model)
  params = model.init(jax.random.key(0))
  written = []
  generate = build_generate(model, V, "independent")

  def spy(*arguments):
    tokens = generate(*arguments)
    written.append((arguments[3], arguments[4], tokens))  # given, known, result
    return tokens

  context = np.random.default_rng(0).integers(0, V, (30, Q)).astype(np.int32)

  def run(takes):
    return generate_windows(
      spy, params, context, np.ones(1, np.int32), take_keys(3, takes), options(), jnp.ones(2), T
    )

  two = run(2)
  for given, known, tokens in written[1:]:
    assert known[:, :6].all()
    assert not known[:, 6:].all()
    np.testing.assert_array_equal(jnp.where(known, given, 0), jnp.where(known, tokens, 0))
  assert (two[0] != two[1]).any()
  np.testing.assert_array_equal(run(1)[0], two[0])  # a take does not depend on the others
  np.testing.assert_array_equal(run(2), two)  # nor on chance beyond the seed
