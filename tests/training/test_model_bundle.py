# SPDX-License-Identifier: Apache-2.0
import json

import jax
import numpy as np
import pytest
from file_server import HubServer, point_at, serving

from configs import demo
from stemgen_jax import codec
from stemgen_jax.config import MeshConfig
from stemgen_jax.errors import UserError
from stemgen_jax.model import sharding
from stemgen_jax.model.network import build
from stemgen_jax.shell.folders import seal
from stemgen_jax.training.model_bundle import (
  MODEL_FILE,
  SHIPPED,
  WEIGHTS_FILE,
  is_model,
  load_model,
  locate,
  save_model,
)
from stemgen_jax.training.weights import load_average
from stemgen_jax.training.workdir import load_init


@pytest.fixture
def mesh():
  return sharding.build_mesh(MeshConfig(), jax.devices()[:1])


@pytest.fixture
def bundle(tiny_config, tmp_path):
  """A saved model of random weights, its config and its weights."""
  config = tiny_config()
  params = jax.device_get(build(config.model).init(jax.random.key(3)))
  meta = {"dataset": {"path": "/home/someone", "codec_fingerprint": "tiny"}, "step": 7}
  save_model(tmp_path / "model", config, params, meta)
  return tmp_path / "model", config, params


def test_what_is_saved_is_loaded_and_paths_stay_behind(bundle, mesh):
  path, config, params = bundle
  assert is_model(path)
  assert not is_model(path.parent)
  loaded_config, loaded, meta = load_model(path, mesh)
  assert loaded_config.model == config.model
  assert loaded_config.sample == config.sample
  assert (meta["step"], meta["dataset"]) == (7, {"codec_fingerprint": "tiny"})
  assert "someone" not in (path / MODEL_FILE).read_text()
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6), params, loaded)
  assert {leaf.dtype for leaf in jax.tree.leaves(loaded)} == {np.dtype(np.float32)}


def test_it_is_never_overwritten(bundle):
  path, config, params = bundle
  with pytest.raises(UserError, match="must be a new folder"):
    save_model(path, config, params, {"dataset": {}, "step": 0})


def test_damage_is_one_line(bundle, mesh):
  path, *_ = bundle
  whole, told = (path / WEIGHTS_FILE).read_bytes(), (path / MODEL_FILE).read_text()
  (path / WEIGHTS_FILE).write_bytes(whole[:-1])
  with pytest.raises(UserError, match=r"weights.safetensors is not"):
    load_model(path, mesh)
  (path / WEIGHTS_FILE).unlink()
  with pytest.raises(UserError, match="must be a folder of"):
    load_model(path, mesh)
  (path / WEIGHTS_FILE).write_bytes(whole)
  (path / MODEL_FILE).write_text(json.dumps(json.loads(told) | {"format": 9}))
  with pytest.raises(UserError, match="must have format 1; got 9"):
    load_model(path, mesh)
  other = json.loads(told)
  other["config"]["model"]["dim"] = 64
  del other["content_sha256"]
  (path / MODEL_FILE).write_text(json.dumps(other))
  with pytest.raises(UserError, match="was changed"):
    load_model(path, mesh)
  (path / MODEL_FILE).write_text(json.dumps(seal(other)))
  with pytest.raises(UserError, match="must fit its settings"):
    load_model(path, mesh)


def test_the_shipped_model_is_whole_small_and_fits_the_shipped_codec_and_config(mesh):
  _, params, meta = load_model(SHIPPED, mesh)
  assert meta["dataset"]["codec_fingerprint"] == codec.load_bundle(codec.DEMO_BUNDLE).fingerprint
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) < 8e6
  assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 20e6
  for leaf in jax.tree.leaves(params):
    assert np.isfinite(leaf).all()
  load_init("shipped", demo.get_config(), mesh, meta["dataset"]["codec_fingerprint"])
  assert "licence" in meta


def test_a_published_model_is_a_checkpoint_by_its_name(bundle, mesh, monkeypatch, tmp_path):
  pytest.importorskip("huggingface_hub", reason="it fetches models by name")
  path, config, params = bundle
  files = {file.name: file.read_bytes() for file in path.iterdir()} | {"README.md": b"a card"}
  with serving(HubServer("someone/model", files)) as server:
    point_at(monkeypatch, server.url, tmp_path / "cache")
    for name in ("hf://someone/model", "hf://someone/model@v1"):
      found, weights, meta = load_average(name, mesh)
      assert found.model == config.model
      assert meta["checkpoint"] == f"hf://someone/model@{server.commit}"
      for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(weights), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)
    assert not [path for _, path, _ in server.log if path.endswith("README.md")]
    del server.repository[MODEL_FILE]
    server.commit = "1" * 40
    with pytest.raises(UserError, match=r"stemgen_jax.export wrote; got .*holds no model.json"):
      load_average("hf://someone/model", mesh)
  with pytest.raises(UserError, match=r"checkpoint must be a path .*\(model.json, weights.saf"):
    load_average("hf://someone/other", mesh)


def test_checkpoints_and_their_names(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert locate("shipped") == (SHIPPED, "shipped")
  folder, name = locate("runs/mine")
  assert (str(folder), name) == ("runs/mine", str(tmp_path / "runs/mine"))
