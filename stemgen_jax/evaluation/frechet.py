# SPDX-License-Identifier: Apache-2.0
"""How far apart two sets of embeddings lie: the Fréchet audio distance, and the kernel one."""

import numpy as np
from jaxtyping import Float
from scipy.spatial import distance

KAD_SCALE = 1000.0  # as its authors give it
POINTS = 15  # sizes at which the biased distance is measured, to be extrapolated from


def frechet_distance(reference: Float[np.ndarray, "n D"], other: Float[np.ndarray, "m D"]) -> float:
  """FAD = |mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2)), of Gaussians fitted to both sets.

  Biased upwards for few embeddings. Source: Kilgour et al., arXiv:1812.08466.
  """
  (mean_1, cov_1), (mean_2, cov_2) = (
    (x.mean(axis=0), np.atleast_2d(np.cov(x, rowvar=False)))
    for x in (reference.astype(np.float64), other.astype(np.float64))
  )
  values, vectors = np.linalg.eigh(cov_1)
  root = vectors * np.sqrt(np.clip(values, 0, None)) @ vectors.T
  cross = np.linalg.eigvalsh(root @ cov_2 @ root)
  overlap = np.sqrt(np.clip(cross, 0, None)).sum()
  return float(np.square(mean_1 - mean_2).sum() + np.trace(cov_1 + cov_2) - 2 * overlap)


def frechet_infinity(
  reference: Float[np.ndarray, "n D"], other: Float[np.ndarray, "m D"], seed: int = 0
) -> float:
  """FAD without the bias of few embeddings: a line through FAD over 1/m, at 1/m = 0.

  FAD is measured on random subsets of `other` of POINTS sizes, from a fifth of it to all.

  Source: Gui et al., arXiv:2311.01616.
  """
  rng, m = np.random.default_rng(seed), len(other)
  sizes = np.unique(np.linspace(max(2, m // 5), m, POINTS).astype(int))
  found = [frechet_distance(reference, other[rng.permutation(m)[:size]]) for size in sizes]
  slope_and_start = np.polynomial.polynomial.polyfit(1 / sizes, found, 1)
  return float(slope_and_start[0])


def kernel_distance(reference: Float[np.ndarray, "n D"], other: Float[np.ndarray, "m D"]) -> float:
  """KAD: the unbiased squared maximum mean discrepancy, times KAD_SCALE.

  The kernel is Gaussian, exp(-|x - y|^2 / (2 s^2)), s the median distance within the reference.

  Source: Chung et al., arXiv:2502.15602.
  """
  within = distance.pdist(reference)
  width = 2 * np.median(within) ** 2

  def kernel(squares):
    return np.exp(-squares / width)

  same = kernel(np.square(within)).mean() + kernel(distance.pdist(other, "sqeuclidean")).mean()
  cross = kernel(distance.cdist(reference, other, "sqeuclidean")).mean()
  return float(KAD_SCALE * (same - 2 * cross))
