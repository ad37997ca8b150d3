# SPDX-License-Identifier: Apache-2.0
"""Codecs by the name of their repository, from a stand-in for the hub on this machine."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="published codecs are PyTorch's")
pytest.importorskip("huggingface_hub", reason="it fetches models by name")

import torch
from file_server import HubServer, point_at, serving
from published_codecs import SMALL, SMALLER, edit, export, huggingface

from data_prep.convert_codec import convert_codec, find_codec
from stemgen_jax.codec.bundle import load_bundle
from stemgen_jax.errors import UserError

pytestmark = pytest.mark.torch
ROOT = Path(__file__).parents[3]
NAME = "someone/encodec_32khz"
CARD = b"---\nlicense: cc-by-nc-4.0\n---\n# A codec\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """The files of a small EnCodec of the 32 kHz kind, as they would be published."""
  folder = tmp_path_factory.mktemp("published")
  model = huggingface(folder, "32khz")
  torch.save(model.state_dict(), folder / "pytorch_model.bin")
  (folder / "README.md").write_bytes(CARD)
  (folder / "notes.txt").write_text("nobody needs this")
  return folder


@pytest.fixture
def server(folder, monkeypatch, tmp_path):
  files = {path.name: path.read_bytes() for path in folder.iterdir()}
  with serving(HubServer(NAME, files)) as server:
    point_at(monkeypatch, server.url, tmp_path / "cache")
    yield server


def fetched(server):
  return {path.rpartition("/")[2] for _, path, _ in server.log if "/resolve/" in path}


def test_the_command_fetches_converts_and_tells_commit_checksum_and_licence(server, tmp_path):
  words = ["-m", "data_prep.convert_codec", "--from", NAME, "--out", str(tmp_path / "b")]
  env = os.environ | {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home")}
  done = subprocess.run(
    [sys.executable, *words], cwd=ROOT, env=env, capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.count("cc-by-nc-4.0") == 1
  spec = load_bundle(tmp_path / "b").spec
  sha = hashlib.sha256(server.repository["model.safetensors"]).hexdigest()
  assert spec.source == (f"{NAME}@{server.commit} model.safetensors (transformers), SHA-256 {sha}")
  assert spec.licence == "cc-by-nc-4.0 (model card beside the weights)"
  assert fetched(server) == {"config.json", "README.md", "model.safetensors"}


def test_the_weights_are_those_of_the_folder_whatever_file_holds_them(server, folder, tmp_path):
  expected = convert_codec(folder, tmp_path / "a").weights
  for name in (f"hf://{NAME}", f"{NAME}@main"):
    weights = convert_codec(name, tmp_path / "b").weights
    assert weights.keys() == expected.keys()
    assert all((weights[key] == expected[key]).all() for key in expected)
    server.commit = "1" * 40  # which holds PyTorch's file alone
    server.repository.pop("model.safetensors", None)
  assert "pytorch_model.bin" in fetched(server)


def test_a_name_is_converted_once_wherever_a_codec_is_asked_for(
  server, monkeypatch, tmp_path, capsys
):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
  found = find_codec(NAME)
  assert load_bundle(found).spec.licence.startswith("cc-by-nc-4.0")
  assert "cc-by-nc-4.0" in capsys.readouterr().err
  before = len(server.log)
  assert find_codec(NAME) == found
  assert len(server.log) == before
  assert capsys.readouterr().err == ""
  assert find_codec(str(tmp_path)) == str(tmp_path)
  (tmp_path / "file").touch()
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
  with pytest.raises(UserError, match="needs a cache folder that can be written"):
    find_codec(NAME)


def test_a_folder_of_that_name_goes_first(server, folder, monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  Path("someone").mkdir()
  Path(NAME).symlink_to(folder)
  assert convert_codec(NAME, tmp_path / "b").spec.source.startswith("model.safetensors (")
  assert not server.log


def test_a_licence_that_the_card_does_not_tell_is_asked_for(server, tmp_path):
  del server.repository["README.md"]
  with pytest.raises(UserError, match="licence of the weights must be given; got --from=someone/"):
    convert_codec(NAME, tmp_path / "b")
  assert convert_codec(NAME, tmp_path / "b", licence="mine").spec.licence == "mine"


def test_audiocrafts_export_and_repositories_without_a_codec(server, tmp_path):
  text = edit(*SMALLER, ("sample_rate: 32000", "sample_rate: 16000"))
  export(tmp_path / "x", SMALL, text)
  for name in ("model.safetensors", "pytorch_model.bin", "config.json"):
    del server.repository[name]
  server.repository["compression_state_dict.bin"] = (tmp_path / "x").read_bytes()
  assert "(audiocraft)" in convert_codec(NAME, tmp_path / "b").spec.source
  server.commit, server.repository["a.th"] = "1" * 40, b"another"
  with pytest.raises(UserError, match=r"one codec; got 2 in someone/encodec_32khz \(a.th, compr"):
    convert_codec(NAME, tmp_path / "c")
  server.commit = "2" * 40
  server.repository = {"config.json": json.dumps({}).encode()}
  with pytest.raises(UserError, match=r"must name a model with weights; got someone/encodec_32khz"):
    convert_codec(NAME, tmp_path / "c")
  assert not (tmp_path / "c").exists()


def test_without_a_connection_one_line_says_what_to_put_where(monkeypatch, tmp_path):
  point_at(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")
  with pytest.raises(UserError, match=r"--from must be a path .*\(config.json, README.md, model.s"):
    convert_codec(NAME, tmp_path / "b")
