# SPDX-License-Identifier: Apache-2.0
"""EnCodec's encoder and decoder networks in JAX: convolutions, residual blocks, LSTM.

Arrays are [B, time, width]. Every length is a traced number beside a longer array: what lies behind
it is never read, so one compilation serves many lengths, exactly. Knows nothing of codes or files.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from stemgen_jax.codec.architecture import CodecSpec, layers

Length = Int[Array, ""] | int
State = list[tuple[Float[Array, "B D"], Float[Array, "B D"]]]
HIGHEST = lax.Precision.HIGHEST  # codes flip when matmuls round to bfloat16 or TF32


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
  x, length = run_part(side, "before", params, spec, x, length)
  x, _ = run_lstm(side, params, spec, x, zero_state(spec, len(x)))
  return run_part(side, "after", params, spec, x, length)


def run_part(
  side: str,
  part: str,
  params: list[dict],
  spec: CodecSpec,
  x: Float[Array, "B time width"],
  length: Length,
) -> tuple[Float[Array, "B time_out width_out"], Length]:
  """Returns the output of the layers `before` or `after` the LSTM: each step sees its surroundings.

  A network without an LSTM is all `before`.
  """
  for kind, sizes, layer in _part(side, part, params, spec):
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
    else:
      raise ValueError(f"unknown layer kind {kind!r}")
  return x, length


def run_lstm(
  side: str, params: list[dict], spec: CodecSpec, x: Float[Array, "B T D"], state: State
) -> tuple[Float[Array, "B T D"], State]:
  """Returns x plus the LSTM's output, and its state behind the last step; x if it has none."""
  for (_, kind, _), layer in zip(layers(side, spec), params, strict=True):
    if kind == "lstm":
      y, state = lstm(x, layer["layers"], state)
      return x + y, state
  return x, state


def zero_state(spec: CodecSpec, batch: int) -> State:
  """Returns the state of an LSTM before the first step: (hidden, cell) of each layer."""
  zeros = jnp.zeros((batch, spec.n_filters * 2 ** len(spec.ratios)))
  return [(zeros, zeros)] * spec.lstm


def surroundings(side: str, part: str, spec: CodecSpec) -> int:
  """Returns how many frames on either side of a frame `run_part` may look at.

  Each layer widens the look by its padding, which is never less than its taps reach.
  """
  rate, frames = 1, 0.0  # time steps of a frame at the present layer
  sequence = [(kind, sizes) for kind, sizes, _ in _part(side, part, None, spec)]
  if side == "encoder":
    rate = math.prod(sizes[-1] for kind, sizes in sequence if kind == "down")
  for kind, sizes in sequence:
    if kind == "conv":
      frames += (sizes[-1] - 1) / rate
    elif kind == "down":
      frames += (2 * sizes[-1] - 1) / rate
      rate //= sizes[-1]
    elif kind == "up":
      frames += 2 / rate
      rate *= sizes[-1]
    elif kind == "residual":
      frames += (spec.residual_kernel_size - 1) * sizes[-1] / rate
  return math.ceil(frames)


def _part(
  side: str, part: str, params: list[dict] | None, spec: CodecSpec
) -> list[tuple[str, tuple[int, ...], dict]]:
  """Returns (kind, sizes, parameters) of the layers before or after the LSTM."""
  if part not in ("before", "after"):
    raise ValueError(f"part must be before or after; got {part!r}")
  plan = [(kind, sizes) for _, kind, sizes in layers(side, spec)]
  split = next((i for i, (kind, _) in enumerate(plan) if kind == "lstm"), len(plan))
  chosen = slice(0, split) if part == "before" else slice(split + 1, None)
  given = params or [{}] * len(plan)
  return [(*entry, layer) for entry, layer in zip(plan[chosen], given[chosen], strict=True)]


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
  length = (length + fill) // stride
  return norm(y[:, :steps] + layer["bias"][None, None], length, layer), length


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
  y = norm(y, (length + 1) * stride, layer)  # of the surplus too
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


def norm(
  x: Float[Array, "B time width"], length: Length, layer: dict
) -> Float[Array, "B time width"]:
  """Returns x normalised over its real time steps and all channels together; x if not asked to.

  Source: group normalization (arXiv:1803.08494), eq. 1, one group.
  """
  if "scale" not in layer:
    return x
  real = jnp.arange(x.shape[1])[None, :, None] < length
  count = length * x.shape[2]
  centred = x - jnp.where(real, x, 0).sum(axis=(1, 2), keepdims=True) / count
  variance = jnp.where(real, jnp.square(centred), 0).sum(axis=(1, 2), keepdims=True) / count
  return (
    centred * lax.rsqrt(variance + 1e-5) * layer["scale"][None, None] + layer["shift"][None, None]
  )


def lstm(
  x: Float[Array, "B T D"], stack: list[dict], state: State
) -> tuple[Float[Array, "B T D"], State]:
  """Returns the output of stacked LSTM layers, and their states behind the last step."""
  last = []
  for layer, first in zip(stack, state, strict=True):
    given = jnp.einsum("btd,dg->tbg", x, layer["input"], precision=HIGHEST)
    given += layer["bias"][None, None]

    def step(state, gates, recurrent=layer["recurrent"]):
      hidden, cell = state
      gates = gates + jnp.dot(hidden, recurrent, precision=HIGHEST)
      i, f, g, o = jnp.split(gates, 4, axis=-1)  # torch's order
      cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
      hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
      return (hidden, cell), hidden

    end, x = lax.scan(step, first, given)
    last.append(end)
    x = x.transpose(1, 0, 2)
  return x, last
