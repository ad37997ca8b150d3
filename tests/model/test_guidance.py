# SPDX-License-Identifier: Apache-2.0
import jax.numpy as jnp
import numpy as np
import pytest

from stemgen_jax.config import GUIDANCE_MODES
from stemgen_jax.model.guidance import branch_weights, branches, guide

BOTH = (True, True)


def branch_logits():
  return np.random.default_rng(0).normal(size=(3, 2, 4, 5)).astype(np.float32)


def test_independent_is_the_sum_of_differences_from_the_null_branch():
  logits = branch_logits()
  l0, l1, l2 = logits
  want = l0 + 3.0 * (l1 - l0) + 1.5 * (l2 - l0)
  got = guide(jnp.asarray(logits), branch_weights(jnp.array([3.0, 1.5]), BOTH, "independent"))
  np.testing.assert_allclose(got, want, atol=1e-5)
  np.testing.assert_array_equal(branches(BOTH, "independent"), [[0, 0], [1, 0], [0, 1]])


def test_nested_adds_the_instrument_and_then_what_the_context_adds_to_it():
  logits = branch_logits()
  l0, l_instrument, l_both = logits
  context, instrument = 3.0, 1.5
  want = l0 + instrument * (l_instrument - l0) + context * (l_both - l_instrument)
  weights = branch_weights(jnp.array([context, instrument]), BOTH, "nested")
  np.testing.assert_allclose(guide(jnp.asarray(logits), weights), want, atol=1e-5)
  np.testing.assert_array_equal(branches(BOTH, "nested"), [[0, 0], [0, 1], [1, 1]])


def test_leave_one_out_adds_what_each_source_adds_to_the_others():
  logits = branch_logits()
  full, no_context, no_instrument = logits
  want = full + 2.0 * (full - no_context) + 0.5 * (full - no_instrument)
  weights = branch_weights(jnp.array([2.0, 0.5]), BOTH, "leave_one_out")
  np.testing.assert_allclose(guide(jnp.asarray(logits), weights), want, atol=1e-5)
  np.testing.assert_array_equal(branches(BOTH, "leave_one_out"), [[1, 1], [0, 1], [1, 0]])


@pytest.mark.parametrize("mode", GUIDANCE_MODES)
@pytest.mark.parametrize("guided", [(True, True, True), (True, True, False), (False,) * 3])
def test_weights_add_up_to_one_and_the_unguided_are_heard(mode, guided):
  weights = branch_weights(jnp.array([2.0, 0.3, 1.1]), guided, mode)
  kept = branches(guided, mode)
  assert len(weights) == len(kept)
  np.testing.assert_allclose(weights.sum(), 1.0, atol=1e-6)
  assert kept[:, ~np.array(guided)].all()


def test_unknown_mode_is_refused():
  with pytest.raises(ValueError, match="mode must be"):
    branches(BOTH, "both")
  with pytest.raises(ValueError, match="mode must be"):
    branch_weights(jnp.ones(2), BOTH, "both")
