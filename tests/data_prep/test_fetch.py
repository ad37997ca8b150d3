# SPDX-License-Identifier: Apache-2.0
"""Archives from a server on this machine that breaks off, lies, has no ranges, or is not there."""

import hashlib

import pytest

pytest.importorskip("pooch", reason="it checks archives")

from file_server import FileServer, serving

from data_prep import fetch
from stemgen_jax.errors import UserError

CONTENT = bytes(range(256)) * 64
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


@pytest.fixture
def server():
  with serving(FileServer({"/a.tar.gz": CONTENT})) as server:
    yield server


@pytest.fixture
def out(tmp_path):
  return tmp_path / "downloads/a.tar.gz"


def words(server, out):
  return ["--url", f"{server.url}/a.tar.gz?download=1", "--md5", MD5, "--out", str(out)]


def only(out):
  return [path.name for path in out.parent.iterdir()] == [out.name]


def test_an_archive_is_fetched_once_and_then_only_checked(server, out, capsys):
  fetch.main(words(server, out))
  assert out.read_bytes() == CONTENT
  assert only(out)
  assert MD5 in capsys.readouterr().out
  fetch.main(words(server, out))
  assert len(server.log) == 1


def test_what_breaks_off_goes_on_from_there(server, out, monkeypatch):
  monkeypatch.setattr(fetch, "BLOCK", 1024)
  server.breaks = 3
  fetch.main(words(server, out))
  assert out.read_bytes() == CONTENT
  assert [asked for _, _, asked in server.log] == [
    None,
    "bytes=8192-",
    "bytes=12288-",
    "bytes=14336-",
  ]


def test_what_an_earlier_process_brought_stays(server, out, monkeypatch):
  monkeypatch.setattr(fetch, "BLOCK", 1024)
  monkeypatch.setattr(fetch, "ATTEMPTS", 1)
  files, server.files = server.files, {}
  with pytest.raises(UserError, match=r"--url must be in reach; got http.*HTTPError.*downloads/a"):
    fetch.main(words(server, out))
  server.files, server.breaks = files, 10**6
  with monkeypatch.context() as patch:
    patch.setattr(fetch, "_size", lambda path: 0)  # so that it gives up at once
    with pytest.raises(UserError, match="ChunkedEncodingError"):
      fetch.main(words(server, out))
  assert not out.exists()
  server.breaks, server.log = 0, []
  fetch.main(words(server, out))
  assert out.read_bytes() == CONTENT
  assert server.log[0][2] == "bytes=8192-"
  assert only(out)


def test_a_part_that_is_whole_is_checked_and_taken(server, out):
  out.parent.mkdir()
  out.with_name(f".{out.name}.part").write_bytes(CONTENT)
  fetch.main(words(server, out))
  assert out.read_bytes() == CONTENT
  assert only(out)


def test_a_server_without_ranges_sends_all_of_it_again(server, out):
  server.ranges = False
  out.parent.mkdir()
  out.with_name(f".{out.name}.part").write_bytes(b"junk")
  fetch.main(words(server, out))
  assert out.read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing(server, out):
  server.damaged = True
  with pytest.raises(UserError, match=f"what --url gives must have MD5 {MD5}; got another from"):
    fetch.main(words(server, out))
  assert not list(out.parent.iterdir())
  server.damaged = False
  fetch.main(words(server, out))
  assert out.read_bytes() == CONTENT


def test_a_file_that_is_there_is_never_replaced(server, out):
  out.parent.mkdir()
  out.write_bytes(b"mine")
  with pytest.raises(UserError, match=r"must have MD5 .*; got .*a.tar.gz with .* Remove it"):
    fetch.main(words(server, out))
  assert out.read_bytes() == b"mine"
  assert not server.log
  fetch.main(["--out", str(out), "--md5", "any"])


def test_what_is_missing_without_a_connection_is_one_line(out):
  with pytest.raises(UserError, match=r"--url must be in reach; .*put the file there yourself"):
    fetch.fetch("http://127.0.0.1:9/a.tar.gz", out)
  with pytest.raises(UserError, match="32 hexadecimal digits, or any; got 'abc'"):
    fetch.main(["--out", str(out), "--md5", "abc"])
  assert not list(out.parent.iterdir())
