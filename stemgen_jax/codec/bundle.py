# SPDX-License-Identifier: Apache-2.0
"""The codec bundle: a folder with `codec.json` (what it is) and `weights.safetensors`.

Tensor names are those of the `encodec` package's EncodecModel, so PyTorch loads them as they are;
the JAX side folds weight norm when it loads. `decoder.json` and `decoder.safetensors` beside them
are a decoder that takes the place of EnCodec's own. The first two files alone make the tokens:
their SHA-256 is the fingerprint, so that shards and models stay valid with another decoder.
"""

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from stemgen_jax.codec import decoder as decoders
from stemgen_jax.codec.architecture import CodecSpec, tensor_shapes
from stemgen_jax.codec.decoder import DecoderSpec
from stemgen_jax.errors import UserError
from stemgen_jax.shell.folders import appearing, write_text

SPEC_FILE, WEIGHTS_FILE = "codec.json", "weights.safetensors"
DECODER_SPEC_FILE, DECODER_WEIGHTS_FILE = "decoder.json", "decoder.safetensors"
DEMO_BUNDLE = Path(__file__).parent / "demo_bundle"
FORMAT = 1  # raised when an old reader would misread a new bundle

Spec = TypeVar("Spec", CodecSpec, DecoderSpec)
Weights = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Decoder:
  """A decoder of the Vocos kind: what it is, its tensors in float32, the SHA-256 of its files."""

  spec: DecoderSpec
  weights: Weights
  fingerprint: str


@dataclasses.dataclass(frozen=True)
class Bundle:
  """A loaded bundle: weights are float32 whatever their type in the file.

  Attributes:
    spec: what the codec is.
    weights: encoder, codebooks and EnCodec's own decoder.
    fingerprint: the SHA-256 of what makes the tokens.
    decoder: the one that takes the place of EnCodec's own; None if none does.
  """

  spec: CodecSpec
  weights: Weights
  fingerprint: str
  decoder: Decoder | None = None


def save_bundle(
  path: str | os.PathLike, spec: CodecSpec, weights: Weights, dtype: str = "float32"
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
  _refuse(spec.problems(), path)
  _check_weights(tensor_shapes(spec), weights, path)
  with appearing(path) as partial:
    partial.mkdir(parents=True)
    write_text(partial / SPEC_FILE, _describe(spec))
    (partial / WEIGHTS_FILE).write_bytes(_pack(weights, dtype))


def add_decoder(
  source: str | os.PathLike, path: str | os.PathLike, spec: DecoderSpec, weights: Weights
) -> None:
  """Writes the bundle of `source` with another decoder to `path`, which appears whole.

  What makes the tokens is copied byte by byte; the decoder's tensors are stored as float16.

  Args:
    source: a bundle's folder.
    path: the folder to write; it replaces one that was there, `source` too.
    spec: what the decoder is.
    weights: exactly the tensors of `decoder.tensor_shapes(spec)`.

  Raises:
    UserError: if the bundle or the decoder cannot be used, or they do not fit each other.
  """
  source, path = Path(source), Path(path)
  codec = load_bundle(source).spec
  _check_decoder(spec, codec, path)
  _check_weights(decoders.tensor_shapes(spec), weights, path)
  kept = {name: (source / name).read_bytes() for name in (SPEC_FILE, WEIGHTS_FILE)}
  with appearing(path) as partial:
    partial.mkdir(parents=True)
    for name, content in kept.items():
      (partial / name).write_bytes(content)
    write_text(partial / DECODER_SPEC_FILE, _describe(spec))
    (partial / DECODER_WEIGHTS_FILE).write_bytes(_pack(weights, "float16"))


def load_bundle(path: str | os.PathLike) -> Bundle:
  """Returns the bundle in a folder, every tensor checked against the architecture.

  Raises:
    UserError: if a file is missing or damaged, or a tensor missing, unknown or misshapen.
  """
  path = Path(path)
  spec_bytes, weight_bytes = _read(path / SPEC_FILE), _read(path / WEIGHTS_FILE)
  spec = _parse(spec_bytes, path / SPEC_FILE, CodecSpec)
  weights = _unpack(weight_bytes, path / WEIGHTS_FILE)
  _check_weights(tensor_shapes(spec), weights, path / WEIGHTS_FILE)
  decoder = _read_decoder(path, spec) if (path / DECODER_SPEC_FILE).is_file() else None
  return Bundle(spec, weights, _hash(spec_bytes, weight_bytes), decoder)


def _read_decoder(path: Path, codec: CodecSpec) -> Decoder:
  spec_bytes, weight_bytes = _read(path / DECODER_SPEC_FILE), _read(path / DECODER_WEIGHTS_FILE)
  spec = _parse(spec_bytes, path / DECODER_SPEC_FILE, DecoderSpec)
  _check_decoder(spec, codec, path / DECODER_SPEC_FILE)
  weights = _unpack(weight_bytes, path / DECODER_WEIGHTS_FILE)
  _check_weights(decoders.tensor_shapes(spec), weights, path / DECODER_WEIGHTS_FILE)
  return Decoder(spec, weights, _hash(spec_bytes, weight_bytes))


def _check_decoder(spec: DecoderSpec, codec: CodecSpec, path: Path) -> None:
  problems = spec.problems()
  if not problems:
    hop = spec.sample_rate / codec.frame_rate_hz
    if spec.hop_samples != hop:
      problems.append(f"hop_samples must be {hop:g}, a frame of the codec; got {spec.hop_samples}")
    if spec.dimension != codec.dimension:
      problems.append(f"dimension must be the codec's {codec.dimension}; got {spec.dimension}")
    if codec.channels != 1 or codec.segment_s is not None:
      problems.append("the codec must be mono and without segments")
  _refuse(problems, path)


def _describe(spec: CodecSpec | DecoderSpec) -> str:
  return json.dumps({"format": FORMAT, **dataclasses.asdict(spec)}, indent=2) + "\n"


def _pack(weights: Weights, dtype: str) -> bytes:
  return save({name: np.ascontiguousarray(weights[name], dtype=dtype) for name in sorted(weights)})


def _unpack(content: bytes, path: Path) -> Weights:
  try:
    stored = load(content)
  except (SafetensorError, KeyError, ValueError) as error:
    raise UserError(
      f"codec weights must be a whole safetensors file; got path={path} ({error})."
      " Copy the bundle again."
    ) from error
  return {name: array.astype(np.float32) for name, array in stored.items()}


def _hash(spec: bytes, weights: bytes) -> str:
  return hashlib.sha256(spec + weights).hexdigest()


def _read(path: Path) -> bytes:
  if not path.is_file():
    raise UserError(
      f"codec bundle must be a folder with {SPEC_FILE} and {WEIGHTS_FILE}; got no file {path}."
      f" Give a bundle's folder, such as {DEMO_BUNDLE}."
    )
  return path.read_bytes()


def _parse(text: bytes, path: Path, kind: type[Spec]) -> Spec:
  try:
    fields: dict[str, Any] = json.loads(text)
    found = fields.pop("format")
    for field in dataclasses.fields(kind):
      if isinstance(field.default, tuple):
        fields[field.name] = tuple(fields[field.name])  # JSON has lists
    spec = kind(**fields)
    problems = spec.problems()  # which cannot compare a value of another kind
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise UserError(
      f"codec description must be JSON with the fields of a {kind.__name__}; got path={path}"
      f" ({type(error).__name__}: {error}). Copy the bundle again."
    ) from error
  if found != FORMAT:
    raise UserError(
      f"codec bundle must have format {FORMAT}; got format={found} in {path}. Upgrade stemgen_jax."
    )
  _refuse(problems, path)
  return spec


def _refuse(problems: list[str], path: Path) -> None:
  if problems:
    raise UserError(f"codec description {path} is not usable: {'; '.join(problems)}.")


def _check_weights(expected: dict[str, tuple[int, ...]], weights: Weights, path: Path) -> None:
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
        f"codec weights must fit the description: {name} has shape {weights[name].shape} in {path},"
        f" but the architecture needs {shape}. Make the bundle again."
      )
    if not np.isfinite(weights[name]).all():
      raise UserError(
        f"codec weights must be finite; got NaN or infinity in {name} of {path}."
        " Make the bundle again."
      )
