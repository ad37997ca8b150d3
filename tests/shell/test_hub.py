# SPDX-License-Identifier: Apache-2.0
"""Models by name, from a stand-in for the hub on this machine."""

import sys

import pytest

pytest.importorskip("huggingface_hub", reason="it fetches models by name")

from file_server import HubServer, point_at, serving

from stemgen_jax.errors import UserError
from stemgen_jax.shell import hub

NAME = "someone/some.model"
FILES = {
  "README.md": b"---\nlicense: mit\n---\n",
  "model.json": b'{"a": 1}',
  "weights.safetensors": bytes(range(256)) * 40,
  "other.bin": b"0" * 5000,
}
WANTED = ("model.json", "weights.safetensors")


@pytest.fixture
def server(monkeypatch, tmp_path):
  with serving(HubServer(NAME, FILES)) as server:
    point_at(monkeypatch, server.url, tmp_path / "cache")
    yield server


def refused(name, match):
  with pytest.raises(UserError, match=match) as told:
    hub.fetch(name, WANTED, "--checkpoint")
  assert "\n" not in str(told.value)


def read(snapshot):
  return {path.name: path.read_bytes() for path in snapshot.folder.iterdir()}


@pytest.mark.parametrize(
  "name", [NAME, f"hf://{NAME}", f"hf://{NAME}@v1", f"{NAME}@" + HubServer.COMMIT]
)
def test_only_what_is_wanted_is_fetched_and_its_commit_told(server, name):
  snapshot = hub.fetch(name, WANTED, "--checkpoint")
  assert (snapshot.name, snapshot.commit) == (NAME, server.commit)
  assert read(snapshot) == {file: FILES[file] for file in WANTED}


def test_patterns_and_the_cache(server):
  assert set(read(hub.fetch(NAME, ("*.bin",), "--from"))) == {"other.bin"}
  asked = len(server.log)
  assert set(read(hub.fetch(NAME, ("*.bin",), "--from"))) == {"other.bin"}
  assert not [path for _, path, _ in server.log[asked:] if "resolve" in path or "large" in path]


def test_a_break_is_mended_from_where_it_was(server, monkeypatch):
  monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
  server.breaks = 2
  assert read(hub.fetch(NAME, WANTED, "--checkpoint")) == {file: FILES[file] for file in WANTED}
  ranges = [asked for method, path, asked in server.log if "large" in path and method == "GET"]
  assert ranges == [None, "bytes=5000-", "bytes=7000-"]


def test_a_damaged_file_is_named_and_fetched_anew_the_next_time(server):
  server.damaged = True
  refused(NAME, r"weights.safetensors of someone/some.model@c0ffee.* must have SHA-256 \w+; got")
  server.damaged = False
  assert (
    read(hub.fetch(NAME, WANTED, "--checkpoint"))["weights.safetensors"]
    == FILES["weights.safetensors"]
  )


def test_without_a_connection_the_cache_serves_and_else_one_line_says_what_to_do(
  server, monkeypatch, tmp_path
):
  first = hub.fetch(NAME, WANTED, "--checkpoint")
  point_at(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")  # nobody is there
  assert hub.fetch(NAME, WANTED, "--checkpoint") == first
  point_at(monkeypatch, "http://127.0.0.1:9", tmp_path / "empty")
  refused(
    NAME,
    "must be a path that exists here, or name a model .* from http://127.0.0.1:9; got someone/"
    r".* put its files \(model.json, weights.safetensors\) into a folder",
  )


@pytest.mark.parametrize(
  ("name", "match"),
  [
    ("hf://someone/else", "got hf://someone/else .RepositoryNotFoundError"),
    (f"hf://{NAME}@v9", "RevisionNotFoundError"),
    ("hf://some--one/--", "got hf://some--one/--"),
    ("hf://alone", "must name a model as hf://OWNER/NAME .*; got hf://alone"),
    ("hf://a/b/c", "must name a model as"),
    ("hf://a/b@", "must name a model as"),
  ],
)
def test_names_that_are_none(server, name, match):
  refused(name, match)


def test_what_has_the_form_of_a_name():
  assert all(map(hub.is_name, ("a/b", "hf://a/b", "a/b@main", "hf://a-1/b.c@refs/pr/1")))
  assert not any(map(hub.is_name, ("a", "/a/b", "a/b/c", "a/b c", "s3://a/b", "")))


def test_the_library_is_asked_for_only_where_a_name_is_given(monkeypatch):
  monkeypatch.setitem(sys.modules, "huggingface_hub", None)
  refused(NAME, "huggingface_hub must be installed .* pip install huggingface_hub")
