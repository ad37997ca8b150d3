# SPDX-License-Identifier: Apache-2.0
"""The parts of codec training by themselves: losses, quantiser, first scale, config."""

import numpy as np
import pytest

from stemgen_jax.errors import UserError

pytest.importorskip("torch", reason="codec training runs in PyTorch")

import torch

from data_prep.codec_training import init as codec_init
from data_prep.codec_training import losses as codec_losses
from data_prep.codec_training import quantizer as codec_quantizer
from data_prep.codec_training.config import (
  CodecConfig,
  DiscriminatorConfig,
  ModelConfig,
  TrainConfig,
)
from data_prep.codec_training.trainer import learning_rate
from data_prep.codecs.torch_codec import build_model

pytestmark = pytest.mark.torch
RATE = 16_000


@pytest.fixture
def spec():
  return CodecConfig(
    model=ModelConfig(
      sample_rate=RATE, n_levels=2, n_codes=16, ratios=(5, 4), dimension=8, n_filters=4
    )
  ).spec()


def codebooks(spec):
  return [layer._codebook for layer in build_model(spec).quantizer.vq.layers]


def test_losses_are_zero_for_the_same_sound_and_positive_for_another():
  audio = torch.randn(2, 4096, generator=torch.Generator().manual_seed(0)) * 0.3
  assert codec_losses.mel_loss(audio, audio, RATE) == 0
  assert codec_losses.wave_loss(audio, audio) == 0
  assert codec_losses.mel_loss(audio * 0.5, audio, RATE) == pytest.approx(np.log(2), abs=0.05)
  assert codec_losses.wave_loss(0 * audio, audio) == pytest.approx(0.24 / 0.25, abs=0.01)
  with_l2 = codec_losses.mel_loss(audio * 0.5, audio, RATE, l2_weight=1.0)
  assert with_l2 == pytest.approx(2 * np.log(2), abs=0.1)


@pytest.mark.parametrize(("window", "bands"), [(64, 10), (2048, 80)])
def test_mel_filters_have_unit_sum_and_rising_centres(window, bands):
  filters = codec_losses.mel_bands(16_000, window, bands)
  assert filters.shape == (window // 2 + 1, bands)
  torch.testing.assert_close(filters.sum(0), torch.ones(bands))
  assert (filters.argmax(0).diff() >= 0).all()


def test_quantizer_chooses_the_nearest_and_passes_the_gradient_through(spec):
  books = codebooks(spec)
  generator = torch.Generator().manual_seed(0)
  for book in books:
    book.embed.copy_(torch.randn(16, 8, generator=generator))
  x = torch.randn(20, 8, generator=generator, requires_grad=True)
  chosen, commit, indices = codec_quantizer.quantize(x, books, torch.full((20,), 2))
  expected = torch.cdist(x, books[0].embed).argmin(1)
  assert torch.equal(indices[0], expected)
  total = books[0].embed[indices[0]] + books[1].embed[indices[1]]
  torch.testing.assert_close(chosen, total)
  chosen.sum().backward(retain_graph=True)
  torch.testing.assert_close(x.grad, torch.ones_like(x))
  x.grad = None
  commit.backward()
  assert x.grad.abs().sum() > 0


def test_vectors_with_fewer_levels_reach_only_the_first_codebooks(spec):
  torch.manual_seed(0)
  books = codebooks(spec)
  for book in books:
    book.embed.copy_(torch.randn(16, 8))
    book.cluster_size.fill_(1.0)
    book.embed_avg.copy_(book.embed)
  x, levels = torch.randn(64, 8), torch.arange(64) % 2 + 1
  chosen, commit, indices = codec_quantizer.quantize(x, books, levels)
  both, _, every = codec_quantizer.quantize(x, books, torch.full((64,), 2))
  few = levels == 1
  assert torch.equal(indices[1], torch.where(few, -1, every[1]))
  torch.testing.assert_close(chosen[few], books[0].embed[indices[0][few]])
  torch.testing.assert_close(chosen[~few], both[~few])
  errors = torch.cat([x - books[0].embed[indices[0]], (x - both)[~few]])
  torch.testing.assert_close(commit, errors.square().mean() / x.square().mean())
  codec_quantizer.update_codebooks(x, books, indices, decay=0.9, dead_share=0.0)
  assert [float(book.cluster_size.sum()) for book in books] == pytest.approx([20.8, 17.6])


def test_codebooks_start_at_the_centres_of_clusters(spec):
  torch.manual_seed(0)
  books = codebooks(spec)
  centres = torch.randn(16, 8) * 10
  points = centres.repeat_interleave(20, 0) + torch.randn(320, 8) * 0.01
  codec_quantizer.start_codebooks(books, points)
  error = (points - books[0].embed[codec_quantizer.nearest(points, books[0].embed)]).norm(dim=1)
  assert (error < 0.1).float().mean() > 0.4  # k-means may join a few clusters
  left = points - books[0].embed[codec_quantizer.nearest(points, books[0].embed)]
  again = left - books[1].embed[codec_quantizer.nearest(left, books[1].embed)]
  assert again.square().sum() < 0.1 * left.square().sum()


def test_used_codes_move_to_their_vectors_and_dead_ones_come_back(spec):
  torch.manual_seed(0)
  book = codebooks(spec)[0]
  book.embed.copy_(torch.eye(16, 8) * 5)
  book.cluster_size.fill_(1.0)
  book.cluster_size[9] = 0.0
  book.embed_avg.copy_(book.embed * book.cluster_size[:, None])
  x = book.embed[3].expand(64, 8) + 0.5
  index = torch.full((64,), 3)
  restarted = codec_quantizer.update_codebooks(x, [book], [index], decay=0.9, dead_share=0.1)
  assert restarted == 1
  torch.testing.assert_close(book.embed[9], x[0])
  assert book.cluster_size[9] == pytest.approx(float(book.cluster_size.mean()), rel=0.2)
  before = (torch.eye(16, 8) * 5)[3]
  share = 6.4 / 7.3  # 0.1 * 64 new vectors beside 0.9 * 1 old one
  torch.testing.assert_close(book.embed[3], before + 0.5 * share)
  torch.testing.assert_close(book.embed[0], torch.eye(16, 8)[0] * 5)


def test_scaled_layers_let_the_signal_through():
  torch.manual_seed(0)
  config = CodecConfig(model=ModelConfig(n_filters=8, ratios=(4, 4, 2), dimension=32))
  model = build_model(config.spec())
  audio = torch.randn(16, 1, 2560) * 0.1

  @torch.no_grad()
  def heard():  # share of the output that differs from crop to crop
    out = model.decoder(model.encoder(audio))
    return float(out.std(0).mean() / out.std())

  before = heard()
  codec_init.scale_layers(model, audio)
  assert before < 0.05 < 0.3 < heard()
  with torch.no_grad():
    latents = model.encoder(audio)
    out = model.decoder(latents)
  assert latents.std().item() == pytest.approx(codec_init.LAYER_STD, rel=0.05)
  assert out.std().item() == pytest.approx(codec_init.AUDIO_STD, rel=0.05)
  torch.testing.assert_close(latents.mean((0, 2)), torch.zeros(32), atol=1e-3, rtol=0)


def test_padding_by_joining_gives_the_same_numbers():
  from data_prep.codecs import torch_codec

  x = torch.randn(2, 3, 20)
  for pads in [(3, 0), (0, 4), (5, 2), (0, 0), (25, 3)]:
    for mode in ("reflect", "constant"):
      expected = torch_codec._slow_pad1d(x, pads, mode)
      assert torch.equal(torch_codec._pad1d(x, pads, mode), expected)


def test_learning_rate_warms_up_and_falls():
  train = TrainConfig(steps=1000, warmup_steps=100, learning_rate=1e-3)
  rates = [learning_rate(step, train) for step in (0, 99, 100, 550, 1000)]
  np.testing.assert_allclose(rates, [1e-5, 1e-3, 1e-3, 5.05e-4, 1e-5], rtol=1e-6)


@pytest.mark.parametrize(
  ("part", "field", "value"),
  [
    ("train", "steps", 0),
    ("train", "batch", 0),
    ("train", "threads", 0),
    ("train", "ema_decay", 1.0),
    ("train", "level_dropout", 2.0),
    ("train", "init_vectors", 8),
    ("data", "crop_s", 0.0),
    ("model", "n_codes", 100),
    ("data", "roots", ()),
    ("data", "roots", "runs/music"),
    ("train", "log_every", 0),
    ("train", "eval_every", -1),
    ("train", "eval_crops", 0),
    ("train", "eval_clips", 65),
    ("discriminator", "windows", (64, 4)),
    ("discriminator", "windows", (16_384,)),
    ("discriminator", "update_share", 0.0),
    ("discriminator", "balance_decay", 1.0),
  ],
)
def test_config_rules(part, field, value):
  config = CodecConfig(discriminator=DiscriminatorConfig(from_step=0))
  setattr(getattr(config, part), field, value)
  with pytest.raises(UserError, match=f"{part}.{field} must"):
    config.validate()
