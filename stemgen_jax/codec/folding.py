# SPDX-License-Identifier: Apache-2.0
"""A bundle's tensors as the parameters that `seanet` runs, with weight norm multiplied out."""

import numpy as np
from jaxtyping import Float

from stemgen_jax.codec.architecture import GROUP_NORM, CodecSpec, layers

Weights = dict[str, np.ndarray]


def fold_side(side: str, weights: Weights, spec: CodecSpec) -> list[dict]:
  """Returns the parameters of each layer of `encoder` or `decoder`, weight norm multiplied out.

  Kernels are [time, in, out]; an up-sampling layer's, [2, in, stride * out], its two
  halves, the later one first. `scale` and `shift` are a group norm's.
  """
  params = []
  for index, kind, _ in layers(side, spec):
    at = f"{side}.model.{index}"
    if kind in ("conv", "down"):
      params.append(_fold_convolution(weights, f"{at}.conv", spec))
    elif kind == "up":
      layer, kernel = _fold_kernel(weights, f"{at}.convtr", "convtr", spec)  # [in, out, 2 * stride]
      halves = kernel.reshape(*kernel.shape[:2], 2, -1).transpose(2, 0, 3, 1)[::-1]
      params.append({"kernel": halves.reshape(2, len(kernel), -1), **layer})
    elif kind == "residual":
      names = {"wide": "block.1", "point": "block.3"}
      if not spec.true_skip:
        names["shortcut"] = "shortcut"
      params.append(
        {key: _fold_convolution(weights, f"{at}.{name}.conv", spec) for key, name in names.items()}
      )
    elif kind == "lstm":
      params.append({"layers": [_fold_lstm(weights, f"{at}.lstm", i) for i in range(spec.lstm)]})
    else:
      params.append({})
  return params


def _fold_kernel(
  weights: Weights, at: str, name: str, spec: CodecSpec
) -> tuple[dict, Float[np.ndarray, "first second taps"]]:
  """Returns the bias and norm of a convolution, and its kernel as torch has it.

  Weight norm is g * v / |v|, the norm over all axes but the first.

  Source: weight normalization (arXiv:1602.07868), eq. 2.
  """
  layer = {"bias": weights[f"{at}.{name}.bias"]}
  if spec.norm == GROUP_NORM:
    layer |= {"scale": weights[f"{at}.norm.weight"], "shift": weights[f"{at}.norm.bias"]}
    return layer, weights[f"{at}.{name}.weight"]
  v = weights[f"{at}.{name}.weight_v"]
  size = np.sqrt(np.square(v).sum(axis=(1, 2), keepdims=True))
  return layer, weights[f"{at}.{name}.weight_g"] * v / size


def _fold_convolution(weights: Weights, at: str, spec: CodecSpec) -> dict:
  layer, kernel = _fold_kernel(weights, at, "conv", spec)
  return {"kernel": kernel.transpose(2, 1, 0), **layer}


def _fold_lstm(weights: Weights, at: str, layer: int) -> dict:
  return {
    "input": weights[f"{at}.weight_ih_l{layer}"].T,
    "recurrent": weights[f"{at}.weight_hh_l{layer}"].T,
    "bias": weights[f"{at}.bias_ih_l{layer}"] + weights[f"{at}.bias_hh_l{layer}"],
  }
