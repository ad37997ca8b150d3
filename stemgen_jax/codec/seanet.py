# SPDX-License-Identifier: Apache-2.0
"""EnCodec's encoder and decoder networks in JAX: convolutions, residual blocks, LSTM.

Arrays are [B, time, width]. Every length is a traced number beside a longer array: what lies behind
it is never read, so one compilation serves many lengths, exactly. Knows nothing of codes or files.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from stemgen_jax.codec.architecture import CodecSpec, layers

Weights = dict[str, np.ndarray]
Length = Int[Array, ""] | int
HIGHEST = lax.Precision.HIGHEST  # codes flip when matmuls round to bfloat16 or TF32


def fold(side: str, weights: Weights, spec: CodecSpec) -> list[dict]:
  """Returns the parameters of each layer of `encoder` or `decoder`, weight norm multiplied out.

  Kernels are [time, in, out]; an up-sampling layer's, [2, in, stride * out], its two
  halves, the later one first.
  """
  params = []
  for index, kind, _ in layers(side, spec):
    at = f"{side}.model.{index}"
    if kind in ("conv", "down"):
      params.append(_fold_convolution(weights, f"{at}.conv.conv"))
    elif kind == "up":
      kernel = _normed(weights, f"{at}.convtr.convtr")  # [in, out, 2 * stride]
      halves = kernel.reshape(*kernel.shape[:2], 2, -1).transpose(2, 0, 3, 1)[::-1]
      halves = halves.reshape(2, len(kernel), -1)
      params.append({"kernel": halves, "bias": weights[f"{at}.convtr.convtr.bias"]})
    elif kind == "residual":
      names = {"wide": "block.1", "point": "block.3"}
      if not spec.true_skip:
        names["shortcut"] = "shortcut"
      params.append(
        {key: _fold_convolution(weights, f"{at}.{name}.conv.conv") for key, name in names.items()}
      )
    elif kind == "lstm":
      params.append({"layers": [_fold_lstm(weights, f"{at}.lstm", i) for i in range(spec.lstm)]})
    else:
      params.append({})
  return params


def run(
  side: str, params: list[dict], spec: CodecSpec, x: Float[Array, "B time width"], length: Length
) -> tuple[Float[Array, "B time_out width_out"], Length]:
  """Returns the output of `encoder` or `decoder` and its length.

  Args:
    side: which network.
    params: from `fold`.
    spec: the architecture.
    x: audio or latents; whatever lies at and behind `length` is ignored.
    length: how many of the time steps are real.
  """
  for (_, kind, sizes), layer in zip(layers(side, spec), params, strict=True):
    if kind == "elu":
      x = jax.nn.elu(x)
    elif kind == "conv":
      x, length = convolve(x, length, layer, spec)
    elif kind == "down":
      x, length = convolve(x, length, layer, spec, stride=sizes[-1])
    elif kind == "up":
      x, length = upsample(x, length, layer, spec, stride=sizes[-1])
    elif kind == "residual":
      x = residual(x, length, layer, spec, dilation=sizes[-1])
    elif kind == "lstm":
      x = x + lstm(x, layer["layers"])
    else:
      raise ValueError(f"unknown layer kind {kind!r}")
  return x, length


def convolve(
  x: Float[Array, "B time width"],
  length: Length,
  layer: dict,
  spec: CodecSpec,
  stride: int = 1,
  dilation: int = 1,
) -> tuple[Float[Array, "B time_out width_out"], Length]:
  """Returns the padded convolution and its length, ceil(length / stride).

  Padding is EnCodec's: all at the front if causal, else split, the odd one in front; at the end as
  much more as fills the last window.
  """
  total = (layer["kernel"].shape[0] - 1) * dilation - (stride - 1)
  left = total if spec.causal else total - total // 2
  fill, steps = -length % stride, -(-x.shape[1] // stride)
  x = pad(x, length, left, total - left + fill, total - left + stride - 1, spec.pad_mode)
  y = lax.conv_general_dilated(
    x,
    layer["kernel"],
    window_strides=(stride,),
    padding="VALID",
    rhs_dilation=(dilation,),
    dimension_numbers=("NWC", "WIO", "NWC"),
    precision=HIGHEST,
  )
  return y[:, :steps] + layer["bias"][None, None], (length + fill) // stride


def pad(
  x: Float[Array, "B time width"],
  length: Length,
  left: int,
  right: Length,
  most_right: int,
  mode: str,
) -> Float[Array, "B padded width"]:
  """Returns x[:, :length] padded by `left` and `right`, with anything behind that.

  Reflection of an x no longer than its padding first puts zeros behind x, as EnCodec does.

  Args:
    x: the array.
    length: its real time steps.
    left: padding in front.
    right: padding behind, a traced number.
    most_right: what `right` can be at most.
    mode: reflect or constant (zeros).
  """
  x = jnp.where(jnp.arange(x.shape[1])[None, :, None] < length, x, 0)
  most = max(left, most_right)
  x = jnp.pad(x, ((0, 0), (0, 2 * most + 1), (0, 0)))
  if mode == "constant":
    return jnp.pad(x, ((0, 0), (left, 0), (0, 0)))
  if mode != "reflect":
    raise ValueError(f"pad mode must be reflect or constant; got {mode!r}")
  end = jnp.maximum(length, jnp.maximum(left, right) + 1)
  if most_right:
    source = end - 2 - jnp.arange(most_right)  # below 0 only where the mirror is not read
    mirror = jnp.take(x, jnp.maximum(source, 0), axis=1)
    x = lax.dynamic_update_slice_in_dim(x, mirror, end, axis=1)
  return jnp.concatenate([x[:, 1 : left + 1][:, ::-1], x], axis=1)


def upsample(
  x: Float[Array, "B time width"], length: Length, layer: dict, spec: CodecSpec, stride: int
) -> tuple[Float[Array, "B time_out width_out"], Length]:
  """Returns the transposed convolution (kernel = 2 * stride) cut to length * stride.

  Each input step gives two blocks of `stride` outputs; the second falls on the next step's first.
  So a block is a convolution over two steps, which is faster than adding the blocks up afterwards.
  The surplus block is cut at the end if causal, else from both sides.
  """
  x = jnp.where(jnp.arange(x.shape[1])[None, :, None] < length, x, 0)
  blocks = lax.conv_general_dilated(
    x,
    layer["kernel"],
    window_strides=(1,),
    padding=((1, 1),),
    dimension_numbers=("NWC", "WIO", "NWC"),
    precision=HIGHEST,
  )
  y = blocks.reshape(len(x), -1, len(layer["bias"])) + layer["bias"][None, None]
  front = 0 if spec.causal else stride - stride // 2
  return y[:, front : front + x.shape[1] * stride], length * stride


def residual(
  x: Float[Array, "B time width"], length: Length, layer: dict, spec: CodecSpec, dilation: int
) -> Float[Array, "B time width"]:
  """Returns the sum of a shortcut and ELU, dilated convolution, ELU, 1x1 convolution."""
  y, _ = convolve(jax.nn.elu(x), length, layer["wide"], spec, dilation=dilation)
  y, _ = convolve(jax.nn.elu(y), length, layer["point"], spec)
  if "shortcut" in layer:
    x, _ = convolve(x, length, layer["shortcut"], spec)
  return x + y


def lstm(x: Float[Array, "B T D"], stack: list[dict]) -> Float[Array, "B T D"]:
  """Returns the output of stacked LSTM layers from a zero state."""
  for layer in stack:
    given = jnp.einsum("btd,dg->tbg", x, layer["input"], precision=HIGHEST)
    given += layer["bias"][None, None]

    def step(state, gates, recurrent=layer["recurrent"]):
      hidden, cell = state
      gates = gates + jnp.dot(hidden, recurrent, precision=HIGHEST)
      i, f, g, o = jnp.split(gates, 4, axis=-1)  # torch's order
      cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
      hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
      return (hidden, cell), hidden

    zeros = jnp.zeros((x.shape[0], x.shape[2]), x.dtype)
    _, x = lax.scan(step, (zeros, zeros), given)
    x = x.transpose(1, 0, 2)
  return x


def _normed(weights: Weights, at: str) -> np.ndarray:
  """Returns g * v / |v|, the norm over all axes but the first.

  Source: weight normalization (arXiv:1602.07868), eq. 2.
  """
  v = weights[f"{at}.weight_v"]
  return weights[f"{at}.weight_g"] * v / np.sqrt(np.square(v).sum(axis=(1, 2), keepdims=True))


def _fold_convolution(weights: Weights, at: str) -> dict:
  return {"kernel": _normed(weights, at).transpose(2, 1, 0), "bias": weights[f"{at}.bias"]}


def _fold_lstm(weights: Weights, at: str, layer: int) -> dict:
  return {
    "input": weights[f"{at}.weight_ih_l{layer}"].T,
    "recurrent": weights[f"{at}.weight_hh_l{layer}"].T,
    "bias": weights[f"{at}.bias_ih_l{layer}"] + weights[f"{at}.bias_hh_l{layer}"],
  }
