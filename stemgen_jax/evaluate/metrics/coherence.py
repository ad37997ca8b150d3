# SPDX-License-Identifier: Apache-2.0
"""How well stems fit their contexts, by embeddings: adherence of a set, coherence of each pair.

Which embedding and which distance is the caller's choice.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Float

from stemgen_jax.errors import UserError
from stemgen_jax.evaluate.metrics.frechet import frechet_distance

Distance = Callable[[Float[np.ndarray, "n D"], Float[np.ndarray, "m D"]], float]


def prompt_adherence(
  true: Float[np.ndarray, "n D"],
  mismatched: Float[np.ndarray, "m D"],
  candidates: Float[np.ndarray, "k D"],
  distance: Distance = frechet_distance,
) -> float:
  """APA = 1/2 + (d(C, R') - d(C, R)) / (2 d(R, R')), clipped to [0, 1].

  1 says that the candidates are as the true pairs, 0 that they are as pairs taken at random.
  Negative distances, as of an unbiased kernel distance, count as 0.

  Args:
    true: R, embeddings of contexts mixed with their own stems.
    mismatched: R', of contexts mixed with other songs' stems.
    candidates: C, of contexts mixed with the stems to be judged.
    distance: d, as `frechet_distance` (the source's) or `kernel_distance`.

  Raises:
    UserError: if d(R, R') is 0: the embedding does not tell a fit from a misfit.

  Source: Grachten and Nistal, arXiv:2503.06346, after Grachten, arXiv:2404.00775.
  """
  to_true, to_mismatched, apart = (
    max(0.0, distance(other, set_))
    for other, set_ in ((candidates, true), (candidates, mismatched), (true, mismatched))
  )
  if not apart:
    raise UserError(
      f"true and mismatched pairs must lie apart; got distance={apart} between {len(true)} and"
      f" {len(mismatched)} embeddings. Give more pairs, or another embedding."
    )
  return float(np.clip(0.5 + (to_mismatched - to_true) / (2 * apart), 0, 1))


def cocola_scores(
  stems: Float[np.ndarray, "n D"],
  contexts: Float[np.ndarray, "n D"],
  matrix: Float[np.ndarray, "E E"],
) -> Float[np.ndarray, " n"]:
  """COCOLA: h(x)^T W h(y) of each window of a stem x with the same window of its context y.

  The encoder h ends with its projection, layer normalisation and tanh.

  Raises:
    UserError: if W is not of the embeddings' width.

  Source: Ciranni et al., arXiv:2404.16969.
  """
  if len(matrix) != stems.shape[1]:
    raise UserError(
      f"COCOLA's matrix must be [{stems.shape[1]}, {stems.shape[1]}] for these embeddings; got"
      f" shape={matrix.shape}. Give the encoder and the matrix of one model."
    )
  return np.einsum("nd,de,ne->n", stems, matrix, contexts)


def load_matrix(path: Path) -> Float[np.ndarray, "D D"]:
  """Returns COCOLA's W, from a .npy file or the one tensor of a .safetensors file.

  Raises:
    UserError: if the file is missing, of another kind, or holds anything but a square matrix.
  """
  try:
    if path.suffix == ".npy":
      found = [np.load(path)]
    else:
      found = list(safetensors.numpy.load_file(path).values())
  except (safetensors.SafetensorError, ValueError, EOFError, OSError) as error:
    raise UserError(
      f"COCOLA's matrix must be a .npy or .safetensors file; got path={path} ({error})."
      " Save the model's bilinear weight as one."
    ) from error
  shapes = [array.shape for array in found]
  if len(found) != 1 or found[0].ndim != 2 or shapes[0][0] != shapes[0][1]:
    raise UserError(
      f"COCOLA's matrix must be one square matrix; got shapes={shapes} in {path}."
      " Save the model's bilinear weight alone."
    )
  return found[0].astype(np.float32)
