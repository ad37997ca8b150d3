# SPDX-License-Identifier: Apache-2.0
"""Folders and small text files, written so that a reader never meets half of one."""

import os
from pathlib import Path

from stemgen_jax.errors import UserError


def make_folder(path: Path, what: str) -> None:
  """Makes a folder and its parents, if they are missing.

  Raises:
    UserError: if it cannot be made or written to; `what` names it, as "--out".
  """
  try:
    path.mkdir(parents=True, exist_ok=True)
    writable = os.access(path, os.W_OK)
  except OSError as error:
    raise UserError(
      f"{what} must be a folder that can be written; got {path} ({error})."
    ) from error
  if not writable:
    raise UserError(f"{what} must be a folder that can be written; got {path}, which cannot.")


def write_text(path: Path, text: str) -> None:
  """Writes a text file by rename: it appears whole or not at all."""
  partial = path.with_name(f".{path.name}.partial")
  partial.write_text(text, encoding="utf-8")
  partial.replace(path)
