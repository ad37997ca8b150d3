# SPDX-License-Identifier: Apache-2.0
"""Published EnCodec files as bundles: the same tokens and sound as the source's own modules."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest

pytest.importorskip("torch", reason="published codecs are PyTorch's")

import torch
from published_codecs import (
  AUDIOCRAFT,
  FULL_SIZES,
  KINDS,
  SMALL,
  SMALLER,
  edit,
  export,
  huggingface,
  published,
  sound,
)
from safetensors.torch import save_file

from data_prep.codecs import formats as codec_formats
from data_prep.codecs import transformers_format as codec_transformers
from data_prep.codecs.audiocraft import read_config
from data_prep.codecs.source import NEW_NAMES, TRAINING_ONLY
from data_prep.codecs.torch_codec import TorchCodec, build_model
from data_prep.convert_codec import convert_codec
from stemgen_jax import codec as jax_codec
from stemgen_jax.codec.architecture import tensor_shapes

pytestmark = pytest.mark.torch


def check_varied(codes):
  """Codes [B, T, Q] are not all alike at any level."""
  assert min(len(np.unique(level)) for level in np.moveaxis(codes, -1, 0)) >= 8


def test_package_24khz_with_fewer_levels(tmp_path):
  audio = sound(1, 30_000)
  model = published("24khz", audio)
  torch.save(model.state_dict(), tmp_path / "a.pt", _use_new_zipfile_serialization=False)
  bundle = convert_codec(tmp_path / "a.pt", tmp_path / "b", levels=8, licence="mine")
  assert bundle.spec.n_levels == 8
  assert bundle.spec.licence == "mine"
  sha256 = hashlib.sha256((tmp_path / "a.pt").read_bytes()).hexdigest()
  assert bundle.spec.source == f"a.pt (encodec package), SHA-256 {sha256}"
  model.set_target_bandwidth(6.0)  # which has eight levels
  with torch.inference_mode():
    ((expected, _),) = model.encode(torch.from_numpy(audio))
    wave = model.decode([(expected, None)]).numpy()
  expected = expected.transpose(1, 2).numpy()
  codec = TorchCodec(tmp_path / "b")
  np.testing.assert_array_equal(codec.encode(audio), expected)
  np.testing.assert_array_equal(codec.decode(expected.astype(np.int32)), wave)
  check_varied(expected)


def test_package_48khz_in_segments(tmp_path):
  audio = sound(2, 60_000)
  model = published("48khz", audio)
  torch.save(model.state_dict(), tmp_path / "a.th")
  bundle = convert_codec(tmp_path, tmp_path / "b", licence="mine")
  with torch.inference_mode():
    found = model.encode(torch.from_numpy(audio))
    wave = model.decode(found).numpy()
  expected = torch.cat([codes for codes, _ in found], dim=2).transpose(1, 2).numpy()
  assert expected.shape == (1, 150 + 39, 16)  # 1 s, and 0.26 s of which 10 ms are repeated
  assert bundle.spec.frames(60_000) == 150 + 39
  codec = TorchCodec(tmp_path / "b")
  scales = codec.scales(audio)
  np.testing.assert_allclose(scales[0], [scale.item() for _, scale in found], rtol=1e-5)
  np.testing.assert_array_equal(codec.encode(audio), expected)
  np.testing.assert_allclose(codec.decode(expected.astype(np.int32), scales), wave, atol=1e-5)
  check_varied(expected)


def test_transformers_48khz_in_segments(tmp_path):
  audio = sound(2, 60_000)
  model = huggingface(tmp_path, "48khz")
  convert_codec(tmp_path, tmp_path / "b", licence="mine")
  with torch.inference_mode():
    found = model.encode(torch.from_numpy(audio), bandwidth=model.config.target_bandwidths[-1])
    room = found.last_frame_pad_length
    wave = model.decode(found.audio_codes, found.audio_scales, last_frame_pad_length=room)
  codes = torch.cat(list(found.audio_codes), dim=2)[..., :-room]
  expected = codes.transpose(1, 2).numpy().astype(np.int32)
  for codec in (TorchCodec(tmp_path / "b"), jax_codec.load(tmp_path / "b")):
    codes, scales = codec.encode(audio), codec.scales(audio)
    assert codes.shape == expected.shape == (1, 1200 + 312, 4)
    assert (codes == expected).all(-1).mean() >= 0.99
    np.testing.assert_allclose(scales[0], torch.cat(found.audio_scales)[:, 0], rtol=1e-5)
    rebuilt = codec.decode(expected, scales)
    np.testing.assert_allclose(rebuilt, wave.audio_values.numpy(), atol=1e-4)
  check_varied(expected)


@pytest.mark.parametrize("kind", ["mono, references", "stereo, resolved, nested", "causal"])
def test_audiocraft(kind, tmp_path):
  text = edit(*SMALLER, ("sample_rate: 32000", "sample_rate: 16000"))
  spec = SMALL
  if kind.startswith("stereo"):
    spec = dataclasses.replace(SMALL, channels=2, n_levels=16)
    text = edit(
      (r'"?\$\{channels\}"?', "2"),
      ("channels: 1", "channels: 2"),
      ("n_q: 4", "n_q: 16"),
      (r'"?\$\{sample_rate\}"?', "16000"),
      (r"\$\{encodec.causal\}", "false"),
      text=text,
    )
  elif kind == "causal":
    spec = dataclasses.replace(SMALL, causal=True, lstm=1, true_skip=False, pad_mode="reflect")
    text = edit(
      ("causal: false", "causal: true"),
      ("lstm: 2", "lstm: 1"),
      (" +true_skip: true\n", ""),
      ("encoder: {}", "encoder: {true_skip: false}"),
      ("pad_mode: constant", "pad_mode: reflect"),
      (r"decoder: \{", "decoder: {true_skip: false, "),
      text=text,
    )
  model = export(tmp_path / "compression_state_dict.bin", spec, text, nested="nested" in kind)
  bundle = convert_codec(tmp_path, tmp_path / "b", licence="mine")
  assert bundle.spec == dataclasses.replace(spec, licence="mine", source=bundle.spec.source)
  audio = sound(spec.channels, 5001)
  with torch.inference_mode():
    ((expected, _),) = model.encode(torch.from_numpy(audio))
    wave = model.decode([(expected, None)]).numpy()
  expected = expected.transpose(1, 2).numpy()
  codec = TorchCodec(tmp_path / "b")
  np.testing.assert_array_equal(codec.encode(audio), expected)
  np.testing.assert_array_equal(codec.decode(expected.astype(np.int32)), wave)
  check_varied(expected)


@pytest.mark.parametrize("kind", ["24khz", "32khz"])
def test_transformers(kind, tmp_path):
  model = huggingface(tmp_path / "a", kind)
  convert_codec(tmp_path / "a", tmp_path / "b", licence="mine")
  audio = sound(1, 5001)
  with torch.inference_mode():
    found = model.encode(torch.from_numpy(audio), bandwidth=model.config.target_bandwidths[-1])
    wave = model.decode(found.audio_codes, found.audio_scales).audio_values.numpy()
  expected = found.audio_codes[0].transpose(1, 2).numpy()
  codec = TorchCodec(tmp_path / "b")
  codes = codec.encode(audio)
  assert codes.shape == expected.shape == (1, 126, 4)
  assert (codes == expected).all(-1).mean() >= 0.99
  np.testing.assert_allclose(codec.decode(expected.astype(np.int32)), wave, atol=1e-4)
  check_varied(expected)


def test_transformers_in_all_spellings(tmp_path):
  model = huggingface(tmp_path / "a", "24khz", max_shard_size="20KB")
  expected = convert_codec(tmp_path / "a", tmp_path / "b", licence="mine").weights
  index = tmp_path / "a/model.safetensors.index.json"
  assert convert_codec(index, tmp_path / "b", licence="mine").weights.keys() == expected.keys()
  config = json.loads((tmp_path / "a/config.json").read_text())
  old = {}
  for name, tensor in model.state_dict().items():
    name = name.replace("parametrizations.weight.original0", "weight_g")
    old[name.replace("parametrizations.weight.original1", "weight_v")] = tensor
  assert any(name.endswith("weight_g") for name in old)
  musicgen = {f"audio_encoder.{k}": v.clone() for k, v in old.items()} | {"lm.x": torch.ones(2)}
  for name, found, suffix in (("c", config, ".bin"), ("d", config, ".safetensors")):
    folder = tmp_path / name
    folder.mkdir()
    if suffix == ".bin":
      torch.save(old, folder / "pytorch_model.bin")
    else:
      found = {"model_type": "musicgen", "audio_encoder": config}
      save_file(musicgen, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(found))
    weights = convert_codec(folder, tmp_path / "b", licence="mine").weights
    for key, array in expected.items():
      np.testing.assert_array_equal(weights[key], array)


def shapes_of(state):
  """Returns name and shape of every tensor but the codebooks' statistics."""
  return {k: tuple(v.shape) for k, v in state.items() if not k.endswith(TRAINING_ONLY)}


def test_published_sizes_of_the_package():
  specs = {"24khz": codec_formats.ENCODEC_24KHZ, "48khz": codec_formats.ENCODEC_48KHZ}
  with torch.device("meta"):
    for name, spec in specs.items():
      assert shapes_of(published(name).state_dict()) == tensor_shapes(spec)


def test_published_sizes_of_audiocraft():
  spec = read_config("a config", AUDIOCRAFT)
  assert {k: getattr(spec, k) for k in codec_formats.MUSICGEN_32KHZ} == codec_formats.MUSICGEN_32KHZ
  with torch.device("meta"):
    assert shapes_of(build_model(spec).state_dict()) == tensor_shapes(spec)


@pytest.mark.parametrize("kind", KINDS)
def test_published_sizes_of_transformers(kind):
  transformers = pytest.importorskip("transformers", reason="it defines the names")
  config = transformers.EncodecConfig(**KINDS[kind] | FULL_SIZES[kind])
  config_file = json.loads(config.to_json_string())
  spec = codec_transformers.read_config("config.json", config_file)
  with torch.device("meta"):
    found = shapes_of(transformers.EncodecModel(config).state_dict())
  expected = {codec_transformers.rename(k): v for k, v in tensor_shapes(spec).items()}
  for old, new in NEW_NAMES.items():
    expected = {k.replace(old, new): v for k, v in expected.items()}
  assert found == expected
  others = {"24khz": codec_formats.ENCODEC_24KHZ, "48khz": codec_formats.ENCODEC_48KHZ}
  assert spec == others.get(kind, spec)
  if kind == "32khz":
    for field, value in codec_formats.MUSICGEN_32KHZ.items():
      assert getattr(spec, field) == value
