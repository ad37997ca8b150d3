# SPDX-License-Identifier: Apache-2.0
"""EnCodec in JAX against the `encodec` package's own modules."""

import dataclasses

import jax
import numpy as np
import pytest

from stemgen_jax import codec as jax_codec
from stemgen_jax.audio.files import convert_audio
from stemgen_jax.codec import rvq, stream
from stemgen_jax.codec.architecture import CODEBOOK, CodecSpec, tensor_shapes
from stemgen_jax.codec.bundle import DEMO_BUNDLE, load_bundle, save_bundle
from stemgen_jax.errors import UserError

RATE = 16_000
SMALL = CodecSpec(
  sample_rate=RATE,
  n_levels=3,
  n_codes=64,
  ratios=(5, 4, 2),
  dimension=16,
  n_filters=4,
  licence="none",
  source="a test",
)
VARIANTS = {
  "causal mono": SMALL,
  "non-causal stereo": dataclasses.replace(SMALL, causal=False, channels=2, true_skip=True, lstm=1),
  "odd strides, zeros, dilated": dataclasses.replace(
    SMALL, causal=False, ratios=(3, 5), pad_mode="constant", n_residual_layers=2, lstm=0
  ),
}
LENGTHS = (1, 7, 39, 40, 41, 300, 20_000)


def random_weights(spec, seed=0):
  """Weights under which signal reaches every layer, and codes all differ."""
  rng = np.random.default_rng(seed)
  weights = {}
  for name, shape in tensor_shapes(spec).items():
    scale = 0.1 if "bias" in name else 1 / np.sqrt(shape[-1]) if "lstm" in name else 1.0
    weights[name] = (rng.normal(size=shape) * scale).astype(np.float32)
    if name.endswith("weight_g"):
      weights[name] = rng.uniform(0.8, 1.6, shape).astype(np.float32)
  return weights


def fill_codebooks(spec, weights, path, audio):
  """Saves a bundle whose codebooks are residuals of real latents, coarse to fine."""
  torch = pytest.importorskip("torch", reason="the reference is PyTorch's EnCodec")
  from data_prep.codecs.torch_codec import TorchCodec

  save_bundle(path, spec, weights)
  encoder = TorchCodec(path)._model.encoder
  with torch.inference_mode():
    latents = encoder(torch.from_numpy(np.repeat(audio[None], spec.channels, axis=1)))
  residual = latents[0].T.numpy()
  rng = np.random.default_rng(0)
  for level in range(spec.n_levels):
    rows = residual[rng.integers(len(residual), size=spec.n_codes)]
    # A tenth of a residual: a deep level still has more to code than rounding.
    codes = 0.1 * rows + 0.03 * residual.std(0) * rng.normal(size=rows.shape)
    codes = codes.astype(np.float32)
    weights[CODEBOOK.format(level)] = codes
    distance = np.square(residual[:, None] - codes[None]).sum(-1)
    residual = residual - codes[distance.argmin(1)]
  save_bundle(path, spec, weights)


def clips(music, spec, samples):
  """Two clips of the music, [2, channels, samples]; a stereo clip's sides differ."""
  starts = [[5000, 9000], [12_000, 3000]]
  rows = [[music[0, s : s + samples] for s in pair[: spec.channels]] for pair in starts]
  return np.array(rows)


def check_parity(path, music, lengths):
  """Compares PyTorch and JAX on one bundle: codes, waveforms, and that codes are not all alike."""
  from data_prep.codecs.torch_codec import TorchCodec

  reference, ours = TorchCodec(path), jax_codec.load(path)
  assert reference.fingerprint == ours.fingerprint
  same, used = [], set()
  for samples in lengths:
    audio = clips(music, ours.spec, samples)
    expected, codes = reference.encode(audio), np.asarray(ours.encode(audio))
    frames = -(-samples // ours.spec.hop_samples)
    assert codes.shape == expected.shape == (2, frames, ours.spec.n_levels)
    assert codes.dtype == expected.dtype == np.int32
    same.append((codes == expected).all(-1).ravel())
    used |= set(codes[..., 0].ravel())
    wave, rebuilt = reference.decode(expected), np.asarray(ours.decode(expected))
    assert wave.shape == rebuilt.shape == (2, ours.spec.channels, ours.decoded_samples(frames))
    np.testing.assert_allclose(rebuilt, wave, atol=1e-4)
    assert np.ptp(wave) > 0.01
  assert np.concatenate(same).mean() >= 0.999
  assert len(used) > 10


@pytest.mark.torch
@pytest.mark.parametrize("variant", VARIANTS)
def test_jax_equals_encodec_on_real_music(variant, music, tmp_path):
  spec = VARIANTS[variant]
  fill_codebooks(spec, random_weights(spec), tmp_path / "bundle", music)
  check_parity(tmp_path / "bundle", music, LENGTHS)


@pytest.mark.torch
def test_shipped_bundle_is_the_same_in_both(music):
  check_parity(DEMO_BUNDLE, music, (100, 40_001))


def test_shipped_bundle_is_what_the_demo_needs():
  bundle = load_bundle(DEMO_BUNDLE)
  spec = bundle.spec
  assert (spec.sample_rate, spec.channels, spec.n_levels) == (16_000, 1, 4)
  assert spec.frame_rate_hz in (25, 50)
  assert sum(f.stat().st_size for f in DEMO_BUNDLE.iterdir()) <= 16e6
  assert len(bundle.fingerprint) == 64


def test_shipped_codec_follows_the_waveform_better_with_every_level(music):
  codec = jax_codec.load()
  codes = codec.encode(music[None])

  def si_sdr_db(levels):
    rebuilt = convert_audio(codec.decode(codes[..., :levels])[0], codec.decoded_rate_hz, RATE, 1)
    rebuilt = rebuilt[0, : music.shape[1]]
    signal = music[0] * (rebuilt @ music[0]) / (music[0] @ music[0])
    return 10 * np.log10(np.square(signal).sum() / np.square(rebuilt - signal).sum())

  ratios = [si_sdr_db(levels) for levels in (1, 2, 3, 4)]
  assert ratios == sorted(ratios)
  assert ratios[3] > 4 > 0 > ratios[0], ratios


def test_first_levels_alone_decode(music, tmp_path):
  save_bundle(tmp_path / "b", SMALL, random_weights(SMALL))
  codec = jax_codec.load(tmp_path / "b")
  codes = codec.encode(music[None])
  coarse, full = codec.decode(codes[..., :1]), codec.decode(codes)
  assert coarse.shape == full.shape
  assert float(abs(coarse - full).max()) > 1e-3


def test_residual_quantizer_matches_its_definition():
  rng = np.random.default_rng(0)
  latents = rng.normal(size=(2, 5, 4)).astype(np.float32)
  books = rng.normal(size=(3, 8, 4)).astype(np.float32)
  codes = np.asarray(rvq.quantize(jax.numpy.asarray(latents), jax.numpy.asarray(books)))
  residual = latents
  for level, book in enumerate(books):
    expected = np.square(residual[:, :, None] - book).sum(-1).argmin(-1)
    np.testing.assert_array_equal(codes[..., level], expected)
    residual = residual - book[expected]
  total = rvq.dequantize(jax.numpy.asarray(codes), jax.numpy.asarray(books))
  np.testing.assert_allclose(total, latents - residual, atol=1e-5)


def test_one_compilation_serves_many_lengths(music, tmp_path):
  save_bundle(tmp_path / "b", SMALL, random_weights(SMALL))
  codec = jax_codec.load(tmp_path / "b")
  codec.encode(music[None, :, :4000]), codec.decode(codec.encode(music[None, :, :4000]))
  before = jax_codec.encode._cache_size(), jax_codec.decode._cache_size()
  for samples in (3990, 3870, 3999):
    codec.decode(codec.encode(music[None, :, :samples]))
  assert (jax_codec.encode._cache_size(), jax_codec.decode._cache_size()) == before


@pytest.mark.parametrize("frames", [1, 8, 9, 63, 64, 65, 100, 1000, 1025])
def test_rounded_lengths_are_few_and_not_much_longer(frames):
  rounded = stream.round_up(frames)
  assert frames <= rounded <= max(frames + 7, frames * 1.25)
  assert len({stream.round_up(n) for n in range(1, 1025)}) < 45


def test_wrong_audio_and_codes_are_refused(music, tmp_path):
  save_bundle(tmp_path / "b", SMALL, random_weights(SMALL))
  codec = jax_codec.load(tmp_path / "b")
  with pytest.raises(UserError, match=r"must be \[B, 1, samples\]"):
    codec.encode(np.zeros((1, 2, 100), np.float32))
  with pytest.raises(UserError, match="at least one sample"):
    codec.encode(np.zeros((1, 1, 0), np.float32))
  with pytest.raises(UserError, match="1 to 3 levels"):
    codec.decode(np.zeros((1, 5, 4), np.int32))
  with pytest.raises(UserError, match="must be 0 to 63"):
    codec.decode(np.full((1, 5, 3), 64, np.int32))
  with pytest.raises(UserError, match="at least one frame"):
    codec.decode(np.zeros((1, 0, 3), np.int32))


@pytest.mark.torch
@pytest.mark.parametrize("variant", VARIANTS)
def test_tensors_are_those_of_the_encodec_package(variant):
  pytest.importorskip("torch", reason="the reference is PyTorch's EnCodec")
  from data_prep.codecs.torch_codec import build_model, read_weights

  found = {
    name: array.shape for name, array in read_weights(build_model(VARIANTS[variant])).items()
  }
  assert found == tensor_shapes(VARIANTS[variant])
