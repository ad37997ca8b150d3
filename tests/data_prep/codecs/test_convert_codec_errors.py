# SPDX-License-Identifier: Apache-2.0
"""What the codec converter refuses, each in one line that names the culprit; licences; the CLI."""

import dataclasses
import json
import os
import re

import pytest

pytest.importorskip("torch", reason="published codecs are PyTorch's")

import torch
from published_codecs import AUDIOCRAFT, SMALL, SMALLER, edit, export
from safetensors.torch import save_file

from data_prep import convert_codec
from data_prep.codecs import formats as codec_formats
from data_prep.codecs.audiocraft import read_config
from data_prep.codecs.torch_codec import build_model
from data_prep.codecs.transformers_format import read_config as read_huggingface
from data_prep.codecs.transformers_format import rename
from stemgen_jax.codec.bundle import load_bundle
from stemgen_jax.errors import UserError

pytestmark = pytest.mark.torch
TEXT = edit(*SMALLER, ("sample_rate: 32000", "sample_rate: 16000"))
HUGGINGFACE = {
  "model_type": "encodec",
  "sampling_rate": 16_000,
  "hidden_size": 16,
  "num_filters": 4,
  "upsampling_ratios": [5, 4, 2],
  "codebook_size": 64,
  "use_conv_shortcut": False,
  "use_causal_conv": False,
  "pad_mode": "constant",
  "target_bandwidths": [9.6],
}


@pytest.fixture
def file(tmp_path):
  """An export of audiocraft, named so that only its content tells what it is."""
  export(tmp_path / "a.x", SMALL, TEXT)
  return tmp_path / "a.x"


@pytest.fixture
def folder(tmp_path):
  """A Hugging Face folder."""
  folder = tmp_path / "a"
  folder.mkdir()
  (folder / "config.json").write_text(json.dumps(HUGGINGFACE))
  state = {rename(k): v.contiguous() for k, v in build_model(SMALL).state_dict().items()}
  save_file(state, folder / "model.safetensors")
  return folder


def refused(path, out, match, **options):
  """The conversion ends in a UserError, and nothing is written."""
  with pytest.raises(UserError, match=match):
    convert_codec.convert_codec(path, out, **{"licence": "mine"} | options)
  assert not out.exists()


@pytest.mark.parametrize(
  ("change", "match"),
  [
    (lambda s: s.pop("encoder.model.1.block.1.conv.conv.bias"), "without encoder.model.1.block.1"),
    (lambda s: s.update(extra=torch.ones(1)), "with extra"),
    (lambda s: s.update({"a.inited": torch.ones(1)}), "with a.inited"),
    (lambda s: s["encoder.model.0.conv.conv.bias"].resize_(3), r"conv.bias of shape \(3,\) in"),
    (lambda s: s.update({"encoder.model.0.conv.conv.bias": 1}), "conv.bias of shape int in"),
    (
      lambda s: s["decoder.model.0.conv.conv.bias"].fill_(torch.nan),
      "NaN .*decoder.model.0.conv.* Export",
    ),
  ],
)
def test_tensors_that_do_not_fit(change, match, file, tmp_path):
  stored = torch.load(file, weights_only=True)
  change(stored["best_state"])
  torch.save(stored, file)
  refused(file, tmp_path / "b", match)


def test_tensors_are_named_as_the_source_names_them(folder, tmp_path):
  (folder / "config.json").write_text(json.dumps(HUGGINGFACE | {"hidden_size": 8}))
  refused(folder, tmp_path / "b", r"got encoder\.layers\.12\.conv\.")
  (folder / "config.json").write_text(json.dumps(HUGGINGFACE | {"use_conv_shortcut": True}))
  refused(folder, tmp_path / "b", r"without decoder\.layers\.\d+\.shortcut\.conv")


@pytest.mark.parametrize(
  ("pattern", "replacement", "match"),
  [
    ("activation: ELU", "activation: ReLU", "seanet.activation='ELU' .* got .*'ReLU'"),
    ("alpha: 1.0", "alpha: 0.5", "seanet.activation_params"),
    ("norm: weight_norm", "norm: spectral_norm", "seanet.norm='weight_norm'"),
    ("norm: weight_norm", "norm: time_group_norm", "seanet.norm='weight_norm'"),
    ("norm_params: {}", "norm_params: {eps: 1}", "seanet.norm_params"),
    ("outer_blocks: 0", "outer_blocks: 2", "seanet.disable_norm_outer_blocks=0 .* got .*=2"),
    (
      "outer_blocks: 0",
      "outer_blocks: false",
      "seanet.disable_norm_outer_blocks=0 .* got .*=False",
    ),
    (r'channels: "\$\{channels\}"', "channels: 2", "encodec.channels=1 .* got encodec.channels=2"),
    ("  norm: weight_norm\n", "", "seanet.norm='weight_norm' .* got seanet.norm='none'"),
    ("trim_right_ratio: 1.0", "trim_right_ratio: 0.5", "seanet.decoder.trim_right_ratio=1.0"),
    ("final_activation: null", "final_activation: Tanh", "seanet.decoder.final_activation=None"),
    ("encoder: {}", "encoder: {lstm: 0}", "seanet.decoder.lstm=0 .* got seanet.decoder.lstm=2"),
    ("encoder: {}", "encoder: {groups: 2}", "got seanet.encoder.groups=2"),
    ("compress: 2", "compress: 2\n  snake: true", "got seanet.snake=True"),
    ("decay: 0.99", "codebook_dim: 8", "got rvq.codebook_dim=8"),
    ("renormalize: false", "renormalize: true", "encodec.renormalize=False .* got .*=True"),
    ("autoencoder: seanet", "autoencoder: dac", "encodec.autoencoder='seanet'"),
    ("quantizer: rvq", "quantizer: no_quant", "encodec.quantizer='rvq'"),
    ("compression_model: encodec", "compression_model: dac", "compression_model='encodec'"),
    ("causal: false", "causal: maybe", "true or false as seanet.causal"),
    ("bins: 2048", "bins: 1000", "n_codes must be a power of two"),
    ("n_q: 4", "n_q: '4'", "a whole number from 1 as rvq.n_q; got rvq.n_q='4'"),
    ("n_q: 4", "n_q: true", "a whole number from 1 as rvq.n_q; got rvq.n_q=True"),
    ("channels: 1", "channels: 5.1", "a whole number from 1 as seanet.channels"),
    ("ratios: .*", "ratios: [8, a]", "a list of whole numbers as seanet.ratios"),
    ("pad_mode: constant", "pad_mode: wrap", "pad_mode must be one of"),
    ("pad_mode: constant", "pad_mode: [1]", "text as seanet.pad_mode"),
    ("sample_rate: 32000", "sample_rate: ???", "a whole number from 1 as encodec.sample_rate"),
    ("n_q: 4", 'n_q: "${oc.env:N}"', r"got rvq.n_q=\$\{oc.env:N\}"),
    ("n_q: 4", 'n_q: "${no.such}"', r"got rvq.n_q=\$\{no.such\}"),
    ("n_q: 4", 'n_q: "${rvq.bins}", q: 1', "got rvq.q=1"),
    ("channels: 1", "channels: ${encodec.channels}", "got .*channels="),  # a circle
    ("device: cuda", "device: !!python/object:os.system x", "xp.cfg must be plain YAML"),
    ("encoder: {}", "encoder: 3", "type of seanet.encoder"),
    ("encodec:\n", "other:\n", "encodec.autoencoder"),
  ],
)
def test_audiocraft_options_that_a_bundle_cannot_express(pattern, replacement, match):
  with pytest.raises(UserError, match=match):
    read_config("a config", edit((pattern, replacement)))


@pytest.mark.parametrize(
  ("options", "match"),
  [
    ({"trim_right_ratio": 0.5}, "trim_right_ratio=1.0"),
    ({"codebook_dim": 8}, "codebook_dim=16 .* got codebook_dim=8"),
    ({"norm_type": "layer_norm"}, "norm must be one of"),
    ({"norm_type": "time_group_norm"}, "segment_s must be"),
    ({"normalize": True}, "segment_s must be"),
    ({"normalize": 1}, "true or false as normalize"),
    ({"chunk_length_s": 1.0}, "a number as overlap; got overlap=None"),
    ({"chunk_length_s": float("inf"), "overlap": 0.1}, "a number as chunk_length_s"),
    ({"use_conv_shortcut": "no"}, "true or false as use_conv_shortcut; got .*'no'"),
    ({"target_bandwidths": []}, "a whole number from 1 as target_bandwidths"),
    ({"target_bandwidths": [0.1]}, "a whole number from 1 as target_bandwidths"),
    ({"target_bandwidths": ["6"]}, "a whole number from 1 as target_bandwidths"),
    ({"audio_channels": 6}, "channels must be 1 or 2"),
  ],
)
def test_transformers_options_that_a_bundle_cannot_express(options, match):
  with pytest.raises(UserError, match=match):
    read_huggingface("config.json", HUGGINGFACE | options)


def test_options_left_out_have_their_makers_defaults():
  assert read_huggingface("config.json", {"model_type": "encodec"}) == codec_formats.ENCODEC_24KHZ
  rounded = {"sampling_rate": 22_050, "target_bandwidths": [6.89]}  # 69 frames/s, not 68.9
  assert read_huggingface("config.json", rounded).n_levels == 9
  left_out = [(f"  {name}: .*\n", "") for name in ("lstm", "n_residual_layers", "true_skip")]
  spec = read_config("a config", edit(*left_out))
  assert (spec.lstm, spec.n_residual_layers, spec.true_skip) == (0, 3, True)


class Odd:
  """Something that a file of weights should not hold."""


@pytest.mark.parametrize(
  ("write", "match"),
  [
    (
      lambda p: torch.save({"xp.cfg": Odd()}, p),
      "a.x, which asks for .*Odd.*export_encodec",
    ),
    (lambda p: p.write_bytes(b"hello"), r"which begins with b'hello'"),
    (lambda p: p.write_bytes(b""), r"which begins with b''"),
    (lambda p: p.write_bytes(p.read_bytes()[:5000]), "whole PyTorch file; got path=.*a.x"),
    (lambda p: p.write_bytes(b"\x80\x02junk"), "a.x"),
    (lambda p: p.write_bytes(b"\x40" + bytes(7) + b"{" * 64), "whole safetensors file"),
    (
      lambda p: torch.save({"pretrained": "facebook/x", "exported": True}, p),
      "'facebook/x'. Give that",
    ),
    (lambda p: torch.save({"b": 1, "a": 2}, p), "got path=.*a.x with b, a. Give"),
    (lambda p: torch.save([1], p), "state dict of the encodec package"),
    (lambda p: torch.save({"best_state": 1, "xp.cfg": ""}, p), "best_state must be a dict"),
    (lambda p: torch.save({"best_state": {}, "xp.cfg": {}}, p), "xp.cfg must be the text"),
    (
      lambda p: torch.save(build_model(SMALL).state_dict(), p),
      "must be encodec_24khz or",
    ),
    (lambda p: p.unlink(), "must be a file or folder that exists"),
  ],
)
def test_files_that_are_no_codec(write, match, file, tmp_path):
  write(file)
  refused(file, tmp_path / "b", match)


def test_path_that_cannot_be_read(tmp_path):
  refused(tmp_path / ("a" * 300), tmp_path / "b", "--from must be readable")


def test_folders_with_none_or_several(file, folder, tmp_path):
  refused(tmp_path, tmp_path / "b", r"got 0 in .*\(a.x\)")
  os.link(file, folder / "compression_state_dict.bin")
  refused(folder, tmp_path / "b", r"got 2 .*\(compression_state_dict.bin, model.safetensors\)")
  for name in ("compression_state_dict.bin", "model.safetensors"):
    assert convert_codec.convert_codec(folder / name, tmp_path / name, licence="mine").weights
  (tmp_path / "empty").mkdir()
  refused(tmp_path / "empty", tmp_path / "b", "got 0 .*no files")


def test_damaged_folders(folder, tmp_path):
  config = folder / "config.json"
  config.write_text(json.dumps({"model_type": "musicgen", "audio_encoder": {"model_type": "dac"}}))
  refused(folder, tmp_path / "b", "audio_encoder.model_type='dac'")
  config.write_text("{")
  refused(folder, tmp_path / "b", "config.json must be there and be JSON")
  config.write_text("[]")
  refused(folder, tmp_path / "b", "config.json must be a JSON object")
  config.unlink()
  refused(folder / "model.safetensors", tmp_path / "b", "config.json must be there")
  config.write_text(json.dumps(HUGGINGFACE))
  (folder / "model.safetensors").unlink()
  (tmp_path / "a.safetensors").touch()
  index = folder / "model.safetensors.index.json"
  for shards in ({"a": "../a.safetensors"}, {"a": "gone.safetensors"}, {}):
    index.write_text(json.dumps({"weight_map": shards}))
    refused(folder, tmp_path / "b", "index must list files of its own folder")


@pytest.mark.parametrize("levels", [0, 5, -1])
def test_levels_that_it_does_not_have(levels, file, tmp_path):
  refused(file, tmp_path / "b", f"--levels must be 1 to 4.*--levels={levels}", levels=levels)


def test_only_a_bundle_is_overwritten(file, tmp_path):
  out = tmp_path / "b"
  convert_codec.convert_codec(file, out, licence="mine")
  assert convert_codec.convert_codec(file, out, levels=1, licence="mine").spec.n_levels == 1
  (out / "notes.txt").write_text("mine")
  for taken in (out, tmp_path, file):
    with pytest.raises(UserError, match="--out must be a new folder or a codec bundle"):
      convert_codec.convert_codec(file, taken, licence="mine")
  assert (out / "notes.txt").read_text() == "mine"
  assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_licence_is_known_or_asked_for(file, tmp_path):
  refused(file, tmp_path / "b", "licence .* must be given.*--licence TEXT", licence=None)
  source = codec_formats.open_source(file)
  (tmp_path / "README.md").write_text("---\nlicense: mit\ntags: [a]\n---\n# Card\n")
  assert codec_formats.find_licence(source) == "mit (model card beside the weights)"
  (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_name: house\n---\n")
  assert codec_formats.find_licence(source).startswith("house ")
  for text in (
    "---\ninference: false\n---\n",
    "---\nlicense: other\n---\n",
    "no head",
    "---\n{\n---\n",
  ):
    (tmp_path / "README.md").write_text(text)
    assert codec_formats.find_licence(source) is None
  musicgen = dataclasses.replace(source, spec=read_config(file, AUDIOCRAFT))
  assert codec_formats.find_licence(musicgen).startswith("CC BY-NC 4.0")
  package = dataclasses.replace(source, format=codec_formats.PACKAGE, sha256="7e698e3e00")
  assert codec_formats.find_licence(package).startswith("MIT")
  assert codec_formats.find_licence(dataclasses.replace(package, sha256="d7cc33bc00")) is None


def test_command_says_what_it_made_and_what_comes_next(file, tmp_path, capsys):
  convert_codec.main(
    ["--from", str(file), "--out", str(tmp_path / "b"), "--levels", "2", "--licence", "CC0"]
  )
  text = capsys.readouterr().out
  bundle = load_bundle(tmp_path / "b")
  assert bundle.spec.licence == "CC0"
  assert bundle.spec.source.startswith("a.x (audiocraft), SHA-256 ")
  for word in (bundle.fingerprint, "16000 Hz, mono", "2, each of 64 codes", "400 a second", "4800"):
    assert word in text
  assert re.findall(r"python -m (\S+)", text) == ["data_prep.tokenize", "stemgen_jax.train"]
  assert "--config.sample.steps='128,64'" in text
