# SPDX-License-Identifier: Apache-2.0
"""example: python -m data_prep.fetch --out downloads/slakh2100_flac_redux.tar.gz

Fetches the archive of Slakh2100 (redux split, 104 GB, CC BY 4.0), or that of --url, and checks its
MD5. Broken off or stopped, the same command goes on from where it was. A file that is there already
is only checked.
"""

import argparse
import contextlib
import os
import re
import sys
from pathlib import Path
from typing import Any

import pooch
import requests

from stemgen_jax.errors import UserError, run_cli
from stemgen_jax.shell.flags import build_parser
from stemgen_jax.shell.folders import make_folder
from stemgen_jax.shell.progress import make_bars

# Source: record 4599666 of Zenodo; mirdata's `slakh` loader has the same address and MD5.
SLAKH_URL = "https://zenodo.org/records/4599666/files/slakh2100_flac_redux.tar.gz?download=1"
SLAKH_MD5 = "f4b71b6c45ac9b506f59788456b3f0c4"
ANY = "any"  # an MD5 that is not known
ATTEMPTS = 5  # in a row that bring nothing
TIMEOUT_S = 30.0
BLOCK = 2**20


def fetch(url: str, out: Path, md5: str = ANY) -> None:
  """Fetches a file; what an earlier attempt has brought is not fetched again.

  Args:
    url: where it is.
    out: where it appears, when it is whole and right. What has come so far lies beside it.
    md5: its MD5 in hexadecimal digits, or "any".

  Raises:
    UserError: if it cannot be fetched or has another MD5.
  """
  make_folder(out.parent, "folder of --out")
  part = out.with_name(f".{out.name}.part")

  def download(url: str, path: str, _: object) -> None:
    _resume(url, part)
    Path(path).unlink()
    try:
      os.link(part, path)  # the part stays until the checksum is known to be right
    except OSError:
      part.replace(path)

  downloader: Any = download  # its type in pooch names other arguments than pooch gives
  try:
    pooch.retrieve(url, _known(md5), out.name, out.parent, downloader=downloader)
  except requests.RequestException as error:
    raise UserError(
      f"--url must be in reach; got {url} ({type(error).__name__}). Run the same command to go on,"
      f" or put the file there yourself: {out}."
    ) from error
  except ValueError as error:
    part.unlink(missing_ok=True)
    raise UserError(
      f"what --url gives must have MD5 {md5}; got another from {url}. Fetch it again."
    ) from error
  part.unlink(missing_ok=True)


def check(path: Path, md5: str = ANY) -> None:
  """Raises a UserError unless a file has an MD5."""
  if md5 != ANY and (found := pooch.file_hash(str(path), alg="md5")) != md5:
    raise UserError(
      f"--out must have MD5 {md5}; got {path} with {found}. Remove it and fetch it again, or give"
      " its own as --md5."
    )


def _known(md5: str) -> str | None:
  return None if md5 == ANY else f"md5:{md5}"


def _resume(url: str, part: Path) -> None:
  """Fetches what `part` lacks; tries again as long as something comes.

  Raises:
    requests.RequestException: if nothing comes.
  """
  with make_bars(kept=False) as bars:
    bar, idle = bars.add_task(f"{part.name[1:-5]}, MB", total=None), 0
    while True:
      before = _size(part)
      try:
        for done, total in _stream(url, part):
          bars.update(bar, completed=done // 10**6, total=total and total // 10**6)
        return
      except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
        idle = 0 if _size(part) > before else idle + 1
        if idle == ATTEMPTS:
          raise


def _stream(url: str, part: Path):
  """Appends to `part` what a server sends; yields its size and that of the whole, if it is told."""
  have = _size(part)
  headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
  with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as answer:
    if answer.status_code == requests.codes.requested_range_not_satisfiable:
      return  # all of it is there
    answer.raise_for_status()
    if answer.status_code != requests.codes.partial_content:
      have = 0  # the server knows no ranges
    length = answer.headers.get("Content-Length")
    total = int(length) + have if length else None
    with part.open("ab" if have else "wb") as file:
      for block in answer.iter_content(BLOCK):
        file.write(block)
        have += len(block)
        yield have, total


def _size(path: Path) -> int:
  with contextlib.suppress(FileNotFoundError):
    return path.stat().st_size
  return 0


def parser() -> argparse.ArgumentParser:
  """Returns the command line's parser."""
  parser = build_parser(__doc__)
  add = parser.add_argument
  add("--out", required=True, type=Path, metavar="FILE", help="where the archive is, or will be")
  add("--url", default=SLAKH_URL, help="default: Slakh2100's at Zenodo")
  add("--md5", default=SLAKH_MD5, type=_digest, help=f"default: Slakh2100's; {ANY} checks nothing")
  return parser


def _digest(text: str) -> str:
  if text != ANY and not re.fullmatch(r"[0-9a-f]{32}", text):
    raise argparse.ArgumentTypeError(f"must be 32 hexadecimal digits, or {ANY}; got {text!r}")
  return text


def main(argv: list[str] | None = None) -> None:
  """Runs the command line."""
  arguments = parser().parse_args(argv)
  out, md5 = arguments.out, arguments.md5
  if out.exists():
    check(out, md5)
  else:
    fetch(arguments.url, out, md5)
  told = "MD5 not checked" if md5 == ANY else f"MD5 {md5}"
  print(f"{out}: {out.stat().st_size / 1e9:.3g} GB, {told}")


if __name__ == "__main__":
  sys.exit(run_cli(main))
