# SPDX-License-Identifier: Apache-2.0
"""Work for the engines: an item becomes a file of the folder, and each worker says it was made."""

import os
import uuid
from pathlib import Path

from stemgen_jax.errors import UserError


class Writer:
  def __init__(self, folder: Path):
    (folder / f"made-{uuid.uuid4().hex}").touch()
    self._folder = folder

  def __call__(self, item: str) -> str:
    if item == "die":
      os._exit(9)
    (self._folder / item).write_text(item.upper())
    return item.upper()


def fail_to_make():
  raise UserError("codec must be whole; got half.")
