# SPDX-License-Identifier: Apache-2.0
"""audiocraft's exports (`compression_state_dict.bin`): the codec that their YAML config describes.

The config is text from a stranger: read by yaml.safe_load, its references followed here, and every
option that a bundle cannot express is refused by name.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from data_prep.codecs.source import Source, build_spec, hash_files, refuse_unless
from stemgen_jax.codec.architecture import CodecSpec
from stemgen_jax.errors import UserError

FORMAT = "audiocraft"
# A field of CodecSpec, audiocraft's option of SEANet, and SEANet's own default there.
SEANET = {
  "channels": ("channels", 1),
  "ratios": ("ratios", [8, 5, 4, 2]),
  "dimension": ("dimension", 128),
  "n_filters": ("n_filters", 32),
  "n_residual_layers": ("n_residual_layers", 3),
  "kernel_size": ("kernel_size", 7),
  "last_kernel_size": ("last_kernel_size", 7),
  "residual_kernel_size": ("residual_kernel_size", 3),
  "dilation_base": ("dilation_base", 2),
  "compress": ("compress", 2),
  "lstm": ("lstm", 0),
  "true_skip": ("true_skip", True),
  "causal": ("causal", False),
  "pad_mode": ("pad_mode", "reflect"),
  "norm": ("norm", "none"),
}
# Options that a bundle has no field for: SEANet's default, and the only value that is taken.
FIXED = {
  "activation": ("ELU", "ELU"),
  "activation_params": ({"alpha": 1.0}, {"alpha": 1.0}),
  "norm": ("none", "weight_norm"),  # time_group_norm would need segments, which audiocraft lacks
  "norm_params": ({}, {}),
  "disable_norm_outer_blocks": (0, 0),
}
FIXED_DECODER = {
  "trim_right_ratio": (1.0, 1.0),
  "final_activation": (None, None),
  "final_activation_params": (None, None),
}
RVQ = ("n_q", "bins")
RVQ_TRAINING = (
  "q_dropout",
  "decay",
  "kmeans_init",
  "kmeans_iters",
  "threshold_ema_dead_code",
  "orthogonal_reg_weight",
  "orthogonal_reg_active_codes_only",
  "orthogonal_reg_max_codes",
)
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")


def open_export(path: Path, stored: dict[str, Any]) -> Source:
  """Returns the codec of a file that holds `best_state` and `xp.cfg`.

  Raises:
    UserError: if the config cannot be read, or asks for what a bundle cannot express.
  """
  tensors = stored["best_state"]
  if isinstance(tensors, dict) and isinstance(tensors.get("model"), dict):
    tensors = tensors["model"]
  if not isinstance(tensors, dict):
    raise UserError(f"best_state must be a dict of tensors; got path={path}. Download it again.")
  return Source(
    path=path,
    format=FORMAT,
    sha256=hash_files([path]),
    spec=read_config(path, stored["xp.cfg"]),
    tensors=tensors,
    advice="The config in this file describes other weights. Export the model again.",
  )


def read_config(path: Path, text: Any) -> CodecSpec:
  """Returns the description that the text of audiocraft's config gives.

  Source: audiocraft's `models.builders.get_compression_model` for what reads which option.
  """
  config = _Config(path, text)
  refuse_unless(path, "compression_model", config.get("compression_model"), "encodec")
  refuse_unless(path, "encodec.autoencoder", config.get("encodec.autoencoder"), "seanet")
  refuse_unless(path, "encodec.quantizer", config.get("encodec.quantizer"), "rvq")
  refuse_unless(path, "encodec.renormalize", config.get("encodec.renormalize", False), False)
  sides = {side: _read_seanet(config, side) for side in ("encoder", "decoder")}
  values = {}
  for field, (name, _) in SEANET.items():
    value = sides["encoder"][name]
    refuse_unless(path, f"seanet.decoder.{name}", sides["decoder"][name], value)
    values[field] = (f"seanet.{name}", value)
  for name in ("channels", "causal"):
    default = values[name][1] if name == "causal" else None
    refuse_unless(path, f"encodec.{name}", config.get(f"encodec.{name}", default), values[name][1])
  config.check_known("rvq", {*RVQ, *RVQ_TRAINING})
  return build_spec(
    path,
    {
      **values,
      "sample_rate": ("encodec.sample_rate", config.get("encodec.sample_rate")),
      "n_levels": ("rvq.n_q", config.get("rvq.n_q")),
      "n_codes": ("rvq.bins", config.get("rvq.bins")),
    },
  )


def _read_seanet(config: "_Config", side: str) -> dict[str, Any]:
  """Returns the options of the encoder or decoder: shared ones, unless the side has its own."""
  fixed = FIXED | (FIXED_DECODER if side == "decoder" else {})
  known = {name for name, _ in SEANET.values()} | fixed.keys()
  config.check_known("seanet", known | {"encoder", "decoder"})
  config.check_known(f"seanet.{side}", known)

  def find(name: str, default: Any) -> Any:
    return config.get(f"seanet.{side}.{name}", config.get(f"seanet.{name}", default))

  for name, (default, wanted) in fixed.items():
    own = config.get(f"seanet.{side}", {})
    at = f"seanet.{side}.{name}" if isinstance(own, dict) and name in own else f"seanet.{name}"
    refuse_unless(config.path, at, find(name, default), wanted)
  return {name: find(name, default) for name, default in SEANET.values()}


class _Config:
  """A config's text as nested dicts; values that refer to others (`${a.b}`) are followed."""

  def __init__(self, path: Path, text: Any):
    self.path = path
    if not isinstance(text, str):
      raise UserError(
        f"xp.cfg must be the text of a config; got a {type(text).__name__} in {path}."
        " Export the model by audiocraft.utils.export.export_encodec."
      )
    try:
      self._root = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
      line = " ".join(str(error).split())
      raise UserError(
        f"xp.cfg must be plain YAML; got path={path} ({line}). Export the model again."
      ) from error

  def get(self, name: str, default: Any = None) -> Any:
    """Returns the value at a dotted name, or the default if the config does not have it."""
    return self._find(name, default, ())

  def check_known(self, name: str, known: set[str]) -> None:
    """Raises a UserError for an option at a dotted name that is not known."""
    found = self.get(name, {})
    refuse_unless(self.path, f"type of {name}", type(found).__name__, "dict")
    for option in map(str, found):
      if option not in known:
        raise UserError(
          f"codec must have only known options in {name} to become a bundle; got"
          f" {name}.{option}={found.get(option)!r} in {self.path}. Give another codec."
        )

  def _find(self, name: str, default: Any, seen: tuple[str, ...]) -> Any:
    value, at = self._root, ""
    for part in name.split("."):
      if not isinstance(value, dict) or part not in value:
        return default
      at = f"{at}.{part}" if at else part
      value = self._follow(at, value[part], seen)
    return value

  def _follow(self, name: str, value: Any, seen: tuple[str, ...]) -> Any:
    """Returns the value, or the one that it refers to."""
    if not isinstance(value, str) or "${" not in value:
      return value
    reference = _REFERENCE.fullmatch(value.strip())
    found = None
    if reference and name not in seen:
      found = self._find(reference[1], None, (*seen, name))
    if found is None:
      raise UserError(
        f"codec config must refer only to values that it holds; got {name}={value} in {self.path}."
        " Export the model again, its config resolved."
      )
    return found
