# SPDX-License-Identifier: Apache-2.0
"""Starting the token embeddings from the codec's own codebooks, so that like codes begin alike.

The sum over levels of a codec's codebook vectors is the latent that its decoder hears; embeddings
that begin as a rotation of it let the transformer start from sound instead of from arbitrary names.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from stemgen_jax.codec.architecture import CODEBOOK
from stemgen_jax.codec.bundle import load_bundle
from stemgen_jax.errors import UserError
from stemgen_jax.types import Array, Float, Key, Params

NOISE = 0.3  # share r of the plain random start, which tells near codes apart


def read_codebooks(path: Path, fingerprint: str) -> Float[np.ndarray, "Q V d"]:
  """Returns the codebooks of a codec bundle.

  Raises:
    UserError: if the bundle is not the one of that fingerprint.
  """
  bundle = load_bundle(path)
  if bundle.fingerprint != fingerprint:
    raise UserError(
      f"data.codec must be the codec that made the shards, {fingerprint[:12]}; got {path} with"
      f" fingerprint {bundle.fingerprint[:12]}. Give that bundle, or --config.data.codec=''."
    )
  return np.stack([bundle.weights[CODEBOOK.format(q)] for q in range(bundle.spec.n_levels)])


def start_from_codebooks(params: Params, codebooks: Float[Array, "Q V d"], key: Key) -> Params:
  """Returns the parameters with E_q[v] = sqrt(1 - r^2) P (c_qv - mean_v c_qv) / s + r E_q[v].

  P is a random matrix with orthonormal rows or columns, and s scales the sum over levels to unit
  variance, as the random start has it. The MASK row stays as it is.

  Source: ours; StemGen does not say how its embeddings begin.
  """
  width, dim = codebooks.shape[-1], params["codebooks"].shape[-1]
  centred = codebooks - jnp.mean(codebooks, axis=1, keepdims=True)
  scale = jnp.sqrt(jnp.sum(jnp.mean(jnp.square(centred), axis=(1, 2))))
  big, small = max(width, dim), min(width, dim)
  basis = jnp.linalg.qr(jax.random.normal(key, (big, small)))[0]
  basis = (basis.T if dim == big else basis) * (big / width) ** 0.5
  start = centred / scale @ basis
  random = params["codebooks"]
  mixed = (1 - NOISE**2) ** 0.5 * start + NOISE * random[:, :-1]
  return {**params, "codebooks": random.at[:, :-1].set(mixed)}
