# SPDX-License-Identifier: Apache-2.0
"""A codec as its publisher stored it: reads its files, checks its config and tensors.

Files and configs come from strangers: nothing of them is run, and every value is checked. Knows no
publisher's layout.
"""

import dataclasses
import hashlib
import math
import pickle
import re
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from stemgen_jax.codec.architecture import CODEBOOK, CodecSpec, tensor_shapes
from stemgen_jax.errors import UserError

MAY_BE_ZERO = ("n_residual_layers", "lstm", "overlap")
TRAINING_ONLY = ("inited", "cluster_size", "embed_avg")  # buffers beside a codebook
DAMAGE = (  # what torch.load raises for a file that was cut or overwritten
  ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError,
  RuntimeError, TypeError, ValueError, struct.error,
)  # fmt: skip
NEW_NAMES = {  # torch's second spelling of weight norm
  "weight_g": "parametrizations.weight.original0",
  "weight_v": "parametrizations.weight.original1",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
  """A published codec, not yet checked against its architecture."""

  path: Path  # the file of weights, or the index of several
  format: str
  sha256: str
  spec: CodecSpec  # licence and source are empty
  tensors: dict[str, Any]
  rename: Callable[[str], str] = lambda name: name  # a bundle's tensor name to this format's
  advice: str = "Download it again."  # when tensors do not fit


def read_tensors(path: Path, prefix: str = "") -> Any:
  """Returns what a file of tensors holds: a dict of them, or what else was pickled beside them.

  Args:
    path: a PyTorch or safetensors file.
    prefix: of a safetensors file, only tensors whose names begin so.

  Raises:
    UserError: if it is neither, is damaged, or asks for code to be run.
  """
  with path.open("rb") as file:
    start = file.read(9)
  if start.startswith((b"PK\3\4", b"\x80")):
    return _read_torch(path, whole=start.startswith(b"\x80"))
  if start[8:] != b"{":
    raise UserError(
      f"codec weights must be a PyTorch or safetensors file; got path={path}, which begins with"
      f" {start!r}. Download it again."
    )
  try:
    with safe_open(path, "pt") as stored:
      names = list(stored.keys())
      return {name: stored.get_tensor(name) for name in names if name.startswith(prefix)}
  except SafetensorError as error:
    raise UserError(
      f"codec weights must be a whole safetensors file; got path={path} ({error})."
      " Download it again."
    ) from error


def _read_torch(path: Path, whole: bool) -> Any:
  try:
    return torch.load(path, map_location="cpu", weights_only=True, mmap=not whole)
  except pickle.UnpicklingError as error:
    wanted = re.search(r"GLOBAL (\S+)", str(error))
    reason = f"asks for {wanted[1]}" if wanted else str(error).splitlines()[0]
    raise UserError(
      f"codec weights must hold tensors, numbers and text only, since other objects can run code;"
      f" got path={path}, which {reason}. Give an exported file: audiocraft's training checkpoints"
      " become one by audiocraft.utils.export.export_encodec."
    ) from error
  except DAMAGE as error:
    raise UserError(
      f"codec weights must be a whole PyTorch file; got path={path} ({type(error).__name__}:"
      f" {str(error).partition('. ')[0]}). Download it again."
    ) from error


def hash_files(paths: Iterable[Path]) -> str:
  """Returns the SHA-256 of a file, or of several one after the other."""
  digest = hashlib.sha256()
  for path in paths:
    with path.open("rb") as file:
      while block := file.read(2**20):
        digest.update(block)
  return digest.hexdigest()


def build_spec(path: Path, values: dict[str, tuple[str, Any]]) -> CodecSpec:
  """Returns the description that a config gives.

  Args:
    path: of the config, for messages.
    values: for each field of CodecSpec, the config's name of it and its value.

  Raises:
    UserError: if a value has a wrong type or breaks one of CodecSpec's rules.
  """
  kinds = {field.name: field.type for field in dataclasses.fields(CodecSpec)}
  fields = {}
  for field, (name, value) in values.items():
    rule = _broken_rule(field, kinds[field], value)
    if rule:
      raise UserError(
        f"codec config must have {rule} as {name}; got {name}={value!r} in {path}."
        " Give the config that the weights were published with."
      )
    fields[field] = tuple(value) if field == "ratios" else value
  spec = CodecSpec(**fields, licence="", source="")
  if problems := spec.problems():
    raise UserError(
      f"codec config must describe a codec that a bundle can hold; {path} does not:"
      f" {'; '.join(problems)}. Give another codec."
    )
  return spec


def _broken_rule(field: str, kind: Any, value: Any) -> str | None:
  """Returns what the value ought to be, if it is not."""
  least = 0 if field in MAY_BE_ZERO else 1
  if kind is int:
    return None if type(value) is int and value >= least else f"a whole number from {least}"
  if kind is bool:
    return None if type(value) is bool else "true or false"
  if kind is str:
    return None if type(value) is str else "text"
  if field == "ratios":
    whole = type(value) in (list, tuple) and all(type(v) is int and v > 0 for v in value)
    return None if whole and value else "a list of whole numbers"
  if value is None:
    return None if field == "segment_s" else "a number"
  return None if type(value) in (int, float) and math.isfinite(value) else "a number"


def refuse_unless(path: Path, name: str, got: Any, wanted: Any) -> None:
  """Raises a UserError that names the setting, unless it is what every bundle implies."""
  if got != wanted or isinstance(got, bool) != isinstance(wanted, bool):
    raise UserError(
      f"codec must have {name}={wanted!r} to become a bundle; got {name}={got!r} in {path}."
      " Give another codec: this one's architecture cannot be expressed."
    )


def take_weights(source: Source, levels: int) -> dict[str, np.ndarray]:
  """Returns the float32 tensors of a bundle with the first `levels` levels.

  Raises:
    UserError: if a tensor is missing, unknown, misshapen or not finite; it names the source's.
  """
  expected = tensor_shapes(source.spec)
  names = {name: _stored_name(name, source) for name in expected}
  _check_names(source, set(names.values()))
  weights = {}
  for name, shape in expected.items():
    stored = source.tensors[names[name]]
    if not isinstance(stored, torch.Tensor) or tuple(stored.shape) != shape:
      got = tuple(stored.shape) if isinstance(stored, torch.Tensor) else type(stored).__name__
      raise UserError(
        f"codec weights must fit the architecture; got {names[name]} of shape {got} in"
        f" {source.path}, not {shape}. {source.advice}"
      )
    weights[name] = stored.detach().to(torch.float32).numpy()
    if not np.isfinite(weights[name]).all():
      raise UserError(
        f"codec weights must be finite; got NaN or infinity in {names[name]} of {source.path}."
        f" {source.advice}"
      )
  kept = tensor_shapes(dataclasses.replace(source.spec, n_levels=levels))
  return {name: weights[name] for name in kept}


def _stored_name(name: str, source: Source) -> str:
  renamed = source.rename(name)
  head, _, last = renamed.rpartition(".")
  second = f"{head}.{NEW_NAMES.get(last, last)}"
  return second if second in source.tensors else renamed


def _check_names(source: Source, used: set[str]) -> None:
  if missing := sorted(used - source.tensors.keys()):
    raise UserError(
      f"codec weights must hold every tensor of the architecture; got path={source.path} without"
      f" {_list(missing)}. {source.advice}"
    )
  codebooks = (source.rename(CODEBOOK.format(i)) for i in range(source.spec.n_levels))
  beside = {f"{name.rpartition('.')[0]}.{last}" for name in codebooks for last in TRAINING_ONLY}
  if unknown := sorted(map(str, source.tensors.keys() - used - beside)):
    raise UserError(
      f"codec weights must hold only tensors of the architecture; got path={source.path} with"
      f" {_list(unknown)}. {source.advice}"
    )


def _list(names: list[str]) -> str:
  return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")
