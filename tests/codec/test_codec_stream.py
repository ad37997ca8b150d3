# SPDX-License-Identifier: Apache-2.0
"""Streams: blocks of any lengths give what the whole gives, and nothing looks farther than told."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from test_codec import random_weights

from stemgen_jax import codec as jax_codec
from stemgen_jax.codec import seanet, segments, stream
from stemgen_jax.codec.architecture import GROUP_NORM, CodecSpec
from stemgen_jax.codec.bundle import save_bundle
from stemgen_jax.errors import UserError

CAUSAL = CodecSpec(
  sample_rate=8000,
  n_levels=3,
  n_codes=64,
  ratios=(5, 4, 2),
  dimension=16,
  n_filters=4,
  licence="none",
  source="a test",
)
PLAIN = {
  "causal": CAUSAL,
  "not causal": dataclasses.replace(
    CAUSAL, causal=False, true_skip=True, n_residual_layers=2, ratios=(3, 5)
  ),
  "no LSTM": dataclasses.replace(CAUSAL, causal=False, lstm=0, pad_mode="constant"),
}
SEGMENTS = dataclasses.replace(
  CAUSAL,
  channels=2,
  causal=False,
  norm=GROUP_NORM,
  normalize=True,
  segment_s=0.25,
  overlap=0.01,
)


def random_codec(spec, path):
  weights = random_weights(spec)
  for name, array in weights.items():
    if "codebook" in name:
      array *= 0.3
  save_bundle(path, spec, weights)
  return jax_codec.load(path)


def noise(spec, samples):
  return np.random.default_rng(0).normal(size=(2, spec.channels, samples)).astype(np.float32) / 4


def slow(*cases):
  return [pytest.param(case, marks=pytest.mark.slow) for case in cases]


def cut(array, axis):
  """The array in six uneven blocks, one of them empty."""
  size = array.shape[axis]
  return np.split(array, sorted([1, 1, size // 7, size // 2, size // 2 + 3]), axis=axis)


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("frames", [64 + 5, *slow(63, 64, 64 * 3 + 1)])
def test_blocks_equal_the_whole(name, frames, tmp_path, monkeypatch):
  codec = random_codec(PLAIN[name], tmp_path / "b")
  audio = noise(codec.spec, frames * codec.spec.hop_samples - 7)
  codes = codec.encode(audio)
  whole = codec.decode(codes)
  monkeypatch.setattr(stream, "BLOCK_FRAMES", 64)
  for blocks in ([audio], cut(audio, 2)):
    streamed = list(codec.encode_blocks(blocks))
    assert all(scales is None for _, scales in streamed)
    assert all(part.shape[1] <= 64 for part, _ in streamed)
    np.testing.assert_array_equal(np.concatenate([part for part, _ in streamed], axis=1), codes)
  for blocks in ([codes], cut(codes, 1)):
    streamed = list(codec.decode_blocks([(part, None) for part in blocks]))
    np.testing.assert_allclose(np.concatenate(streamed, axis=-1), whole, atol=1e-5)
  np.testing.assert_array_equal(codec.encode(audio), codes)  # now long, so in blocks itself


@pytest.mark.parametrize("name", PLAIN)
def test_no_part_looks_farther_than_its_surroundings(name, tmp_path):
  spec = PLAIN[name]
  params = random_codec(spec, tmp_path / "b").params
  frames, middle = 40, 20
  for side, part, steps, width in (
    ("encoder", "before", spec.hop_samples, spec.channels),
    ("decoder", "before", 1, spec.dimension),
    ("decoder", "after", 1, spec.n_filters * 2 ** len(spec.ratios)),
  ):
    if part == "after" and not spec.lstm:
      continue
    look = seanet.surroundings(side, part, spec)
    assert 0 < look < middle
    x = np.random.default_rng(0).normal(size=(1, frames * steps, width)).astype(np.float32)
    changed = x.copy()
    changed[:, : (middle - look) * steps] += 1
    changed[:, (middle + 1 + look) * steps :] -= 1
    outs = [
      np.asarray(seanet.run_part(side, part, params[side], spec, jnp.asarray(a), frames * steps)[0])
      for a in (x, changed)
    ]
    out_steps = outs[0].shape[1] // frames
    here = slice(middle * out_steps, (middle + 1) * out_steps)
    np.testing.assert_array_equal(outs[0][:, here], outs[1][:, here])
    assert (outs[0] != outs[1]).any()


@pytest.mark.parametrize("samples", [1, 5 * 1980 + 10, *slow(1999, 2000, 5 * 1980 + 50, 11_000)])
def test_segments_stream_and_keep_their_loudness(samples, tmp_path):
  codec = random_codec(SEGMENTS, tmp_path / "b")
  audio = noise(SEGMENTS, samples) * np.linspace(0.1, 1, samples, dtype=np.float32)
  codes, scales = codec.encode(audio), codec.scales(audio)
  bounds = SEGMENTS.segments(samples)
  assert codes.shape == (2, SEGMENTS.frames(samples), 3)
  assert scales.shape == (2, len(bounds))
  for i, (start, end) in enumerate(bounds):
    rms = np.sqrt(np.square(audio[:, :, start:end].mean(axis=1)).mean(axis=-1))
    np.testing.assert_allclose(scales[:, i], rms, rtol=1e-4, atol=2e-8)
  streamed = list(codec.encode_blocks(cut(audio, 2)))
  np.testing.assert_array_equal(np.concatenate([c for c, _ in streamed], axis=1), codes)
  np.testing.assert_allclose(np.concatenate([s for _, s in streamed], axis=1), scales, rtol=1e-6)
  whole = codec.decode(codes, scales)
  assert whole.shape[-1] >= samples
  assert np.isfinite(whole).all()
  apart = [(codes[:, :0], scales), (codes, None)]  # loudness first, then the codes
  np.testing.assert_array_equal(np.concatenate(list(codec.decode_blocks(apart)), axis=-1), whole)
  blocks = np.concatenate(list(codec.decode_blocks(streamed)), axis=-1)
  np.testing.assert_allclose(blocks, whole, atol=1e-6)
  np.testing.assert_allclose(codec.decode(codes, 2 * scales), 2 * whole, atol=1e-5)
  default = codec.decode(codes, np.full_like(scales, segments.DEFAULT_SCALE))
  np.testing.assert_array_equal(codec.decode(codes), default)


def test_segments_find_their_frames_again():
  for samples in range(1, 6 * 1980, 37):
    bounds = SEGMENTS.segments(samples)
    counts = [-(-(end - start) // 40) for start, end in bounds]
    frames = SEGMENTS.frames(samples)
    assert SEGMENTS.segment_counts(frames) == counts
    starts = [s for start, end in bounds for s in range(start, end, 40)]
    assert SEGMENTS.frame_starts(frames) == starts
    known = sum(c for c in counts if c == SEGMENTS.segment_frames)  # of whole segments
    assert [SEGMENTS.frame_start(frame) for frame in range(known)] == starts[:known]
    assert SEGMENTS.decoded_samples(frames) == bounds[-1][0] + 40 * counts[-1]


def test_wrong_scales_are_refused(tmp_path):
  codec = random_codec(SEGMENTS, tmp_path / "b")
  codes = np.zeros((1, SEGMENTS.frames(5000), 3), np.int32)
  for shape in ((1, 2), (1, 4), (2, 3)):
    with pytest.raises(UserError, match=rf"scales must be .* got shape=\({shape[0]}, {shape[1]}\)"):
      codec.decode(codes, np.ones(shape))
  for segments_given, text in ((2, "got too few"), (4, "got 1 too many")):
    with pytest.raises(UserError, match=text):
      list(codec.decode_blocks([(codes, np.ones((1, segments_given)))]))
  plain = random_codec(CAUSAL, tmp_path / "c")
  with pytest.raises(UserError, match="of a codec that normalises"):
    plain.decode(np.zeros((1, 3, 3), np.int32), np.ones((1, 1)))
