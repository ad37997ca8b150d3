# SPDX-License-Identifier: Apache-2.0
"""The published EnCodecs in JAX against two others: the `encodec` package and `transformers`."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from test_codec import fill_codebooks, random_weights

from stemgen_jax import codec as jax_codec
from stemgen_jax.codec import seanet
from stemgen_jax.codec.architecture import GROUP_NORM, CodecSpec
from stemgen_jax.codec.segments import measure_scale

torch = pytest.importorskip("torch", reason="both references run in PyTorch")

from data_prep.codecs.torch_codec import TorchCodec, build_model, load_weights  # noqa: E402

pytestmark = pytest.mark.torch
FULL = {
  "24khz": CodecSpec(sample_rate=24_000, n_levels=32, licence="none", source="a test"),
  "32khz": CodecSpec(
    sample_rate=32_000,
    n_levels=4,
    n_codes=2048,
    ratios=(8, 5, 4, 4),
    n_filters=64,
    causal=False,
    true_skip=True,
    licence="none",
    source="a test",
  ),
  "48khz": CodecSpec(
    sample_rate=48_000,
    channels=2,
    n_levels=16,
    causal=False,
    norm=GROUP_NORM,
    normalize=True,
    segment_s=1.0,
    licence="none",
    source="a test",
  ),
}
SMALL = {
  name: dataclasses.replace(spec, n_filters=4, dimension=16, n_codes=64, n_levels=4)
  for name, spec in FULL.items()
}
LENGTHS = {
  "24khz": (1, 319, 320, 1601, 24_000),
  "32khz": (1, 639, 641, 32_000),
  "48khz": (1, 319, 24_007, 47_520, 48_000, 96_123),
}


def bundle(path, spec, music):
  """A bundle of random weights whose codebooks are residuals of the music's latents."""
  weights = random_weights(spec)
  for name, array in weights.items():
    if name.endswith(("conv.weight", "convtr.weight")):
      array /= np.sqrt(np.prod(array.shape[1:]))
  fill_codebooks(spec, weights, path, np.tile(music, 2 + spec.n_codes // 1000))
  return jax_codec.load(path)


def excerpt(music, spec, samples):
  """Two excerpts, [2, channels, samples]; the sides of a stereo one differ."""
  tiled = np.tile(music[0], 4)
  starts = [[5000, 9000], [12_000, 3000]]
  return np.array([[tiled[s : s + samples] for s in pair[: spec.channels]] for pair in starts])


def check_codes(codec, ours, theirs, audio):
  """Equal codes on at least 99.9 % of frames; where they differ first, the two entries tie."""
  spec, same = codec.spec, (ours == theirs).all(-1)
  assert same.mean() >= 0.999 or (~same).sum() <= 1
  books = np.asarray(codec.params["codebooks"])
  for b, t in np.argwhere(~same):
    begins = np.cumsum([0, *spec.segment_counts(ours.shape[1])[:-1]])
    segment = np.searchsorted(begins, t, side="right") - 1
    start, end = spec.segments(audio.shape[2])[segment]
    piece = audio[b : b + 1, :, start:end]
    if spec.normalize:
      piece = piece / measure_scale(piece)[:, None, None]
    latents, _ = seanet.run(
      "encoder", codec.params["encoder"], spec, jnp.asarray(piece).transpose(0, 2, 1), end - start
    )
    level = np.flatnonzero(ours[b, t] != theirs[b, t])[0]
    coded = sum(books[q, ours[b, t, q]] for q in range(level))
    left = np.asarray(latents)[0, t - begins[segment]] - coded
    near, far = (np.linalg.norm(left - books[level, c[b, t, level]]) for c in (ours, theirs))
    assert abs(near - far) <= 1e-5 * near


def with_encodec(codec, path, audio):
  """Codes, scales and audio of the package's own encode and decode."""
  model = build_model(codec.spec)
  load_weights(model, jax_codec.load_bundle(path).weights)
  with torch.inference_mode():
    frames = model.eval().encode(torch.from_numpy(audio))
    codes = np.concatenate([c.transpose(1, 2).numpy() for c, _ in frames], axis=1)
    scales = None
    if codec.spec.normalize:
      scales = np.concatenate([scale.numpy() for _, scale in frames], axis=1)
    return codes, scales, model.decode(frames).numpy()


def with_transformers(codec, path, audio):
  """The same of `transformers`, segment by segment where there are segments."""
  transformers = pytest.importorskip("transformers", reason="it is the second reference")
  from data_prep.codecs.transformers_format import rename

  spec = codec.spec
  config = transformers.EncodecConfig(
    sampling_rate=spec.sample_rate,
    audio_channels=spec.channels,
    normalize=spec.normalize,
    chunk_length_s=spec.segment_s,
    overlap=spec.overlap if spec.segment_s else None,
    hidden_size=spec.dimension,
    codebook_dim=spec.dimension,
    codebook_size=spec.n_codes,
    num_filters=spec.n_filters,
    upsampling_ratios=list(spec.ratios),
    norm_type=spec.norm,
    use_causal_conv=spec.causal,
    use_conv_shortcut=not spec.true_skip,
    target_bandwidths=[
      (spec.n_levels + 0.5) * np.ceil(spec.frame_rate_hz) * np.log2(spec.n_codes) / 1000
    ],
  )
  model = transformers.EncodecModel(config).eval()
  state = {}
  for name, array in jax_codec.load_bundle(path).weights.items():
    place = rename(name)
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
      place = place.replace(f".{old}", f".parametrizations.weight.{new}")
    state[place] = torch.from_numpy(array)
  missing, unknown = model.load_state_dict(state, strict=False)
  assert not unknown
  assert all(name.endswith(("inited", "cluster_size", "embed_avg")) for name in missing)
  codes, scales, pieces = [], [], []
  with torch.inference_mode():
    for start, end in spec.segments(audio.shape[-1]):
      part = torch.from_numpy(audio[..., start:end].copy())
      found, scale = model._encode_frame(part, model.config.target_bandwidths[0])
      codes.append(
        found.permute(1, 2, 0).numpy()
        if len(found) == spec.n_levels
        else found.transpose(1, 2).numpy()
      )
      scales.append(scale)
      pieces.append(model._decode_frame(found, scale))
  audio = pieces[0].numpy()
  if spec.segment_s is not None:
    audio = model._linear_overlap_add(pieces, spec.segment_stride_samples).numpy()
  scales = np.concatenate([s.numpy() for s in scales], axis=1) if spec.normalize else None
  return np.concatenate(codes, axis=1), scales, audio


def check(name, spec, lengths, music, path):
  codec = bundle(path, spec, music)
  used = set()
  for samples in lengths:
    audio = excerpt(music, spec, samples)
    codes = codec.encode(audio)
    assert codes.shape == (2, spec.frames(samples), spec.n_levels)
    used |= set(codes[..., 0].ravel())
    for reference in (with_encodec, with_transformers):
      theirs, scales, wave = reference(codec, path, audio)
      check_codes(codec, codes, theirs, audio)
      if spec.normalize:
        np.testing.assert_allclose(codec.scales(audio), scales, rtol=1e-5)
      rebuilt = codec.decode(theirs, scales)
      assert rebuilt.shape == wave.shape
      np.testing.assert_allclose(rebuilt, wave, atol=1e-4 * max(1, np.abs(wave).max()))
      ours = TorchCodec(path)
      np.testing.assert_allclose(ours.decode(theirs, scales), wave, atol=1e-5)
    np.testing.assert_array_equal(
      TorchCodec(path).encode(audio), with_encodec(codec, path, audio)[0]
    )
  assert len(used) > 10, name


@pytest.mark.parametrize(
  "name",
  [pytest.param(name, marks=pytest.mark.slow) if name == "24khz" else name for name in SMALL],
)
def test_small_sizes_equal_both_references(name, music, tmp_path):
  check(name, SMALL[name], LENGTHS[name], music, tmp_path / "b")


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_published_sizes_equal_both_references(name, music, tmp_path):
  spec = FULL[name]
  check(name, spec, (spec.sample_rate + 77, 200), music, tmp_path / "b")
