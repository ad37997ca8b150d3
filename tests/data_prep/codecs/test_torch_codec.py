# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch

from data_prep.codecs.backends import load_codec
from stemgen_jax.codec.bundle import DEMO_BUNDLE

pytestmark = pytest.mark.torch


def test_what_does_not_fit_the_memory_is_encoded_by_halves(monkeypatch):
  codec = load_codec(str(DEMO_BUNDLE), "torch")
  audio = np.random.default_rng(0).normal(0, 0.1, (5, 1, 3200)).astype(np.float32)
  whole = codec.encode(audio)
  encode, asked = codec._model.encode, []

  def encode_two(x):
    asked.append(len(x))
    if len(x) > 2:
      raise torch.OutOfMemoryError("CUDA out of memory")
    return encode(x)

  monkeypatch.setattr(codec._model, "encode", encode_two)
  np.testing.assert_array_equal(codec.encode(audio), whole)
  assert asked == [5, 3, 2, 1, 2]

  def encode_none(x):
    raise torch.OutOfMemoryError("CUDA out of memory")

  monkeypatch.setattr(codec._model, "encode", encode_none)
  with pytest.raises(torch.OutOfMemoryError):
    codec.encode(audio)
