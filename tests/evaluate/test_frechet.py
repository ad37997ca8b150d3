# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from scipy import linalg
from sklearn.metrics.pairwise import euclidean_distances, rbf_kernel

from stemgen_jax.errors import UserError
from stemgen_jax.evaluate.metrics.frechet import frechet_distance, frechet_infinity, kernel_distance


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


@pytest.mark.parametrize("n", [2, 30, 300])
def test_few_embeddings_of_many_dimensions_leave_no_rounding_errors(n):
  a = draw(0, n, d=200)
  assert frechet_distance(a, a) == pytest.approx(0, abs=1e-11)
  assert frechet_distance(a, a + 0.001) == pytest.approx(200 * 1e-6, abs=1e-11)
  few_1, few_2 = draw(1, 60), draw(2, 80, 0.5, 2.0)
  turn = np.linalg.qr(draw(3, 200))[0].T  # five dimensions, turned into two hundred
  assert frechet_distance(few_1 @ turn, few_2 @ turn) == pytest.approx(
    frechet_distance(few_1, few_2), rel=1e-12
  )


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


def test_the_kernel_distance_equals_the_equation_as_scikit_learn_computes_it():
  a, b = draw(0, 50, spread=3.0), draw(1, 40, 0.5)
  width = np.median(euclidean_distances(a)[np.triu_indices(50, 1)])
  aa, bb, ab = (rbf_kernel(x, y, gamma=0.5 / width**2) for x, y in ((a, a), (b, b), (a, b)))
  same = (aa.sum() - 50) / (50 * 49) + (bb.sum() - 40) / (40 * 39)
  assert kernel_distance(a, b) == pytest.approx(100 * (same - 2 * ab.mean()), rel=1e-9)


def test_too_few_embeddings_are_an_error():
  for distance, n, m in (
    (frechet_distance, 1, 9),
    (frechet_distance, 9, 1),
    (frechet_infinity, 9, 2),
    (kernel_distance, 1, 9),
    (kernel_distance, 9, 1),
  ):
    with pytest.raises(UserError, match=f"must have at least .* got {n} and {m}"):
      distance(draw(0, n), draw(1, m))
  with pytest.raises(UserError, match="reference embeddings must differ; got a median"):
    kernel_distance(np.ones((4, 2)), draw(0, 4, d=2))
