# SPDX-License-Identifier: Apache-2.0
import jax.numpy as jnp
import numpy as np
import pytest

from stemgen_jax.guidance import branch_weights, branches, guide


def test_independent_is_the_sum_of_differences_from_the_null_branch():
  logits = np.random.default_rng(0).normal(size=(3, 2, 4, 5)).astype(np.float32)
  l0, l1, l2 = logits
  want = l0 + 3.0 * (l1 - l0) + 1.5 * (l2 - l0)
  got = guide(jnp.asarray(logits), branch_weights(jnp.array([3.0, 1.5]), "independent"))
  np.testing.assert_allclose(got, want, atol=1e-5)
  np.testing.assert_array_equal(branches(2, "independent"), [[0, 0], [1, 0], [0, 1]])


def test_nested_adds_each_source_to_those_before_it():
  logits = np.random.default_rng(0).normal(size=(3, 2, 4, 5)).astype(np.float32)
  l0, l1, l12 = logits
  want = l0 + 3.0 * (l1 - l0) + 1.5 * (l12 - l1)
  got = guide(jnp.asarray(logits), branch_weights(jnp.array([3.0, 1.5]), "nested"))
  np.testing.assert_allclose(got, want, atol=1e-5)
  np.testing.assert_array_equal(branches(2, "nested"), [[0, 0], [1, 0], [1, 1]])


@pytest.mark.parametrize("mode", ["independent", "nested", "joint"])
def test_weights_add_up_to_one(mode):
  weights = branch_weights(jnp.array([2.0, 0.3, 1.1]), mode)
  assert len(weights) == len(branches(3, mode))
  np.testing.assert_allclose(weights.sum(), 1.0, atol=1e-6)


def test_unknown_mode_is_refused():
  with pytest.raises(ValueError, match="mode must be"):
    branches(2, "both")
  with pytest.raises(ValueError, match="mode must be"):
    branch_weights(jnp.ones(2), "both")
