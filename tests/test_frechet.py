# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from scipy import linalg

from stemgen_jax.evaluation.frechet import frechet_distance, frechet_infinity, kernel_distance


def draw(seed, n, mean=0.0, spread=1.0, d=5):
  return mean + spread * np.random.default_rng(seed).standard_normal((n, d))


def test_equals_the_equation_as_scipy_computes_it():
  a, b = draw(0, 60) @ np.diag(range(1, 6)), draw(1, 80, 0.5, 2.0)
  mean = np.square(a.mean(0) - b.mean(0)).sum()
  cov_a, cov_b = np.cov(a.T), np.cov(b.T)
  want = mean + np.trace(cov_a + cov_b - 2 * linalg.sqrtm(cov_a @ cov_b).real)
  assert frechet_distance(a, b) == pytest.approx(want, rel=1e-6)
  assert frechet_distance(a, a) == pytest.approx(0, abs=1e-8)
  assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-6)


def test_of_known_gaussians_it_is_the_known_distance():
  a, b = draw(0, 200_000), draw(1, 200_000, 1.0, 2.0)
  assert frechet_distance(a, b) == pytest.approx(5 * (1 + 1), rel=0.02)


def test_the_extrapolation_takes_the_bias_away():
  a, b = draw(0, 20_000, d=20), draw(1, 120, d=20)
  biased, unbiased = frechet_distance(a, b), frechet_infinity(a, b)
  assert biased > 0.5  # of one and the same distribution
  assert abs(unbiased) < 0.35 * biased
  assert frechet_infinity(a, b) == unbiased


def test_the_kernel_distance_is_unbiased_and_grows_with_the_distance():
  same = [kernel_distance(draw(i, 50), draw(100 + i, 40)) for i in range(60)]
  assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(60)
  none, near, far = (kernel_distance(draw(0, 200), draw(1, 200, mean)) for mean in (0, 0.3, 1))
  assert none < near < far
