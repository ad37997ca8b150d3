# SPDX-License-Identifier: Apache-2.0
"""Hugging Face folders: config.json and weights of `transformers`' EncodecModel.

Also folders of MusicGen, which hold the codec beside the language model. Reads the files itself:
`transformers` need not be installed.
"""

import json
import math
import re
from pathlib import Path
from typing import Any

from data_prep.codecs.source import Source, build_spec, hash_files, read_tensors, refuse_unless
from stemgen_jax.codec.architecture import CodecSpec
from stemgen_jax.errors import UserError

FORMAT = "transformers"
CONFIG = "config.json"
WEIGHTS = (
  "model.safetensors",
  "model.safetensors.index.json",
  "pytorch_model.bin",
  "pytorch_model.bin.index.json",
)
# A field of CodecSpec, EncodecConfig's name of it, and EncodecConfig's default.
OPTIONS = {
  "sample_rate": ("sampling_rate", 24_000),
  "channels": ("audio_channels", 1),
  "n_codes": ("codebook_size", 1024),
  "ratios": ("upsampling_ratios", [8, 5, 4, 2]),
  "dimension": ("hidden_size", 128),
  "n_filters": ("num_filters", 32),
  "n_residual_layers": ("num_residual_layers", 1),
  "kernel_size": ("kernel_size", 7),
  "last_kernel_size": ("last_kernel_size", 7),
  "residual_kernel_size": ("residual_kernel_size", 3),
  "dilation_base": ("dilation_growth_rate", 2),
  "compress": ("compress", 2),
  "lstm": ("num_lstm_layers", 2),
  "causal": ("use_causal_conv", True),
  "pad_mode": ("pad_mode", "reflect"),
  "norm": ("norm_type", "weight_norm"),
  "normalize": ("normalize", False),
  "segment_s": ("chunk_length_s", None),
}
BESIDE_CODEC = ("musicgen", "musicgen_melody")  # models whose `audio_encoder` is a codec
_NAMES = (
  (r"^(encoder|decoder)\.model\.", r"\1.layers."),
  (r"\.conv\.conv\.|\.convtr\.convtr\.", ".conv."),
  (r"\.(conv|convtr)\.norm\.", ".norm."),
  (r"^quantizer\.vq\.layers\.(\d+)\._codebook\.", r"quantizer.layers.\1.codebook."),
)


def open_model(folder: Path, weights: str | None = None) -> Source:
  """Returns the codec of a folder with config.json and one of the files of WEIGHTS.

  Args:
    folder: as downloaded, or written by `save_pretrained`.
    weights: the file's name; None takes the first of WEIGHTS that is there.

  Raises:
    UserError: if a file is missing or damaged, or the config asks for what a bundle cannot express.
  """
  config, prefix = _read_model_config(folder / CONFIG)
  name = weights or next((n for n in WEIGHTS if (folder / n).is_file()), None)
  if name is None:
    raise UserError(f"folder must hold one of {', '.join(WEIGHTS)}; got {folder}. Download it.")
  files = _parts(folder / name)
  tensors = {}
  for file in files:
    stored = read_tensors(file, prefix)
    if not isinstance(stored, dict):
      raise UserError(f"weights must be a dict of tensors; got path={file}. Download it again.")
    tensors |= {k: v for k, v in stored.items() if str(k).startswith(prefix)}
  return Source(
    path=folder / name,
    format=FORMAT,
    sha256=hash_files(files),
    spec=read_config(folder / CONFIG, config),
    tensors=tensors,
    rename=lambda ours: prefix + rename(ours),
    advice=f"Download the folder again: {CONFIG} describes other weights.",
  )


def rename(name: str) -> str:
  """Returns EncodecModel's name of a bundle's tensor."""
  for pattern, replacement in _NAMES:
    name = re.sub(pattern, replacement, name)
  return name


def read_config(path: Path, config: dict[str, Any]) -> CodecSpec:
  """Returns the description that an EncodecConfig gives; what it leaves out has its default."""
  found = {field: (name, config.get(name, default)) for field, (name, default) in OPTIONS.items()}
  shortcut = config.get("use_conv_shortcut", True)
  if type(shortcut) is bool:
    shortcut = not shortcut
  found["true_skip"] = ("use_conv_shortcut", shortcut)
  refuse_unless(path, "trim_right_ratio", config.get("trim_right_ratio", 1.0), 1.0)
  width = found["dimension"][1]
  refuse_unless(path, "codebook_dim", config.get("codebook_dim") or width, width)
  if found["segment_s"][1] is not None:
    found["overlap"] = ("overlap", config.get("overlap"))
  spec = build_spec(path, found | {"n_levels": ("target_bandwidths", 1)})
  levels = _count_levels(config.get("target_bandwidths", [24.0]), spec)
  return build_spec(path, found | {"n_levels": ("target_bandwidths", levels)})


def _count_levels(bandwidths: Any, spec: CodecSpec) -> Any:
  """Returns how many codebooks the last bandwidth (kbit/s) pays for, as EncodecConfig counts."""
  if not isinstance(bandwidths, list) or not bandwidths:
    return bandwidths
  if type(bandwidths[-1]) not in (int, float) or not math.isfinite(bandwidths[-1]):
    return bandwidths
  frame_rate_hz = -(-spec.sample_rate // spec.hop_samples)
  return int(1000 * bandwidths[-1] // (frame_rate_hz * math.ceil(math.log2(spec.n_codes))))


def _read_model_config(path: Path) -> tuple[dict[str, Any], str]:
  """Returns an EncodecConfig, and what its tensors' names begin with."""
  config = _read_json(path)
  kind = config.get("model_type")
  if kind in BESIDE_CODEC:
    inner = config.get("audio_encoder")
    config, prefix = inner if isinstance(inner, dict) else {}, "audio_encoder."
    kind = config.get("model_type")
  else:
    prefix = ""
  if kind != "encodec":
    raise UserError(
      f"model must be an EnCodec, or MusicGen with one; got {prefix}model_type={kind!r} in {path}."
      " Give another folder."
    )
  return config, prefix


def _parts(path: Path) -> list[Path]:
  """Returns the files that an index lists, in order; a file that is no index is its only part."""
  if path.suffix != ".json":
    return [path]
  index = _read_json(path).get("weight_map")
  names = sorted(set(map(str, index.values()))) if isinstance(index, dict) else []
  files = [path.parent / name for name in names]
  missing = [file.name for file in files if file.parent != path.parent or not file.is_file()]
  if missing or not files:
    raise UserError(
      f"index must list files of its own folder; got {path}, which lacks {missing or 'a list'}."
      " Download the folder again."
    )
  return files


def _read_json(path: Path) -> dict[str, Any]:
  try:
    found = json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError, RecursionError) as error:
    raise UserError(
      f"{path.name} must be there and be JSON; got path={path} ({error}). Download it again."
    ) from error
  if not isinstance(found, dict):
    raise UserError(f"{path.name} must be a JSON object; got path={path}. Download it again.")
  return found
