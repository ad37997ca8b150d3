# SPDX-License-Identifier: Apache-2.0
"""How far apart two sets of embeddings lie: the Fréchet audio distance, and the kernel one."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import distance

from stemgen_jax.errors import UserError

KAD_SCALE = 100.0  # as in its authors' toolkit
POINTS = 15  # sizes at which the biased distance is measured, to be extrapolated from

Gaussian = tuple[Float[np.ndarray, " D"], Float[np.ndarray, "_rank D"]]  # a mean, and a root


def frechet_distance(reference: Float[np.ndarray, "n D"], other: Float[np.ndarray, "m D"]) -> float:
  """FAD = |mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2)), of Gaussians fitted to both sets.

  Biased upwards for few embeddings. With S_i = R_i^T R_i, the last trace is the sum of the singular
  values of R_1 R_2^T: no root of rounding errors where a set has fewer embeddings than dimensions.

  Raises:
    UserError: if a set has fewer than two embeddings.

  Source: Kilgour et al., arXiv:1812.08466.
  """
  _check_counts(reference, other, least=2)
  return gaussian_distance(fit_gaussian(reference), fit_gaussian(other))


def gaussian_distance(one: Gaussian, two: Gaussian) -> float:
  """Returns FAD of two sets that `fit_gaussian` has seen, for many sets beside one reference."""
  (mean_1, root_1), (mean_2, root_2) = one, two
  overlap = np.linalg.svd(root_1 @ root_2.T, compute_uv=False).sum()
  spread = np.square(root_1).sum() + np.square(root_2).sum()
  return float(np.square(mean_1 - mean_2).sum() + spread - 2 * overlap)


def fit_gaussian(embeddings: Float[np.ndarray, "n D"]) -> Gaussian:
  """Returns the mean, and a root R of the unbiased covariance R^T R."""
  embeddings = embeddings.astype(np.float64)
  mean = embeddings.mean(axis=0)
  scaled = (embeddings - mean) / np.sqrt(len(embeddings) - 1)
  return mean, np.asarray(np.linalg.qr(scaled, mode="r"))


def frechet_infinity(
  reference: Float[np.ndarray, "n D"], other: Float[np.ndarray, "m D"], seed: int = 0
) -> float:
  """FAD without the bias of few embeddings: a line through FAD over 1/m, at 1/m = 0.

  FAD is measured on random subsets of `other` of POINTS sizes, from a fifth of it to all. The line
  is one where the smallest subset has more embeddings than dimensions.

  Raises:
    UserError: if a set has too few embeddings: fewer than two, or three of `other`.

  Source: Gui et al., arXiv:2311.01616.
  """
  _check_counts(reference, other, least=3)
  rng, m, far = np.random.default_rng(seed), len(other), fit_gaussian(reference)
  sizes = np.unique(np.linspace(max(2, m // 5), m, POINTS).astype(int))
  found = [gaussian_distance(far, fit_gaussian(other[rng.permutation(m)[:size]])) for size in sizes]
  slope_and_start = np.polynomial.polynomial.polyfit(1 / sizes, found, 1)
  return float(slope_and_start[0])


def kernel_distance(reference: Float[np.ndarray, "n D"], other: Float[np.ndarray, "m D"]) -> float:
  """KAD: the unbiased squared maximum mean discrepancy, times KAD_SCALE.

  The kernel is Gaussian, exp(-|x - y|^2 / (2 s^2)), s the median distance within the reference.

  Raises:
    UserError: if a set has fewer than two embeddings, or half of the reference is one point.

  Source: Chung et al., arXiv:2502.15602.
  """
  return build_kernel_distance(reference, other)(np.ones(len(other), int))


def build_kernel_distance(
  reference: Float[np.ndarray, "n D"], other: Float[np.ndarray, "m D"]
) -> Callable[[Int[np.ndarray, " m"]], float]:
  """Returns KAD as a function of how often each of `other` counts, for many resamples of a set."""
  _check_counts(reference, other, least=2)
  within = distance.pdist(reference)
  width = 2 * np.median(within) ** 2
  if not width:
    raise UserError(
      f"reference embeddings must differ; got a median distance of 0 among {len(reference)}."
      " Give other reference music."
    )

  def kernel(squares):
    return np.exp(-squares / width)

  far = kernel(np.square(within)).mean()
  own = kernel(distance.cdist(other, other, "sqeuclidean"))
  cross = kernel(distance.cdist(reference, other, "sqeuclidean")).mean(axis=0)

  def measure(counts: Int[np.ndarray, " m"]) -> float:
    total = counts.sum()
    near = (counts @ own @ counts - total) / (total * (total - 1))  # no embedding with itself
    return float(KAD_SCALE * (far + near - 2 * counts @ cross / total))

  return measure


def _check_counts(
  reference: Float[np.ndarray, "n D"], other: Float[np.ndarray, "m D"], least: int
) -> None:
  if len(reference) < 2 or len(other) < least:
    raise UserError(
      f"a distance between sets must have at least 2 and {least} embeddings; got"
      f" {len(reference)} and {len(other)}. Give more or longer music."
    )
