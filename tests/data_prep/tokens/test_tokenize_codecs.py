# SPDX-License-Identifier: Apache-2.0
"""The tokeniser with codecs of other kinds: segments, and JAX in the place of PyTorch."""

import dataclasses
import importlib.util

import numpy as np
import pytest
import soundfile
from small_corpus import HOP, RATE, SETTINGS, MeanCodec, run

from data_prep.codecs import backends
from stemgen_jax import codec as jax_codec
from stemgen_jax.codec import DEMO_BUNDLE
from stemgen_jax.data.records import Dataset
from stemgen_jax.errors import UserError


class SegmentCodec(MeanCodec):
  """Frames of independent segments of 100, one every 95."""

  spec = dataclasses.replace(MeanCodec.spec, segment_s=1.0, overlap=0.05)

  def encode(self, audio):
    parts = []
    for start, end in self.spec.segments(audio.shape[-1]):
      room = -(end - start) % HOP
      parts.append(super().encode(np.pad(audio[..., start:end], ((0, 0), (0, 0), (0, room)))))
    return np.concatenate(parts, axis=1)


def test_clips_of_a_codec_with_segments_are_cut_between_them(corpus, tmp_path):
  time_s = np.arange(4 * RATE) / RATE
  soundfile.write(corpus / "train/Track00001/stems/S02.flac", time_s / 8, RATE)
  settings = dataclasses.replace(SETTINGS, clip_s=2.5)
  source = Dataset.open(run(corpus, tmp_path / "a", SegmentCodec(), settings=settings)).source(
    "train"
  )
  clips = [source[i] for i, song in enumerate(source.songs) if song == "Track00001"]
  # 4 s begin 5 segments; 2.5 s hold 2 of them
  assert [clip.start_frame for clip in clips] == [0, 200, 300]
  assert [clip.stem_codes.shape[1] for clip in clips] == [195, 95, 120]
  for clip, start_s in zip(clips, (0.0, 1.9, 2.85), strict=True):
    frames = clip.stem_codes.shape[1]
    place, segment = np.arange(frames) % 100, np.arange(frames) // 100
    expected = (start_s + 0.95 * segment + 0.01 * place + 0.005) / 8
    assert np.abs(clip.stem_codes[2, :, 0] - 2000 - 1000 * expected).max() <= 1


def test_without_torch_the_codec_runs_in_jax(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  codec = backends.load_codec(DEMO_BUNDLE)
  assert isinstance(codec, jax_codec.Codec)
  with pytest.raises(UserError, match="Use --backend jax"):
    backends.load_codec(DEMO_BUNDLE, "torch")
  with pytest.raises(UserError, match="got device=cuda with backend=jax"):
    backends.load_codec(DEMO_BUNDLE, "jax", "cuda")


@pytest.mark.torch
def test_both_backends_give_the_same_tokens(corpus, tmp_path):
  clips = []
  for backend in ("torch", "jax"):
    codec = backends.load_codec(DEMO_BUNDLE, backend)
    source = Dataset.open(run(corpus, tmp_path / backend, codec)).source("validation")
    clips.append(source[0])
  assert type(codec) is jax_codec.Codec
  for field in ("stem_codes", "mix_codes"):
    same = (getattr(clips[0], field) == getattr(clips[1], field)).all(-1)
    assert same.mean() >= 0.999
  assert len(np.unique(clips[0].mix_codes[..., 0])) > 1
