# SPDX-License-Identifier: Apache-2.0
"""Model cards: what they tell, where it is from, and what they refuse."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import yaml

from stemgen_jax import export
from stemgen_jax.card import draw_card
from stemgen_jax.codec.architecture import CodecSpec, tensor_shapes
from stemgen_jax.codec.bundle import load_bundle, save_bundle
from stemgen_jax.config import MeshConfig
from stemgen_jax.errors import UserError
from stemgen_jax.model import sharding
from stemgen_jax.training.weights import load_average

TOLD = ("--licence", "CC BY 4.0", "--about", "arranged <chorales> & more")


@pytest.fixture(scope="module")
def shipped():
  """Config, weights and facts of the model in the package."""
  return load_average("shipped", sharding.build_mesh(MeshConfig(), jax.devices()[:1]))


@pytest.fixture
def report(shipped, tmp_path):
  """A report of the shipped model."""
  meta = shipped[2]
  model = {"step": meta["step"], "codec": meta["dataset"]["codec_fingerprint"]}
  plan = {"model": model, "examples": 48, "split": "test", "seed": 3}
  folder = tmp_path / "report"
  folder.mkdir()
  (folder / "report.json").write_text(json.dumps({"plan": plan}))
  (folder / "table.md").write_text("| metric | model |\n|---|---|\n| FAD | 3.1 (2.9, 3.3) |\n")
  return folder


def export_shipped(tmp_path, *words):
  export.main(["--checkpoint", "shipped", "--out", str(tmp_path / "model"), *map(str, words)])
  text = (tmp_path / "model/README.md").read_text()
  _, head, body = text.split("---\n", 2)
  return yaml.safe_load(head), body


def test_the_command_writes_a_card_with_the_scores(shipped, tmp_path, report):
  size = sum(leaf.size for leaf in jax.tree.leaves(shipped[1]))
  words = ("--card", "someone/my.model", "--report", report / "report.json")
  head, body = export_shipped(tmp_path, *TOLD, *words)
  assert head["license"] == "cc-by-4.0"
  assert head["pipeline_tag"] == "audio-to-audio"
  assert {"music", "jax"} <= set(head["tags"])
  for told in (
    "# my.model\n",
    "arranged <chorales> & more",
    "| licence of the weights | CC BY 4.0 |",
    f"| parameters | {size:,}: 6 layers, width 256",
    "trained by data_prep.train_codec; licence A",
    "16000 Hz, mono; 4 levels of 1024 codes, 50 frames a second",
    "| window | 10 s |",
    "--checkpoint hf://someone/my.model --context",
    "| FAD | 3.1 (2.9, 3.3) |",
    "48 windows of the songs of the split `test`",
  ):
    assert told in body, told
  assert "--codec" not in body  # it is the demo's, which sample takes by itself
  assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
    "README.md",
    "model.json",
    "weights.safetensors",
  ]


def test_a_card_without_scores_says_so_and_other_licences_have_their_name(tmp_path):
  head, body = export_shipped(tmp_path, "--licence", "My own: v2!", "--about", "songs", "--card")
  assert (head["license"], head["license_name"]) == ("other", "my-own-v2")
  assert "hf://OWNER/NAME " in body
  assert "None have been measured" in body


@pytest.mark.parametrize(
  ("source", "told"),
  [
    (
      f"someone/encodec@{'a1' * 20} model.safetensors (transformers), SHA-256 00",
      f"data_prep.convert_codec --from someone/encodec@{'a1' * 20} --levels 4 --out codec\n",
    ),
    ("a.th (encodec package), SHA-256 00", "`codec` is the bundle with the fingerprint above."),
  ],
)
def test_another_codec_is_named_with_its_licence(shipped, tmp_path, source, told):
  config, params, meta = shipped
  spec = CodecSpec(
    sample_rate=16_000, n_codes=64, n_filters=2, n_levels=4, licence="CC BY-NC 4.0", source=source
  )
  weights = {name: np.ones(shape, np.float32) for name, shape in tensor_shapes(spec).items()}
  save_bundle(tmp_path / "codec", spec, weights)
  found = {"codec_fingerprint": load_bundle(tmp_path / "codec").fingerprint}
  meta = meta | {"dataset": meta["dataset"] | found}
  told_of = {"name": "a/b", "licence": "MIT", "about": "songs"}
  card = draw_card(config, params, meta, codec=tmp_path / "codec", **told_of)
  assert told in card
  assert f"{source}; licence CC BY-NC 4.0" in card
  assert "hf://a/b --codec codec --context" in card
  data = dataclasses.replace(config.data, codec=str(tmp_path / "codec"))
  assert card == draw_card(dataclasses.replace(config, data=data), params, meta, **told_of)
  with pytest.raises(UserError, match="codec must be the one the checkpoint was trained on"):
    draw_card(config, params, meta, **told_of)


@pytest.mark.parametrize(
  ("words", "match"),
  [
    (["--card", "--about", "songs"], "--card must tell --licence"),
    (["--card", "--licence", "MIT"], "--card must tell --about"),
    (["--report", "there"], "--report must come with --card"),
    (["--codec", "there"], "--codec must come with --card"),
    ([*TOLD, "--card", "--report", "nowhere"], "--report must be report.json .*got nowhere"),
  ],
)
def test_what_is_missing_is_one_line_and_nothing_is_written(tmp_path, words, match):
  with pytest.raises(UserError, match=match):
    export_shipped(tmp_path, *words)
  assert not list(tmp_path.iterdir())


def test_a_report_of_another_model_is_refused(shipped, tmp_path, report):
  step = shipped[2]["step"]
  content = json.loads((report / "report.json").read_text())
  content["plan"]["model"]["step"] = 7
  (report / "report.json").write_text(json.dumps(content))
  with pytest.raises(UserError, match=rf"must be of this model, step {step} .* of step 7 "):
    export_shipped(tmp_path, *TOLD, "--card", "--report", report)
  (report / "table.md").unlink()
  with pytest.raises(UserError, match=r"with its table.md beside it; got"):
    export_shipped(tmp_path, *TOLD, "--card", "--report", report)
