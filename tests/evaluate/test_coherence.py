# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import safetensors.numpy

from stemgen_jax.errors import UserError
from stemgen_jax.evaluate.metrics.coherence import cocola_scores, load_matrix, prompt_adherence
from stemgen_jax.evaluate.metrics.frechet import frechet_distance, kernel_distance


def draw(seed, n=200, mean=0.0, d=4):
  return mean + np.random.default_rng(seed).standard_normal((n, d))


@pytest.mark.parametrize(
  ("to_true", "to_mismatched", "apart", "want"),
  [
    (0, 8, 8, 1.0),
    (8, 0, 8, 0.0),
    (3, 3, 8, 0.5),
    (1, 5, 8, 0.75),
    (6, 4, 8, 0.375),
    (1, 12, 8, 1.0),
    (12, 1, 8, 0.0),
    (-2, 4, 8, 0.75),
    (4, -2, 8, 0.25),
  ],
)
def test_adherence_is_its_equation(to_true, to_mismatched, apart, want):
  sets = {"R": np.full((2, 1), 1.0), "R'": np.full((2, 1), 2.0), "C": np.full((2, 1), 3.0)}
  table = {(1.0, 3.0): to_true, (2.0, 3.0): to_mismatched, (1.0, 2.0): apart}

  def distance(a, b):
    return float(table[tuple(sorted((a[0, 0], b[0, 0])))])

  assert prompt_adherence(sets["R"], sets["R'"], sets["C"], distance) == want


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_adherence_grows_as_candidates_come_near_true_pairs(distance):
  true, mismatched = draw(0), draw(1, mean=1.0)
  found = [
    prompt_adherence(true, mismatched, draw(2, mean=mean), distance) for mean in (0, 0.3, 0.7, 1)
  ]
  assert found == sorted(found, reverse=True)
  assert found[0] > 0.9
  assert found[-1] < 0.1
  assert prompt_adherence(true, mismatched, true, distance) == pytest.approx(1, abs=1e-3)
  assert prompt_adherence(true, mismatched, mismatched, distance) == pytest.approx(0, abs=1e-3)


def test_pairs_that_no_embedding_tells_apart_are_an_error():
  true = draw(0)
  with pytest.raises(UserError, match=r"must lie apart; got distance=0\.0 between 200 and 200"):
    prompt_adherence(true, true + 1e-9, draw(2), kernel_distance)


def test_coherence_is_bilinear():
  stems, contexts, matrix = draw(0, 3), draw(1, 3), draw(2, 4)
  found = cocola_scores(stems, contexts, matrix)
  for score, x, y in zip(found, stems, contexts, strict=True):
    want = sum(x[i] * matrix[i, j] * y[j] for i in range(4) for j in range(4))
    assert score == pytest.approx(want)
  np.testing.assert_allclose(found, cocola_scores(contexts, stems, matrix.T))
  with pytest.raises(UserError, match=r"must be \[4, 4\] for these embeddings; got shape=\(3, 3\)"):
    cocola_scores(stems, contexts, draw(2, 3, d=3))


def test_the_matrix_is_read_and_checked(tmp_path):
  matrix = draw(0, 4).astype(np.float32)
  np.save(tmp_path / "w.npy", matrix)
  safetensors.numpy.save_file({"similarity.w": matrix}, tmp_path / "w.safetensors")
  for name in ("w.npy", "w.safetensors"):
    np.testing.assert_array_equal(load_matrix(tmp_path / name), matrix)

  np.save(tmp_path / "wide.npy", matrix[:2])
  np.save(tmp_path / "flat.npy", matrix[0])
  safetensors.numpy.save_file({"a": matrix, "b": matrix}, tmp_path / "two.safetensors")
  (tmp_path / "empty.npy").touch()
  (tmp_path / "text.safetensors").write_text("no matrix")
  for name, message in (
    ("none.npy", "must be a .npy or .safetensors file; got path=.*none.npy"),
    ("empty.npy", "must be a .npy or .safetensors file"),
    ("text.safetensors", "must be a .npy or .safetensors file"),
    ("wide.npy", r"one square matrix; got shapes=\[\(2, 4\)\]"),
    ("flat.npy", r"one square matrix; got shapes=\[\(4,\)\]"),
    ("two.safetensors", r"one square matrix; got shapes=\[\(4, 4\), \(4, 4\)\]"),
  ):
    with pytest.raises(UserError, match=message):
      load_matrix(tmp_path / name)
