# SPDX-License-Identifier: Apache-2.0
"""Folders and small text files, written so that a reader never meets half of one."""

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from stemgen_jax.errors import FULL, UserError

_GLOB = re.compile(r"[\[\]*?]")  # signs by which libraries match names
_SEAL = "content_sha256"
_ADDRESS = re.compile(r"([a-z0-9]{2,}):/+")  # a Path has lost one slash of gs://, two of file:///


def make_folder(path: Path, what: str) -> None:
  """Makes a folder and its parents, if they are missing.

  Raises:
    UserError: if it cannot be made or written to, or is a bucket's address; `what` names it, as
      "--out".
  """
  refuse_address(path, what)
  try:
    path.mkdir(parents=True, exist_ok=True)
    writable = os.access(path, os.W_OK)
  except OSError as error:
    raise UserError(
      f"{what} must be a folder that can be written; got {path} ({error.strerror}). Choose another."
    ) from error
  if not writable:
    raise UserError(f"{what} must be a folder that can be written; got {path}, which cannot.")


def refuse_address(path: str | os.PathLike, what: str) -> None:
  """Raises a UserError for the address of a bucket or a server: it is no path of this machine."""
  if scheme := _ADDRESS.match(os.fspath(path)):
    slashes = "///" if scheme[1] == "file" else "//"
    whole = f"{scheme[1]}:{slashes}{os.fspath(path)[scheme.end() :]}"
    raise UserError(
      f"{what} must be a path of this machine; got {whole}, an address. Mount it, as gcsfuse does a"
      " bucket, or fetch it, and give the path there."
    )


def cache_folder(name: str) -> Path | None:
  """Returns a folder of this project's in the user's cache, made if it is missing.

  That is XDG_CACHE_HOME, or `~/.cache`. None where there is no such place: no home, or one that
  cannot be written.
  """
  try:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "stemgen_jax" / name
    folder.mkdir(parents=True, exist_ok=True)
  except (OSError, RuntimeError):  # a RuntimeError where there is no home
    return None
  return folder if os.access(folder, os.W_OK) else None


def keep_what_is_read(read: Mapping[str, Path], written: Iterable[Path]) -> None:
  """Refuses to write, or to remove, what a command reads: by any name, through any link.

  Args:
    read: flag -> the file that it names.
    written: the files that the command would write or remove.

  Raises:
    UserError: if one of them is among those read.
  """
  places = {os.path.realpath(path): path for path in written}
  inodes = {
    (found.st_dev, found.st_ino): path for path in places.values() if (found := _stat(path))
  }
  for flag, path in read.items():
    found = _stat(path)
    hit = places.get(os.path.realpath(path)) or (found and inodes.get((found.st_dev, found.st_ino)))
    if hit:
      raise UserError(
        f"{flag} must not be a file that this command writes; got {path}, which is {hit}. Choose"
        " another place for what is written."
      )


def _stat(path: Path) -> os.stat_result | None:
  try:
    return path.stat()
  except OSError:
    return None


def refuse_patterns(path: Path, what: str) -> None:
  """Raises a UserError if a path, or a folder above it, cannot be that of checkpoints.

  The checkpoint library looks its files up by patterns: where the path has signs of these, it finds
  none, and says nothing. It follows links first.
  """
  refuse_bytes(path, what)
  for whole in (os.path.abspath(path), os.path.realpath(path)):
    if signs := sorted(set(_GLOB.findall(whole))):
      raise UserError(
        f"{what} must have no {' or '.join(signs)} in its path, which the checkpoint library cannot"
        f" take; got {whole}. Choose or rename the folder."
      )


def refuse_bytes(path: str | os.PathLike, what: str) -> None:
  """Raises a UserError for an address, or a path that is no text, as libraries in C++ want it."""
  refuse_address(path, what)
  if os.path.realpath(path) != spell(os.path.realpath(path)):
    raise UserError(
      f"{what} must have a path whose letters are UTF-8; got {os.path.realpath(path)}. Rename the"
      " folder, or set LC_ALL=C.UTF-8."
    )


def spell(name: str) -> str:
  """Returns a name as text: bytes of it that are not UTF-8 become backslashes and digits."""
  try:
    own = name.encode("utf-8", "surrogateescape")
  except UnicodeEncodeError:  # no file's name, but JSON may hold such
    own = name.encode("utf-8", "surrogatepass")
  return own.decode("utf-8", "backslashreplace")


def name_file(text: str) -> str:
  """Returns the name, for this system, of a file that a text in UTF-8 names.

  Where the locale is not UTF-8 it is another string, of the same bytes. What no bytes can stand
  for stays as it is.
  """
  try:
    return os.fsdecode(text.encode("utf-8", "surrogateescape"))
  except UnicodeEncodeError:
    return text


def seal(content: dict[str, Any]) -> dict[str, Any]:
  """Returns what is to be written as JSON, with a checksum of it as its last entry."""
  plain = json.loads(json.dumps(content))
  return {**plain, _SEAL: _sum_up(plain)}


def is_sealed(content: dict[str, Any], *, always: bool = False) -> bool:
  """Returns whether what was read is what `seal` gave, or has no checksum and need not `always`."""
  rest = {name: value for name, value in content.items() if name != _SEAL}
  found = content.get(_SEAL)
  return found == _sum_up(rest) if always else found in (None, _sum_up(rest))


def _sum_up(content: dict[str, Any]) -> str:
  return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def is_file_name(name: str) -> bool:
  """Returns whether a file or folder can have this name."""
  try:
    return 0 < len(os.fsencode(name)) < 256 and name not in (".", "..") and not {*"/\0"} & {*name}
  except UnicodeEncodeError:
    return False


def read_json(path: Path) -> Any:
  """Returns what an earlier start of a command noted in a file; what it is checked against.

  Raises:
    UserError: if that cannot be read, as after a crash of the machine.
  """
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError) as error:
    raise UserError(
      f"{path} must be as this program wrote it; got {error}. Remove it to begin anew."
    ) from error


def write_text(path: Path, text: str) -> None:
  """Writes a text file that appears whole or not at all; in UTF-8, as `spell` has it."""
  with appearing(path) as partial:
    partial.write_text(spell(text), encoding="utf-8")


@contextlib.contextmanager
def appearing(path: Path, partial: Path | None = None) -> Iterator[Path]:
  """Yields a hidden path; the file or folder that is made there appears at `path`, whole.

  It takes the place of what is at `path`. Where making it fails, `path` stays as it was and nothing
  of the attempt is left; what a killed process left is removed at the next attempt. The error of a
  full disk that names no file is made to name `path`. A file never takes the place of a folder.

  Args:
    path: where it appears.
    partial: where it is made meanwhile, on the same file system; a hidden name beside `path`, with
      the same suffix, if not given.

  Raises:
    UserError: if a file was made and `path` is a folder, or it is a device or a pipe.
  """
  _refuse_special(path)
  partial = partial or path.with_name(f".{path.stem}.partial{path.suffix}")
  replaced = path.with_name(f".{path.name}.replaced")
  _remove(partial)
  _put_back(replaced, path)
  try:
    yield partial
    if path.is_dir() and partial.is_file():
      refuse_folder(path, "what is written")
    if path.is_dir():  # a folder cannot take the place of another
      path.replace(replaced)
    partial.replace(path)
    _remove(replaced)
  except BaseException as error:
    if isinstance(error, OSError) and error.errno in FULL and error.filename is None:
      error.filename = os.fspath(path)  # which a write to an open file does not know
    _remove(partial)
    _put_back(replaced, path)
    raise


def refuse_folder(path: Path, what: str) -> None:
  """Raises a UserError if there is a folder where a file is to be written; `what` names it."""
  if not path.name or path.is_dir():
    raise UserError(f"{what} must be a file's name; got {path}, a folder. Choose another.")


def _refuse_special(path: Path) -> None:
  if not path.name:
    refuse_folder(path, "what is written")
  if path.exists() and not (path.is_file() or path.is_dir()):
    raise UserError(f"what is written must be a file; got {path}, a device or a pipe.")


def _put_back(replaced: Path, path: Path) -> None:
  """Undoes half a replacement: what stood at `path` returns there, unless the new one came."""
  if replaced.exists() and not path.exists():
    replaced.replace(path)
  _remove(replaced)


def _remove(path: Path) -> None:
  if path.is_dir():
    shutil.rmtree(path, ignore_errors=True)
  else:
    path.unlink(missing_ok=True)


def claim_folder(
  out: Path, file: str, plan: dict[str, Any], what: str, flag: str = "--out"
) -> None:
  """Makes the folder of `flag`, and notes in `file` what will be in it: a `what`, made by `plan`.

  A folder in which nothing else lies yet is anyone's.

  Raises:
    UserError: if it holds a `what` that was asked for otherwise.
  """
  make_folder(out, flag)
  plan = json.loads(json.dumps(plan))  # tuples are lists there
  if (out / file).is_file() and len(list(out.iterdir())) > 1:
    before = read_json(out / file)
    before = before if isinstance(before, dict) else {}
    differ = sorted(name for name in plan if before.get(name) != plan[name])
    if differ:
      told = ", ".join(_tell(name, before.get(name), plan[name]) for name in differ)
      raise UserError(
        f"{flag} must be a new folder or hold the same {what}; got {out}, made with other {told}."
        f" Choose another {flag}."
      )
  write_text(out / file, json.dumps(plan, indent=1) + "\n")


def _tell(name: str, before: Any, now: Any) -> str:
  if isinstance(before, dict | list) or isinstance(now, dict | list):
    return name  # too long to show
  return f"{name} ({before}, not {now})"
