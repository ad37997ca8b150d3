# SPDX-License-Identifier: Apache-2.0
"""Files of a Hugging Face repository by its name, through `huggingface_hub` and its cache.

The library is needed only when a name is given, and imported only then.
"""

import dataclasses
import hashlib
import importlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from stemgen_jax.errors import UserError

SCHEME = "hf://"
_NAME = re.compile(r"(?:hf://)?([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Snapshot:
  """Some files of a repository as they were at one commit."""

  name: str  # OWNER/NAME
  commit: str  # its hash
  folder: Path  # in the cache; to be read only


def is_name(text: str) -> bool:
  """Returns whether a text has the form OWNER/NAME, OWNER/NAME@REVISION, or hf:// and such."""
  return _NAME.fullmatch(text) is not None


def fetch(name: str, files: Sequence[str], flag: str) -> Snapshot:
  """Returns the newest files of a repository, or those of a revision, fetched if need be.

  Without a connection they are those that were fetched last.

  Args:
    name: OWNER/NAME, with @REVISION (a branch, a tag or a commit) if another than main is meant;
      hf:// may stand before it.
    files: patterns of the files that are wanted, as `model.safetensors` or `*.th`.
    flag: of the command line that the name was given by, for messages.

  Raises:
    UserError: if huggingface_hub is missing, the name has another form, the files can neither be
      fetched nor are in the cache, or one of them is damaged.
  """
  parts = _NAME.fullmatch(name)
  if parts is None:
    raise UserError(
      f"{flag} must name a model as {SCHEME}OWNER/NAME or {SCHEME}OWNER/NAME@REVISION; got"
      f" {name}. Give it so, or the folder of one."
    )
  try:
    from huggingface_hub import snapshot_download

    http_error = importlib.import_module("huggingface_hub.errors").HTTPError  # its HTTP library's
  except ImportError as error:
    raise UserError(
      f"huggingface_hub must be installed to fetch a model by its name; got {flag}={name}."
      " pip install huggingface_hub, or download the files and give their folder."
    ) from error
  try:
    folder = snapshot_download(parts[1], revision=parts[2], allow_patterns=list(files))
  except (OSError, ValueError, http_error) as error:
    where = os.environ.get("HF_ENDPOINT", "huggingface.co")
    raise UserError(
      f"{flag} must be a path that exists here, or name a model that can be fetched from {where};"
      f" got {name} ({type(error).__name__}: {' '.join(str(error).split())[:160]}). Check the name"
      f" and the connection, or put its files ({', '.join(files)}) into a folder and give that."
    ) from error
  snapshot = Snapshot(name=parts[1], commit=Path(folder).name, folder=Path(folder))
  for file in snapshot.folder.rglob("*"):
    _check(file, snapshot)
  return snapshot


def _check(file: Path, snapshot: Snapshot) -> None:
  """Raises a UserError if a file has another SHA-256 than its repository says.

  Of a large file the repository says it, and the cache stores the file under that name. A damaged
  one is removed, so that the next attempt fetches it anew.
  """
  stored = file.resolve()
  if not _SHA256.fullmatch(stored.name):
    return
  with stored.open("rb") as content:
    found = hashlib.file_digest(content, "sha256").hexdigest()
  if found != stored.name:
    stored.unlink()
    file.unlink()
    raise UserError(
      f"{file.name} of {snapshot.name}@{snapshot.commit} must have SHA-256 {stored.name}; got"
      f" {found}. It has been removed: run the command again to fetch it anew."
    )
