# SPDX-License-Identifier: Apache-2.0
"""VGGish in JAX: the embedding that the Fréchet audio distance began with, of weights given.

The file holds torchvggish's state dict, as safetensors or npz; nothing is downloaded.
"""

import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Array, Float

from stemgen_jax.errors import UserError
from stemgen_jax.types import Params

RATE_HZ, FRAME, HOP, FFT, BANDS = 16_000, 400, 160, 512, 64
LOW_HZ, HIGH_HZ = 125.0, 7500.0
WINDOW_FRAMES = 96  # 0.96 s
OFFSET = 0.01  # of the logarithm
CONVOLUTIONS = {
  0: (1, 64),
  3: (64, 128),
  6: (128, 256),
  8: (256, 256),
  11: (256, 512),
  13: (512, 512),
}
POOLED = (0, 3, 8, 13)  # the convolutions before a pooling by 2
DENSE = {0: (512 * 6 * 4, 4096), 2: (4096, 4096), 4: (4096, 128)}
SHAPES = {
  **{f"features.{i}.weight": (wide, deep, 3, 3) for i, (deep, wide) in CONVOLUTIONS.items()},
  **{f"features.{i}.bias": (wide,) for i, (_, wide) in CONVOLUTIONS.items()},
  **{f"embeddings.{i}.weight": (wide, deep) for i, (deep, wide) in DENSE.items()},
  **{f"embeddings.{i}.bias": (wide,) for i, (_, wide) in DENSE.items()},
}


def load_vggish(path: Path) -> Params:
  """Returns the weights by their names in torchvggish.

  Raises:
    UserError: if the file is missing, of another kind, or lacks a weight of its shape.
  """
  if not path.is_file():
    raise UserError(f"vggish's weights must exist; got path={path}. Check the path.")
  try:
    if path.suffix == ".npz":
      with path.open("rb") as opened, np.load(opened) as file:  # np.load leaves a cut file open
        found = {name: file[name] for name in file.files if name in SHAPES}
    else:
      found = safetensors.numpy.load_file(path)
  except (safetensors.SafetensorError, zipfile.BadZipFile, ValueError, EOFError) as error:
    raise UserError(
      f"vggish's weights must be a .safetensors or .npz file; got path={path} ({error})."
      " Save torchvggish's state dict as one."
    ) from error
  for name, shape in SHAPES.items():
    got = found[name].shape if name in found else "none"
    if got != shape:
      raise UserError(
        f"vggish's weights must hold {name} of shape {shape}; got {got} in {path}."
        " Save torchvggish's state dict with its own names."
      )
  return {name: found[name].astype(np.float32) for name in SHAPES}


def cut_vggish(samples: Float[np.ndarray, " samples"]) -> Float[np.ndarray, "n frames bands"]:
  """Returns the log-mel spectrogram of audio at RATE_HZ in windows of WINDOW_FRAMES, the rest off.

  log(x + 0.01) of the magnitude x in 64 bands, of 25 ms under a periodic Hann window every 10 ms.
  """
  pieces = np.lib.stride_tricks.sliding_window_view(samples, FRAME)[::HOP]
  hann = 0.5 - 0.5 * np.cos(2 * np.pi / FRAME * np.arange(FRAME))
  frames = np.log(np.abs(np.fft.rfft(pieces * hann, FFT)) @ build_bands() + OFFSET)
  count = len(frames) // WINDOW_FRAMES
  return frames[: count * WINDOW_FRAMES].reshape(count, WINDOW_FRAMES, BANDS).astype(np.float32)


def build_bands() -> Float[np.ndarray, "bins bands"]:
  """Returns triangles that overlap by half, straight in mel (1127 ln(1 + f / 700)), each 1 high."""

  def mel(hz):
    return 1127 * np.log1p(hz / 700)

  bins = mel(np.linspace(0, RATE_HZ / 2, FFT // 2 + 1))[:, None]
  edges = np.linspace(mel(LOW_HZ), mel(HIGH_HZ), BANDS + 2)
  low, peak, high = edges[:-2], edges[1:-1], edges[2:]
  return np.clip(np.minimum((bins - low) / (peak - low), (high - bins) / (high - peak)), 0, None)


@jax.jit
def apply_vggish(params: Params, windows: Float[Array, "B frames bands"]) -> Float[Array, "B D"]:
  """Returns the embeddings (D = 128) before a last rectifier, as distances take them.

  Source: Hershey et al., arXiv:1609.09430; Kilgour et al., arXiv:1812.08466. Neither the PCA nor
  the 8-bit rounding of the AudioSet release is applied.
  """
  x = windows[..., None]
  for i in CONVOLUTIONS:
    x = jax.lax.conv_general_dilated(
      x,
      params[f"features.{i}.weight"],
      (1, 1),
      "SAME",
      dimension_numbers=("NHWC", "OIHW", "NHWC"),
    )
    x = jax.nn.relu(x + params[f"features.{i}.bias"].reshape(1, 1, 1, -1))
    if i in POOLED:
      x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
  x = x.reshape(len(x), -1)
  for i in DENSE:
    weight, bias = params[f"embeddings.{i}.weight"], params[f"embeddings.{i}.bias"]
    x = jax.nn.relu(x) @ weight.T + bias.reshape(1, -1)
  return x
