# SPDX-License-Identifier: Apache-2.0
"""The codec bundle: a folder with `codec.json` (what it is) and `weights.safetensors`.

Tensor names are those of the `encodec` package's EncodecModel, so PyTorch loads them as they are;
the JAX side folds weight norm when it loads. Needs numpy and safetensors only.
"""

import dataclasses
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from stemgen_jax.errors import UserError

SPEC_FILE, WEIGHTS_FILE = "codec.json", "weights.safetensors"
DEMO_BUNDLE = Path(__file__).parent / "demo_bundle"
FORMAT = 1  # raised when an old reader would misread a new bundle
CODEBOOK = "quantizer.vq.layers.{}._codebook.embed"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodecSpec:
  """An EnCodec: audio format, codes, architecture and provenance. Defaults are EnCodec's own."""

  sample_rate: int
  channels: int = 1
  n_levels: int
  n_codes: int = 1024
  ratios: tuple[int, ...] = (8, 5, 4, 2)  # decoder order; the encoder runs them backwards
  dimension: int = 128
  n_filters: int = 32
  n_residual_layers: int = 1
  kernel_size: int = 7
  last_kernel_size: int = 7
  residual_kernel_size: int = 3
  dilation_base: int = 2
  compress: int = 2  # the residual branch is this many times narrower
  lstm: int = 2  # layers; 0 for none
  true_skip: bool = False  # identity shortcut instead of a 1x1 convolution
  causal: bool = True
  pad_mode: str = "reflect"
  norm: str = "weight_norm"
  normalize: bool = False  # loudness sent beside the codes (48 kHz EnCodec)
  segment_s: float | None = None  # length of independently coded pieces (48 kHz EnCodec)
  licence: str
  source: str

  @property
  def hop_samples(self) -> int:
    """Samples of one frame."""
    return math.prod(self.ratios)

  @property
  def frame_rate_hz(self) -> float:
    """Frames a second."""
    return self.sample_rate / self.hop_samples

  def frames(self, samples: int) -> int:
    """Returns how many frames the encoder gives for so many samples."""
    return -(-samples // self.hop_samples)

  def problems(self) -> list[str]:
    """Returns every rule that the spec breaks, one phrase each."""
    rules = {
      "sample_rate": (self.sample_rate > 0, "be positive"),
      "channels": (self.channels in (1, 2), "be 1 or 2"),
      "n_levels": (self.n_levels >= 1, "be at least 1"),
      "n_codes": (self.n_codes >= 2 and self.n_codes.bit_count() == 1, "be a power of two"),
      "ratios": (bool(self.ratios) and min(self.ratios) >= 1, "be positive numbers"),
      "n_residual_layers": (self.n_residual_layers >= 0, "be at least 0"),
      "lstm": (self.lstm >= 0, "be at least 0"),
      "pad_mode": (self.pad_mode in ("reflect", "constant"), "be one of reflect, constant"),
      "norm": (self.norm == "weight_norm", "be weight_norm, the only one supported"),
      "normalize": (not self.normalize, "be false: codes carry no loudness beside them"),
      "segment_s": (self.segment_s is None, "be null: a clip is coded in one piece"),
    }
    return [
      f"{k} must {rule}; got {getattr(self, k)!r}" for k, (ok, rule) in rules.items() if not ok
    ]


@dataclasses.dataclass(frozen=True)
class Bundle:
  """A loaded bundle: weights are float32 whatever their type in the file."""

  spec: CodecSpec
  weights: dict[str, np.ndarray]
  fingerprint: str


def tensor_shapes(spec: CodecSpec) -> dict[str, tuple[int, ...]]:
  """Returns the name and shape of every tensor of a codec, in the `encodec` package's terms."""
  shapes = dict(_network("encoder", spec))
  shapes.update(_network("decoder", spec))
  for level in range(spec.n_levels):
    shapes[CODEBOOK.format(level)] = (spec.n_codes, spec.dimension)
  return shapes


def save_bundle(
  path: str | os.PathLike, spec: CodecSpec, weights: dict[str, np.ndarray], dtype: str = "float32"
) -> None:
  """Writes a bundle; the folder appears whole, and replaces one that was there.

  Args:
    path: the bundle's folder.
    spec: what the codec is.
    weights: exactly the tensors of `tensor_shapes(spec)`.
    dtype: storage type, float32 or float16.

  Raises:
    UserError: if the spec breaks a rule or a tensor is missing, unknown or misshapen.
  """
  path = Path(path)
  _check_spec(spec, path)
  _check_weights(spec, weights, path)
  partial, replaced = path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.old")
  for leftover in (partial, replaced):
    shutil.rmtree(leftover, ignore_errors=True)
  partial.mkdir(parents=True)
  header = {"format": FORMAT, **dataclasses.asdict(spec)}
  (partial / SPEC_FILE).write_text(json.dumps(header, indent=2) + "\n", encoding="utf-8")
  stored = {k: np.ascontiguousarray(weights[k], dtype=dtype) for k in sorted(weights)}
  (partial / WEIGHTS_FILE).write_bytes(save(stored))
  if path.exists():
    os.replace(path, replaced)
  os.replace(partial, path)
  shutil.rmtree(replaced, ignore_errors=True)


def load_bundle(path: str | os.PathLike) -> Bundle:
  """Returns the bundle in a folder, every tensor checked against the architecture.

  Raises:
    UserError: if a file is missing or damaged, or a tensor missing, unknown or misshapen.
  """
  path = Path(path)
  spec_bytes, weight_bytes = _read(path / SPEC_FILE), _read(path / WEIGHTS_FILE)
  spec = _parse_spec(spec_bytes, path / SPEC_FILE)
  try:
    stored = load(weight_bytes)
  except (SafetensorError, KeyError, ValueError) as error:
    raise UserError(
      f"codec weights must be a whole safetensors file; got path={path / WEIGHTS_FILE} ({error})."
      " Copy the bundle again."
    ) from error
  _check_weights(spec, stored, path / WEIGHTS_FILE)
  weights = {name: array.astype(np.float32) for name, array in stored.items()}
  return Bundle(spec, weights, hashlib.sha256(spec_bytes + weight_bytes).hexdigest())


def _network(side: str, spec: CodecSpec) -> Iterator[tuple[str, tuple[int, ...]]]:
  """Yields name and shape of each tensor of `encoder` or `decoder`, in the order of its layers."""
  for index, kind, sizes in layers(side, spec):
    at = f"{side}.model.{index}"
    if kind == "lstm":
      width, *_ = sizes
      for layer in range(spec.lstm):
        for part in ("ih", "hh"):
          yield f"{at}.lstm.weight_{part}_l{layer}", (4 * width, width)
          yield f"{at}.lstm.bias_{part}_l{layer}", (4 * width,)
    elif kind == "residual":
      width, *_ = sizes
      hidden = width // spec.compress
      yield from _convolution(f"{at}.block.1.conv.conv", width, hidden, spec.residual_kernel_size)
      yield from _convolution(f"{at}.block.3.conv.conv", hidden, width, 1)
      if not spec.true_skip:
        yield from _convolution(f"{at}.shortcut.conv.conv", width, width, 1)
    elif kind == "up":
      wide, narrow, stride = sizes
      yield f"{at}.convtr.convtr.weight_g", (wide, 1, 1)
      yield f"{at}.convtr.convtr.weight_v", (wide, narrow, 2 * stride)
      yield f"{at}.convtr.convtr.bias", (narrow,)
    elif kind in ("conv", "down"):
      taken, given, size = sizes
      yield from _convolution(f"{at}.conv.conv", taken, given, 2 * size if kind == "down" else size)
    elif kind != "elu":
      raise ValueError(f"unknown layer kind {kind!r}")


def layers(side: str, spec: CodecSpec) -> Iterator[tuple[int, str, tuple[int, ...]]]:
  """Yields (index in the Sequential, kind, sizes) of each layer of a SEANet.

  Sizes are: conv (in, out, kernel), down and up (in, out, stride), residual (width, dilation),
  lstm (width,), elu ().

  Source: EnCodec (arXiv:2210.13438) section 3.1; `encodec.modules.seanet` for the order.
  """
  plan: list[tuple[str, tuple[int, ...]]] = []
  widest = spec.n_filters * 2 ** len(spec.ratios)
  dilations = [spec.dilation_base**i for i in range(spec.n_residual_layers)]
  if side == "encoder":
    width = spec.n_filters
    plan.append(("conv", (spec.channels, width, spec.kernel_size)))
    for stride in reversed(spec.ratios):
      plan += [("residual", (width, dilation)) for dilation in dilations]
      plan += [("elu", ()), ("down", (width, 2 * width, stride))]
      width *= 2
    plan += [("lstm", (width,))] * bool(spec.lstm)
    plan += [("elu", ()), ("conv", (width, spec.dimension, spec.last_kernel_size))]
  elif side == "decoder":
    width = widest
    plan.append(("conv", (spec.dimension, width, spec.kernel_size)))
    plan += [("lstm", (width,))] * bool(spec.lstm)
    for stride in spec.ratios:
      plan += [("elu", ()), ("up", (width, width // 2, stride))]
      width //= 2
      plan += [("residual", (width, dilation)) for dilation in dilations]
    plan += [("elu", ()), ("conv", (width, spec.channels, spec.last_kernel_size))]
  else:
    raise ValueError(f"side must be encoder or decoder; got {side!r}")
  for index, (kind, sizes) in enumerate(plan):
    yield index, kind, sizes


def _convolution(at: str, taken: int, given: int, kernel: int):
  yield f"{at}.weight_g", (given, 1, 1)
  yield f"{at}.weight_v", (given, taken, kernel)
  yield f"{at}.bias", (given,)


def _read(path: Path) -> bytes:
  if not path.is_file():
    raise UserError(
      f"codec bundle must be a folder with {SPEC_FILE} and {WEIGHTS_FILE}; got no file {path}."
      f" Give a bundle's folder, such as {DEMO_BUNDLE}."
    )
  return path.read_bytes()


def _parse_spec(text: bytes, path: Path) -> CodecSpec:
  try:
    fields = json.loads(text)
    found = fields.pop("format")
    fields["ratios"] = tuple(fields["ratios"])
    spec = CodecSpec(**fields)
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise UserError(
      f"codec description must be JSON with the fields of a CodecSpec; got path={path}"
      f" ({type(error).__name__}: {error}). Copy the bundle again."
    ) from error
  if found != FORMAT:
    raise UserError(
      f"codec bundle must have format {FORMAT}; got format={found} in {path}. Upgrade stemgen_jax."
    )
  _check_spec(spec, path)
  return spec


def _check_spec(spec: CodecSpec, path: Path) -> None:
  if problems := spec.problems():
    raise UserError(f"codec description {path} is not usable: {'; '.join(problems)}.")


def _check_weights(spec: CodecSpec, weights: dict[str, np.ndarray], path: Path) -> None:
  expected = tensor_shapes(spec)
  if missing := sorted(expected.keys() - weights.keys()):
    raise UserError(
      f"codec weights must hold every tensor of the architecture; got path={path} without"
      f" {missing[0]} and {len(missing) - 1} more. Make the bundle again."
    )
  if unknown := sorted(weights.keys() - expected.keys()):
    raise UserError(
      f"codec weights must hold only tensors of the architecture; got path={path} with"
      f" {unknown[0]} and {len(unknown) - 1} more. Make the bundle again."
    )
  for name, shape in expected.items():
    if weights[name].shape != shape:
      raise UserError(
        f"codec weights must fit {SPEC_FILE}: {name} has shape {weights[name].shape} in {path},"
        f" but the architecture needs {shape}. Make the bundle again."
      )
    if not np.isfinite(weights[name]).all():
      raise UserError(
        f"codec weights must be finite; got NaN or infinity in {name} of {path}."
        " Make the bundle again."
      )
