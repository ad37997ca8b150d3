# SPDX-License-Identifier: Apache-2.0
"""A published Vocos for EnCodec's tokens, as a bundle's decoder has it.

Its norms are adaptive: a scale and a shift for each of four bandwidths. A bundle has one bandwidth,
that of its levels, and takes those of this one.

Source: Vocos (arXiv:2306.00814); the layout of charactr/vocos-encodec-24khz.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.codecs.formats import find_card_licence
from data_prep.codecs.source import hash_files, read_tensors
from stemgen_jax.codec.architecture import CodecSpec
from stemgen_jax.codec.decoder import DecoderSpec
from stemgen_jax.errors import UserError

LEVELS = (2, 4, 8, 16)  # of EnCodec's 1.5, 3, 6 and 12 kbit/s
NORM_EPS, MAX_MAGNITUDE = 1e-6, 100.0
CODEBOOKS = "feature_extractor.codebook_weights"
ONCE = {
  "conv_in.weight": "backbone.embed.weight",
  "conv_in.bias": "backbone.embed.bias",
  "norm_out.weight": "backbone.final_layer_norm.weight",
  "norm_out.bias": "backbone.final_layer_norm.bias",
  "out.weight": "head.out.weight",
  "out.bias": "head.out.bias",
}
BLOCK = {
  "depthwise.weight": "dwconv.weight",
  "depthwise.bias": "dwconv.bias",
  "up.weight": "pwconv1.weight",
  "up.bias": "pwconv1.bias",
  "down.weight": "pwconv2.weight",
  "down.bias": "pwconv2.bias",
  "scale": "gamma",
}


def read_vocos(
  path: Path, codec: CodecSpec, codebooks: Sequence[np.ndarray]
) -> tuple[DecoderSpec, dict[str, np.ndarray]]:
  """Returns what the decoder is, and its tensors by a bundle's names.

  Args:
    path: its file of weights; the model card beside it tells their licence.
    codec: whose tokens it is to decode.
    codebooks: of the codec, [V, dimension] each.

  Raises:
    UserError: if it is no such decoder, of other tokens or levels, or without a licence.
  """
  stored = read_tensors(path)
  if not isinstance(stored, Mapping) or not {*ONCE.values(), CODEBOOKS} <= set(stored):
    raise UserError(
      f"--decoder must be the weights of a Vocos for EnCodec's tokens; got {path}, which lacks"
      f" {', '.join(sorted({*ONCE.values(), CODEBOOKS} - set(stored))[:3])}. Give another file."
    )
  tensors = {name: _to_array(value) for name, value in stored.items()}
  if codec.n_levels not in LEVELS:
    raise UserError(
      f"--levels must be one of {LEVELS} with --decoder, which knows no others; got"
      f" {codec.n_levels}."
    )
  _check_codebooks(path, tensors[CODEBOOKS], np.concatenate(codebooks))
  licence = find_card_licence(path)
  if not licence:
    raise UserError(
      f"licence of the decoder must be known; got --decoder={path} without a model card. Put its"
      " README.md beside it."
    )
  row, found = LEVELS.index(codec.n_levels), re.compile(r"backbone\.convnext\.(\d+)\.gamma")
  layers = sum(found.fullmatch(name) is not None for name in tensors)
  weights = {name: tensors[theirs] for name, theirs in ONCE.items()}
  try:
    weights |= _take_norm(tensors, "backbone.norm", "norm_in", row)
    for i in range(layers):
      theirs, ours = f"backbone.convnext.{i}", f"blocks.{i}"
      weights |= _take_norm(tensors, f"{theirs}.norm", f"{ours}.norm", row)
      weights |= {f"{ours}.{name}": tensors[f"{theirs}.{of}"] for name, of in BLOCK.items()}
  except KeyError as error:
    raise UserError(f"--decoder must be whole; got {path} without {error}.") from error
  dim, dimension, kernel_size = weights["conv_in.weight"].shape
  spec = DecoderSpec(
    sample_rate=codec.sample_rate,
    hop_samples=codec.hop_samples,
    n_fft=len(weights["out.bias"]) - 2,
    dimension=dimension,
    dim=dim,
    mlp_dim=len(weights["blocks.0.up.bias"]) if layers else 0,
    n_layers=layers,
    kernel_size=kernel_size,
    max_magnitude=MAX_MAGNITUDE,
    norm_eps=NORM_EPS,
    licence=licence,
    source=f"{path.name} (Vocos), SHA-256 {hash_files([path])}",
  )
  return spec, weights


def _to_array(value: Any) -> np.ndarray:
  return np.asarray(value, np.float32) if hasattr(value, "shape") else np.zeros(0, np.float32)


def _take_norm(
  tensors: Mapping[str, np.ndarray], theirs: str, ours: str, row: int
) -> dict[str, np.ndarray]:
  """Returns a norm's weight and bias: of the bandwidth, where it is adaptive."""
  if f"{theirs}.scale.weight" in tensors:
    weight, bias = tensors[f"{theirs}.scale.weight"][row], tensors[f"{theirs}.shift.weight"][row]
  else:
    weight, bias = tensors[f"{theirs}.weight"], tensors[f"{theirs}.bias"]
  return {f"{ours}.weight": weight, f"{ours}.bias": bias}


def _check_codebooks(path: Path, theirs: np.ndarray, ours: np.ndarray) -> None:
  """Raises a UserError unless the decoder was trained on these codebooks."""
  same = theirs.ndim == 2 and theirs.shape[1] == ours.shape[1] and len(theirs) >= len(ours)
  if not same or np.abs(theirs[: len(ours)] - ours).max() > 1e-2 * ours.std():
    raise UserError(
      f"--decoder must be of this codec's tokens; got {path}, which was trained on other codebooks."
      " Give the codec that it names."
    )
