# SPDX-License-Identifier: Apache-2.0
"""The codec bundle: a folder with `codec.json` (what it is) and `weights.safetensors`.

Tensor names are those of the `encodec` package's EncodecModel, so PyTorch loads them as they are;
the JAX side folds weight norm when it loads. Needs numpy and safetensors only.
"""

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from stemgen_jax.codec.architecture import CodecSpec, tensor_shapes
from stemgen_jax.errors import UserError
from stemgen_jax.shell.folders import appearing, write_text

SPEC_FILE, WEIGHTS_FILE = "codec.json", "weights.safetensors"
DEMO_BUNDLE = Path(__file__).parent / "demo_bundle"
FORMAT = 1  # raised when an old reader would misread a new bundle


@dataclasses.dataclass(frozen=True)
class Bundle:
  """A loaded bundle: weights are float32 whatever their type in the file."""

  spec: CodecSpec
  weights: dict[str, np.ndarray]
  fingerprint: str


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
  header = {"format": FORMAT, **dataclasses.asdict(spec)}
  stored = {k: np.ascontiguousarray(weights[k], dtype=dtype) for k in sorted(weights)}
  with appearing(path) as partial:
    partial.mkdir(parents=True)
    write_text(partial / SPEC_FILE, json.dumps(header, indent=2) + "\n")
    (partial / WEIGHTS_FILE).write_bytes(save(stored))


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
