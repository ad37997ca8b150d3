# SPDX-License-Identifier: Apache-2.0
"""The settings of a run as JSON, as checkpoints and models carry them, and back."""

import dataclasses
import types
import typing
from typing import Any

from stemgen_jax.config import Config, SampleConfig
from stemgen_jax.errors import UserError

_OLD_NAMES = {"w_conf": "w_c", "w_causal": "w_s", "w_noise": "w_r"}  # in old checkpoints


def to_dict(config: Config) -> dict[str, Any]:
  """Returns the settings as nested dicts of JSON types."""
  return dataclasses.asdict(config)


def from_dict(values: dict[str, Any], kind: type = Config) -> Any:
  """Returns the dataclass that `to_dict` flattened (lists become tuples again).

  Raises:
    UserError: if a field is unknown or missing, as in a checkpoint of another version.
  """
  hints = typing.get_type_hints(kind)
  renamed = _OLD_NAMES if kind is SampleConfig else {}
  values = {renamed.get(name, name): value for name, value in values.items()}
  unknown = sorted(set(values) - set(hints))
  if unknown:
    raise UserError(
      f"{kind.__name__} must hold known fields only; got {unknown}."
      " Use the version of stemgen_jax that wrote it."
    )
  fields = {name: _revive(value, hints[name]) for name, value in values.items()}
  try:
    return kind(**fields)
  except TypeError as error:
    raise UserError(f"{kind.__name__} must be complete; got {error}.") from error


def _revive(value: Any, hint: Any) -> Any:
  if isinstance(hint, type) and dataclasses.is_dataclass(hint):
    return from_dict(value, hint)
  if isinstance(hint, types.GenericAlias):
    if hint.__origin__ is tuple:
      return tuple(value)
    if hint.__origin__ is dict:
      return {name: _revive(item, hint.__args__[1]) for name, item in value.items()}
  return value
