# SPDX-License-Identifier: Apache-2.0
"""A decoder of the Vocos kind: as PyTorch's, in blocks as at once, and in a bundle."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from test_codec_stream import SEGMENTS, random_codec

from stemgen_jax import codec as jax_codec
from stemgen_jax.codec import stream, vocos
from stemgen_jax.codec.bundle import DEMO_BUNDLE, add_decoder, load_bundle
from stemgen_jax.codec.decoder import DecoderSpec, tensor_shapes
from stemgen_jax.errors import UserError

SPEC = DecoderSpec(dim=16, mlp_dim=24, n_layers=2, kernel_size=5, licence="none", source="a test")


def random_weights(spec):
  rng = np.random.default_rng(0)
  weights = {name: rng.normal(size=shape) for name, shape in tensor_shapes(spec).items()}
  for name, array in weights.items():
    fan_in = np.prod(array.shape[1:]) if array.ndim > 1 else 4
    array /= np.sqrt(fan_in)
    if name == "out.bias":
      array[: spec.bins] += np.linspace(2, -4, spec.bins)  # falls with frequency
  return {name: array.astype(np.float32) for name, array in weights.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp("bundle") / "b"
  add_decoder(DEMO_BUNDLE, path, SPEC, random_weights(SPEC))
  return path


@pytest.fixture(scope="module")
def codec(folder):
  return jax_codec.load(folder)


def draw_codes(frames, batch=2):
  return np.random.default_rng(1).integers(0, 1024, (batch, frames, 4), dtype=np.int32)


@pytest.mark.torch
@pytest.mark.parametrize("frames", [1, 3, 70])
def test_jax_decodes_as_torch(codec, folder, frames):
  from data_prep.codecs.torch_codec import TorchCodec

  theirs = TorchCodec(folder)
  assert theirs.decoded_rate_hz == codec.decoded_rate_hz == 32_000
  codes = draw_codes(frames)
  want = theirs.decode(codes)
  assert want.shape == (2, 1, frames * 640)
  assert want.std() > 0.01
  np.testing.assert_allclose(codec.decode(codes), want, atol=2e-5)
  np.testing.assert_allclose(codec.decode(codes[..., :2]), theirs.decode(codes[..., :2]), atol=2e-5)


def test_a_spectrum_comes_back_as_the_audio_that_it_is_of():
  frames = 12
  audio = np.random.default_rng(0).normal(size=frames * SPEC.hop_samples).astype(np.float32)
  padded = np.pad(audio, SPEC.margin_samples)
  cut = np.lib.stride_tricks.sliding_window_view(padded, SPEC.n_fft)[:: SPEC.hop_samples]
  spectrum = np.fft.rfft(cut * np.hanning(SPEC.n_fft + 1)[:-1]).astype(np.complex64)
  back = vocos.invert(jnp.asarray(spectrum)[None], SPEC, jnp.ones(frames, bool))
  np.testing.assert_allclose(back[0], audio, atol=1e-5)


def test_blocks_equal_the_whole(codec, monkeypatch):
  codes = draw_codes(64 * 2 + 5)
  whole = codec.decode(codes)
  monkeypatch.setattr(stream, "BLOCK_FRAMES", 64)
  for blocks in ([codes], np.split(codes, [1, 1, 19, 66, 69], axis=1)):
    streamed = list(codec.decode_blocks([(part, None) for part in blocks]))
    np.testing.assert_allclose(np.concatenate(streamed, axis=-1), whole, atol=1e-5)


def test_nothing_looks_farther_than_told(codec):
  look, frames, hop = SPEC.look_frames, 40, SPEC.hop_samples
  codes = draw_codes(frames, 1)
  other = codes.copy()
  other[:, 20] = (other[:, 20] + 7) % 1024
  changed = np.abs(codec.decode(codes) - codec.decode(other))[0, 0].reshape(frames, hop).max(axis=1)
  assert set(np.flatnonzero(changed > 1e-6)) <= set(range(20 - look, 21 + look))
  assert changed[20 - look + 1] > 1e-7 < changed[20 + look - 1]  # and not much less far


def test_the_decoder_leaves_the_tokens_alone(codec, folder, music):
  demo = jax_codec.load(DEMO_BUNDLE)
  assert codec.fingerprint == demo.fingerprint
  assert codec.decoder_fingerprint == load_bundle(folder).decoder.fingerprint
  audio = music[None, :, :16_000]
  np.testing.assert_array_equal(codec.encode(audio), demo.encode(audio))


def test_a_decoder_takes_the_place_of_another(folder, tmp_path):
  weights = random_weights(SPEC)
  weights["out.bias"] += 1
  add_decoder(folder, tmp_path / "b", SPEC, weights)
  add_decoder(tmp_path / "b", tmp_path / "b", SPEC, weights)
  made = load_bundle(tmp_path / "b")
  assert made.decoder.fingerprint != load_bundle(folder).decoder.fingerprint
  assert made.fingerprint == load_bundle(DEMO_BUNDLE).fingerprint


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"hop_samples": 600, "n_fft": 2400}, "hop_samples must be 640, a frame of the codec; got 600"),
    ({"dimension": 64}, "dimension must be the codec's 128; got 64"),
    ({"n_fft": 2000}, "n_fft must be a whole number of hops, at least 2; got 2000"),
    ({"kernel_size": 4}, "kernel_size must be odd; got 4"),
    ({"n_layers": 0}, "n_layers must be at least 1; got 0"),
    ({"max_magnitude": 0.0}, "max_magnitude must be positive; got 0.0"),
  ],
)
def test_a_decoder_that_cannot_be_is_refused(folder, tmp_path, change, message):
  fields = json.loads((folder / "decoder.json").read_text())
  for path in folder.iterdir():
    (tmp_path / path.name).write_bytes(path.read_bytes())
  (tmp_path / "decoder.json").write_text(json.dumps(fields | change))
  with pytest.raises(UserError, match=message):
    load_bundle(tmp_path)


def test_a_description_of_another_kind_is_refused(folder, tmp_path):
  fields = json.loads((folder / "decoder.json").read_text())
  for path in folder.iterdir():
    (tmp_path / path.name).write_bytes(path.read_bytes())
  (tmp_path / "decoder.json").write_text(json.dumps(fields | {"n_fft": "large"}))
  with pytest.raises(UserError, match="must be JSON with the fields of a DecoderSpec"):
    load_bundle(tmp_path)


def test_a_codec_in_segments_has_no_other_decoder(tmp_path):
  random_codec(SEGMENTS, tmp_path / "b")
  with pytest.raises(UserError, match="must be mono and without segments"):
    add_decoder(tmp_path / "b", tmp_path / "c", SPEC, random_weights(SPEC))


def test_half_a_decoder_is_refused(folder, tmp_path):
  for path in folder.iterdir():
    if path.name != "decoder.safetensors":
      (tmp_path / path.name).write_bytes(path.read_bytes())
  with pytest.raises(UserError, match=r"got no file .*decoder\.safetensors"):
    load_bundle(tmp_path)
