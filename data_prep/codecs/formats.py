# SPDX-License-Identifier: Apache-2.0
"""Recognises published EnCodecs by what their files hold, and knows under what licence they came.

Formats: the `encodec` package's state dicts, audiocraft's exports, Hugging Face folders.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from data_prep.codecs import audiocraft as codec_audiocraft
from data_prep.codecs import transformers_format as codec_transformers
from data_prep.codecs.source import Source, hash_files, read_tensors
from stemgen_jax.codec.architecture import GROUP_NORM, CodecSpec
from stemgen_jax.errors import UserError

PACKAGE = "encodec package"
ENCODEC_24KHZ = CodecSpec(sample_rate=24_000, n_levels=32, licence="", source="")
ENCODEC_48KHZ = CodecSpec(
  sample_rate=48_000,
  channels=2,
  n_levels=16,
  causal=False,
  norm=GROUP_NORM,
  normalize=True,
  segment_s=1.0,
  overlap=0.01,
  licence="",
  source="",
)
MUSICGEN_32KHZ = {
  "sample_rate": 32_000,
  "channels": 1,
  "n_levels": 4,
  "n_codes": 2048,
  "ratios": (8, 5, 4, 4),
  "n_filters": 64,
}
SHA256_48KHZ = "7e698e3e"  # its first digits: encodec_48khz-7e698e3e.th
LICENCES = (
  "Publishers say: encodec_48khz MIT (model card of facebook/encodec_48khz); encodec_24khz nothing"
  " (its code is MIT; github.com/facebookresearch/encodec issue 69 asks about the weights);"
  " audiocraft and MusicGen CC BY-NC 4.0 (audiocraft's LICENSE_weights)."
)


def open_source(path: Path) -> Source:
  """Returns the codec of a file, or the only one of a folder.

  Raises:
    UserError: if there is none or several, or it cannot be read or expressed.
  """
  if path.is_dir():
    return _open_folder(path)
  if not path.is_file():
    raise UserError(f"--from must be a file or folder that exists; got --from={path}. Check it.")
  if path.name.endswith(".index.json"):
    return codec_transformers.open_model(path.parent, path.name)
  stored = read_tensors(path)
  keys = [str(key) for key in stored] if isinstance(stored, dict) else []
  if "pretrained" in keys:
    raise UserError(
      f"codec file must hold weights; got path={path}, which only points to"
      f" {stored['pretrained']!r}. Give that name, or the folder of that model, as --from."
    )
  if {"best_state", "xp.cfg"} <= set(keys):
    return codec_audiocraft.open_export(path, stored)
  if any(key.startswith(("encoder.model.", "decoder.model.")) for key in keys):
    return _open_package(path, stored)
  if any(key.startswith(("encoder.layers.", "audio_encoder.")) for key in keys):
    return codec_transformers.open_model(path.parent, path.name)
  raise UserError(
    f"codec file must be a state dict of the encodec package, an export of audiocraft, or weights"
    f" of transformers' EncodecModel; got path={path} with {', '.join(keys[:5]) or type(stored)}."
    " Give another file."
  )


def _open_package(path: Path, tensors: dict[str, Any]) -> Source:
  """Returns the codec of a bare state dict: one of the two that were published so."""
  stereo = any(key.endswith(".conv.norm.weight") for key in tensors)
  return Source(
    path=path,
    format=PACKAGE,
    sha256=hash_files([path]),
    spec=ENCODEC_48KHZ if stereo else ENCODEC_24KHZ,
    tensors=tensors,
    advice="A file without a config must be encodec_24khz or encodec_48khz of the encodec package.",
  )


def _open_folder(folder: Path) -> Source:
  """Returns the codec of a folder; a Hugging Face folder counts as one, whatever its formats."""
  names = sorted(file.name for file in folder.iterdir() if file.is_file())
  weights = [name for name in codec_transformers.WEIGHTS if name in names]
  found = [name for name in names if name.endswith(".th") or name.startswith("compression_state")]
  if codec_transformers.CONFIG in names and weights:
    found.append(weights[0])
  if len(found) != 1:
    raise UserError(
      f"--from must hold one codec; got {len(found)} in {folder}"
      f" ({', '.join(found or names[:8]) or 'no files'}). Give the file itself."
    )
  if found[0] in weights:
    return codec_transformers.open_model(folder, found[0])
  return open_source(folder / found[0])


def find_licence(source: Source) -> str | None:
  """Returns the licence of the weights, as far as it is known: from facts, or the model card.

  Source: the model card (README.md) beside the weights; that of facebook/encodec_48khz (MIT);
  audiocraft's README and LICENSE_weights (CC BY-NC 4.0). The 24 kHz weights have none stated.
  """
  if card := find_card_licence(source.path):
    return card
  if source.sha256.startswith(SHA256_48KHZ):
    return "MIT (model card of facebook/encodec_48khz)"
  musicgen = all(getattr(source.spec, name) == value for name, value in MUSICGEN_32KHZ.items())
  if musicgen and source.format != PACKAGE:
    return "CC BY-NC 4.0 (audiocraft's LICENSE_weights)"
  return None


def find_card_licence(weights: Path) -> str | None:
  """Returns the licence that the model card beside a file of weights tells, if there is one."""
  card = _licence_of_card(weights.with_name("README.md"))
  return f"{card} (model card beside the weights)" if card else None


def _licence_of_card(path: Path) -> str | None:
  """Returns `license` of a model card's YAML head, if it has one."""
  if not path.is_file():
    return None
  text = path.read_text(encoding="utf-8", errors="replace")
  head = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
  try:
    fields = yaml.safe_load(head[1]) if head else None
  except yaml.YAMLError:
    return None
  if not isinstance(fields, dict):
    return None
  licence = fields.get("license")
  if licence in ("other", "unknown"):
    licence = fields.get("license_name")
  return licence if isinstance(licence, str) else None
