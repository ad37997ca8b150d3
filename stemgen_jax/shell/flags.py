# SPDX-License-Identifier: Apache-2.0
"""Reading a run's config from the command line: a file, and `--config.field=value` overrides."""

import argparse
import sys
from pathlib import Path
from typing import Any, NoReturn

from absl import flags
from ml_collections import config_flags

from stemgen_jax.errors import UserError
from stemgen_jax.shell import hub
from stemgen_jax.shell.folders import refuse_address


def parse_config(parser: argparse.ArgumentParser, kind: type, argv: list[str] | None = None) -> Any:
  """Returns the parsed arguments, with `config` the dataclass that the file and overrides give.

  Args:
    parser: of the command's other flags; `--config` is added here.
    kind: the dataclass the file's `get_config()` must return.
    argv: the command line without the program's name; None takes it from the process.

  Raises:
    UserError: if the file cannot be read, an override names no field or has a wrong type, or a
      flag is unknown.
  """
  parser.add_argument("--config", required=True, metavar="FILE", help="a file of configs/")
  arguments, rest = parser.parse_known_args(sys.argv[1:] if argv is None else argv)
  stray = [word for word in rest if not (word.startswith("--config.") and "=" in word)]
  if stray:
    raise UserError(
      f"flags must be known, and settings given as --config.field=value; got {' '.join(stray)}."
      " See --help."
    )
  if not Path(arguments.config.partition(":")[0]).is_file():
    raise UserError(f"--config must be a file of configs/; got {arguments.config}, none.")
  values = flags.FlagValues()
  config_flags.DEFINE_config_file("config", lock_config=True, flag_values=values)
  words = ["", f"--config={arguments.config}", *rest]
  process_words, sys.argv = sys.argv, words  # ml_collections looks there for overrides
  try:
    values(words)
    config = values.config
    hasattr(config, "name")  # a file that failed to load raises its OSError at the first access
  except (
    flags.Error,
    ArithmeticError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
  ) as error:
    raise UserError(
      f"config must load and its overrides name its fields; got {type(error).__name__}:"
      f" {_last_line(error)} (--config={arguments.config} {' '.join(rest)})."
      " Check the file and the field names."
    ) from error
  finally:
    sys.argv = process_words
  if not isinstance(config, kind):
    raise UserError(
      f"get_config() of {arguments.config} must return a {kind.__name__}; got"
      f" {type(config).__name__}. Choose a config file made for this command."
    )
  arguments.config = config
  return arguments


def _last_line(error: Exception) -> str:
  return str(error).strip().splitlines()[-1] if str(error).strip() else ""


_MEANT = (hub.SCHEME, "https://", "http://")  # of a flag that takes text, as a licence


class Parser(argparse.ArgumentParser):
  """A parser whose complaints are UserErrors: one line, exit code 2."""

  def parse_known_args(self, *args: Any, **named: Any) -> Any:
    """Returns the flags' values and what is none; an address where a path is meant is refused."""
    found, rest = super().parse_known_args(*args, **named)
    for action in self._actions:
      values = getattr(found, action.dest, None)
      for value in values if isinstance(values, list) else [values]:
        meant = isinstance(value, str) and value.startswith(_MEANT)
        if isinstance(value, str | Path) and not meant:
          refuse_address(value, max(action.option_strings, key=len, default=action.dest))
    return found, rest

  def error(self, message: str) -> NoReturn:
    """Raises what argparse would print."""
    raise UserError(f"command line must be understood; got: {message}. See --help.")


def build_parser(doc: str | None) -> argparse.ArgumentParser:
  """Returns a parser whose help is the module's docstring, which opens with an example."""
  spec = getattr(sys.modules["__main__"], "__spec__", None)
  module = spec.name.removesuffix(".__main__") if spec else None
  return Parser(
    prog=f"python -m {module}" if module else None,
    description=doc,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
