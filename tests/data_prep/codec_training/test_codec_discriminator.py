# SPDX-License-Identifier: Apache-2.0
"""The codec's discriminator: its losses, that it learns, and the balance of its gradients."""

import numpy as np
import pytest

from stemgen_jax.errors import UserError

pytest.importorskip("torch", reason="codec training runs in PyTorch")

import torch

from data_prep.codec_training.config import DiscriminatorConfig
from data_prep.codec_training.discriminator import (
  Adversary,
  Discriminator,
  adversarial_loss,
  feature_loss,
  judge_loss,
)

pytestmark = pytest.mark.torch
RATE = 16_000


@pytest.fixture(autouse=True)
def one_thread():
  """Layers this small are slower on several threads, which wait for one another by spinning."""
  threads = torch.get_num_threads()
  torch.set_num_threads(1)
  yield
  torch.set_num_threads(threads)


def small(**fields):
  torch.manual_seed(0)
  fields = {
    "windows": (128, 64),
    "filters": 4,
    "crop_s": 0.05,
    "alone_steps": 0,
    "warmup_steps": 0,
  } | fields
  return Adversary(DiscriminatorConfig(from_step=0, **fields), RATE, bfloat16=False)


def tone_and_noise():
  generator, time_s = torch.Generator().manual_seed(0), torch.arange(1600) / RATE
  tone = 0.3 * torch.sin(2 * torch.pi * 440 * time_s).expand(4, -1)
  return tone, torch.randn(4, 1600, generator=generator) * 0.2


def test_losses_of_known_verdicts():
  real = [[torch.full((1, 2, 3), 2.0), torch.tensor([0.5, 2.0])]]
  made = [[torch.full((1, 2, 3), 1.0), torch.tensor([-0.5, -2.0])]]
  assert judge_loss(real, made) == pytest.approx(0.25 + 0.25)
  assert adversarial_loss(made) == pytest.approx((1.5 + 3) / 2)
  assert feature_loss(real, made) == pytest.approx(0.5)
  assert feature_loss(real, real) == 0


def test_every_window_halves_the_frequencies_three_times():
  said = Discriminator((128, 64), 4)(torch.zeros(2, 640))
  assert [[tuple(layer.shape) for layer in window] for window in said] == [
    [(2, 4, 17, 65), (2, 4, 17, 33), (2, 4, 17, 17), (2, 4, 17, 9), (2, 4, 17, 9), (2, 1, 17, 9)],
    [(2, 4, 37, 33), (2, 4, 37, 17), (2, 4, 37, 9), (2, 4, 37, 5), (2, 4, 37, 5), (2, 1, 37, 5)],
  ]


def test_it_learns_to_tell_music_from_noise():
  adversary, (tone, noise) = small(update_share=1.0, learning_rate=3e-3), tone_and_noise()
  rng = np.random.default_rng(0)
  losses = [
    adversary.gradient(noise, tone, torch.ones_like(tone), rng)[1]["discriminator"].item()
    for _ in range(30)
  ]
  assert losses[0] > 1.5
  assert losses[-1] < 0.5


def test_gradients_are_balanced_against_the_reconstruction_whatever_their_size():
  tone, noise = tone_and_noise()
  for scale in (1e-3, 1e3):
    for weights in ((0.5, 0.0), (0.0, 2.0)):
      adversary = small(weight=weights[0], feature_weight=weights[1])
      reconstruction = scale * torch.randn(4, 1600)
      more, _ = adversary.gradient(noise, tone, reconstruction, np.random.default_rng(0))
      ratio = float(more.norm() / reconstruction.norm())
      assert ratio == pytest.approx(sum(weights), rel=1e-3)


def test_it_hears_one_part_and_its_weight_rises():
  tone, noise = tone_and_noise()
  adversary, sizes = small(warmup_steps=4, feature_weight=0.0, update_share=1e-9), []
  for _ in range(6):  # of an unchanged discriminator: only its weight changes
    more, figures = adversary.gradient(noise, tone, torch.ones_like(tone), np.random.default_rng(0))
    sizes.append(float(more.norm()))
  assert "discriminator" not in figures
  np.testing.assert_allclose(np.divide(sizes, sizes[-1]), [0.25, 0.5, 0.75, 1, 1, 1], rtol=1e-5)
  assert (more != 0).any(dim=0).sum() <= 800


def test_it_learns_alone_first():
  tone, noise = tone_and_noise()
  adversary, rng = small(alone_steps=2, update_share=1e-9), np.random.default_rng(0)
  for step in range(4):
    before = adversary.model[0].layers[0].bias.clone()
    more, figures = adversary.gradient(noise, tone, torch.ones_like(tone), rng)
    assert more.any() == (step >= 2)
    assert ("feature" in figures) == (step >= 2)
    assert torch.equal(adversary.model[0].layers[0].bias, before) == (step >= 2)


def test_quiet_music_is_heard_as_loud_as_any():
  tone, noise = tone_and_noise()
  losses = []
  for gain in (1.0, 0.1):
    _, figures = small().gradient(gain * noise, gain * tone, tone, np.random.default_rng(0))
    losses.append([value.item() for value in figures.values()])
  np.testing.assert_allclose(*losses, rtol=1e-4)


def test_norms_are_the_mean_of_the_first_and_then_move():
  adversary = small(balance_decay=0.5)
  seen = []
  for adversary.steps, size in enumerate((3.0, 5.0, 8.0), start=1):
    seen.append(adversary._track("feature", torch.tensor([size, 0.0])))
  assert seen == [3.0, 4.0, 6.0]


def test_a_broken_step_leaves_the_discriminator_and_the_norms_sound():
  adversary, rng = small(update_share=1.0), np.random.default_rng(0)
  tone, noise = tone_and_noise()
  adversary.gradient(noise, tone, torch.ones_like(tone), rng)
  before, norms = adversary.model[0].layers[0].bias.clone(), dict(adversary.norms)
  adversary.gradient(noise * torch.nan, tone, tone * torch.nan, rng)
  adversary._learn(tone, noise * torch.inf)
  adversary._track("feature", torch.tensor([torch.inf]))
  assert adversary.norms == norms
  assert torch.equal(adversary.model[0].layers[0].bias, before)


def test_a_discriminator_of_another_shape_cannot_be_resumed():
  state = small().state()
  with pytest.raises(UserError, match=r"must keep the windows and filters .* filters=8"):
    small(filters=8).load(state)
