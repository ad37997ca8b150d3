# SPDX-License-Identifier: Apache-2.0
"""musicnn in JAX: a network that tags music (MagnaTagATune), for its last hidden layer.

The weights are those in the `musicnn` distribution, read from its files: the package itself, which
needs TensorFlow, is never imported.
"""

import functools
import hashlib
import importlib.metadata
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import librosa
import numpy as np
from jaxtyping import Array, Float

from stemgen_jax.errors import UserError
from stemgen_jax.evaluate.metrics.tensor_bundle import read_tensors
from stemgen_jax.types import Params

RATE_HZ, FFT, HOP, MELS = 16_000, 512, 256, 96
WINDOW_FRAMES = 187  # 3 s, the length that it was trained on
EPSILON = 1e-3  # of batch normalisation: TensorFlow's default
MODEL = "MTT_musicnn"
DIGESTS = {
  ".index": "da2d7bb670b2b31e9bc441bb1bd75eca31b5b061f963cc1f9630c1aff3238f57",
  ".data-00000-of-00001": "041f3935e981a65cea739842d30c188d3a7d2adf4410955c8668eb3de4a5acab",
}


def load_musicnn(source: Path | None = None) -> Params:
  """Returns the weights by their names in the checkpoint.

  Args:
    source: a musicnn 0.1.0 wheel, or a folder that holds it unpacked; None for the installed one.

  Raises:
    UserError: if there are none, or others than those of musicnn 0.1.0.
  """
  folder = _find(source)
  files = []
  for name, digest in DIGESTS.items():
    content = (folder / name).read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
      raise UserError(
        f"musicnn's weights must be those of version 0.1.0; got {folder / name} with"
        f" sha256={found}, not {digest}. Install musicnn==0.1.0 (with --no-deps) again."
      )
    files.append(content)
  tensors = read_tensors(*files)
  return {name: tensor for name, tensor in tensors.items() if "Adam" not in name}


def _find(source: Path | None) -> Path | zipfile.Path:
  """Returns the folder of the model's files, which may lie inside a wheel."""
  if source is None:
    try:
      root = Path(str(importlib.metadata.distribution("musicnn").locate_file("")))
    except importlib.metadata.PackageNotFoundError as error:
      raise UserError(
        "musicnn must be installed for its weights; got no such distribution."
        " Run `pip install --no-deps musicnn==0.1.0`, or give musicnn=WHEEL."
      ) from error
  else:
    root = zipfile.Path(source) if zipfile.is_zipfile(source) else source
  for folder in (root / "musicnn" / MODEL, root / MODEL, root):
    if all((folder / name).is_file() for name in DIGESTS):
      return folder
  raise UserError(
    f"musicnn must be a musicnn 0.1.0 wheel, or a folder that holds {MODEL}; got {source or root}."
    " Give musicnn=PATH of one."
  )


def cut_musicnn(samples: Float[np.ndarray, " samples"]) -> Float[np.ndarray, "n frames mels"]:
  """Returns the log-mel spectrogram of audio at RATE_HZ in windows of WINDOW_FRAMES, the rest off.

  log10(10000 x + 1) of the power x in 96 mel bands, in float32: musicnn rounds both to float16,
  in which loud bands overflow.
  """
  power = librosa.feature.melspectrogram(
    y=samples, sr=RATE_HZ, n_fft=FFT, hop_length=HOP, n_mels=MELS, pad_mode="reflect"
  )  # as librosa padded when musicnn was trained; today's default is zeros
  frames = np.log10(10_000 * power.T + 1)
  count = len(frames) // WINDOW_FRAMES
  return frames[: count * WINDOW_FRAMES].reshape(count, WINDOW_FRAMES, MELS).astype(np.float32)


@jax.jit
def apply_musicnn(params: Params, windows: Float[Array, "B frames mels"]) -> Float[Array, "B D"]:
  """Returns the penultimate layer (D = 200), whose linear read-out gives the tags' logits.

  Source: Pons and Serra, "musicnn" (arXiv:1909.06654): filters as high as a timbre or as long as
  a rhythm, three convolutions over time with residuals, the maximum and mean over time.
  """
  norm = functools.partial(_normalize, params)
  x = norm(0, windows[..., None])
  spectral = jnp.pad(x, ((0, 0), (3, 3), (0, 0), (0, 0)))
  parts = [
    norm(i + 1, _convolve(params, i, spectral if i < 2 else x, "VALID" if i < 2 else "SAME"))
    for i in range(5)  # two shapes of timbre, then three lengths of time
  ]
  front = jnp.concatenate([part.max(axis=2) for part in parts], axis=-1)  # over the bands
  layers, x = [front], front
  for i in (5, 6, 7):
    padded = jnp.pad(x, ((0, 0), (3, 3), (0, 0)))[..., None]
    new = norm(i + 1, _convolve(params, i, padded, "VALID")[:, :, 0])
    x = new if i == 5 else new + x
    layers.append(x)
  x = jnp.concatenate(layers, axis=-1)
  x = jnp.stack([x.max(axis=1), x.mean(axis=1)], axis=-1).reshape(len(x), -1)
  x = norm(9, x) @ params["dense/kernel"]
  return norm(10, jax.nn.relu(x + _along(x, params["dense/bias"])))


def _convolve(
  params: Params, number: int, x: Float[Array, "B frames height depth"], padding: str
) -> Float[Array, "B times heights filters"]:
  """Returns a convolution and its rectifier."""
  name = f"conv2d_{number}" if number else "conv2d"
  x = jax.lax.conv_general_dilated(
    x, params[f"{name}/kernel"], (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
  )
  return jax.nn.relu(x + _along(x, params[f"{name}/bias"]))


def _normalize(params: Params, number: int, x: Float[Array, "..."]) -> Float[Array, "..."]:
  """Returns batch normalisation by the means and variances of training."""
  name = f"batch_normalization_{number}" if number else "batch_normalization"
  scale = params[f"{name}/gamma"] / jnp.sqrt(params[f"{name}/moving_variance"] + EPSILON)
  shift = params[f"{name}/beta"] - params[f"{name}/moving_mean"] * scale
  return x * _along(x, scale) + _along(x, shift)


def _along(x: Float[Array, "..."], vector: Float[Array | np.ndarray, " D"]) -> Float[Array, "..."]:
  """Returns a vector as an array that broadcasts along the last axis of `x`."""
  return jnp.reshape(vector, (1,) * (x.ndim - 1) + (-1,))
