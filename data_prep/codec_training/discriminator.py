# SPDX-License-Identifier: Apache-2.0
"""The discriminator that a codec may train against: complex spectrograms at several windows.

Knows nothing of codecs: it hears two batches of mono audio of one length.
"""

import math
from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from data_prep.codec_training.config import DiscriminatorConfig
from stemgen_jax.errors import UserError

Layers = list[list[Tensor]]  # of each window: what its layers say, the verdict last
QUIET = 0.01  # RMS up to which a crop is heard at unit RMS: at its own level it teaches little


class WindowDiscriminator(nn.Module):
  """Judges the complex spectrogram of one window length, every place of it by itself.

  Source: EnCodec (arXiv:2210.13438) section 3.4 and figure 2. The kernel is 9 and not 8 wide in
  frequency, so that padding is even.
  """

  hann: Tensor

  def __init__(self, window: int, filters: int):
    super().__init__()

    def convolution(taken: int, given: int, kernel: tuple[int, int], dilation: int, stride: int):
      pads = ((kernel[0] - 1) // 2 * dilation, (kernel[1] - 1) // 2)
      return weight_norm(
        nn.Conv2d(taken, given, kernel, (1, stride), padding=pads, dilation=(dilation, 1))
      )

    self.layers = nn.ModuleList(
      [
        convolution(2, filters, (3, 9), 1, 1),
        *(convolution(filters, filters, (3, 9), dilation, 2) for dilation in (1, 2, 4)),
        convolution(filters, filters, (3, 3), 1, 1),
        convolution(filters, 1, (3, 3), 1, 1),
      ]
    )
    self.register_buffer("hann", torch.hann_window(window), persistent=False)

  def forward(self, audio: Float[Tensor, "B samples"]) -> list[Tensor]:
    """Returns what every layer says, [B, filters, frames, freqs]; the last is the verdict."""
    with torch.autocast("cpu", enabled=False):
      size = len(self.hann)
      spectrum = torch.stft(
        audio, size, size // 4, window=self.hann, center=False, return_complex=True
      )
      out = torch.view_as_real(spectrum / self.hann.norm()).permute(0, 3, 2, 1).contiguous()
    said = []
    for layer in self.layers[:-1]:
      out = nn.functional.leaky_relu(layer(out), 0.2)
      said.append(out)
    return [*said, self.layers[-1](out)]


class Discriminator(nn.ModuleList):
  """One `WindowDiscriminator` a window length."""

  def __init__(self, windows: Iterable[int], filters: int):
    super().__init__(WindowDiscriminator(window, filters) for window in windows)

  def forward(self, audio: Float[Tensor, "B samples"]) -> Layers:
    """Returns what every layer of every window says."""
    return [part(audio) for part in self]


def judge_loss(real: Layers, made: Layers) -> Float[Tensor, ""]:
  """Returns the discriminator's hinge loss, mean over windows; 2 for one that cannot tell."""
  losses = [
    torch.relu(1 - r[-1].float()).mean() + torch.relu(1 + m[-1].float()).mean()
    for r, m in zip(real, made, strict=True)
  ]
  return torch.stack(losses).mean()


def adversarial_loss(made: Layers) -> Float[Tensor, ""]:
  """Returns the codec's hinge loss, mean over windows: 0 where the discriminator is fooled."""
  return torch.stack([torch.relu(1 - m[-1].float()).mean() for m in made]).mean()


def feature_loss(real: Layers, made: Layers) -> Float[Tensor, ""]:
  """Returns the mean over layers of |difference| relative to the real features' mean size.

  Source: EnCodec (arXiv:2210.13438) section 3.4, eq. 2; without the verdicts.
  """
  losses = []
  for r, m in zip(real, made, strict=True):
    for of_real, of_made in zip(r[:-1], m[:-1], strict=True):
      target = of_real.detach().float()
      losses.append((of_made.float() - target).abs().mean() / (target.abs().mean() + 1e-9))
  return torch.stack(losses).mean()


class Adversary:
  """A discriminator in training: its optimiser, and the norms that balance its two losses.

  Each loss's gradient at the codec's output is scaled so that its norm is `weight` times that of
  the reconstruction losses, whatever the natural size of either. Those keep their own sum: a run
  that a discriminator joins late goes on at the scale that clipping and commitment are set for.

  The discriminator first learns alone: one that knows nothing yet spoils a trained codec.

  Source: EnCodec (arXiv:2210.13438) section 3.4, "Balancer", which scales every loss.
  """

  def __init__(self, config: DiscriminatorConfig, rate_hz: int, bfloat16: bool):
    self.config, self._bfloat16 = config, bfloat16
    self._samples = round(config.crop_s * rate_hz)
    self.model = Discriminator(config.windows, config.filters)
    self.optimizer = torch.optim.Adam(
      self.model.parameters(), lr=config.learning_rate, betas=(0.5, 0.9)
    )
    self.steps, self.norms = 0, {"reconstruction": 0.0, "adversarial": 0.0, "feature": 0.0}

  def gradient(
    self,
    estimate: Float[Tensor, "B samples"],
    audio: Float[Tensor, "B samples"],
    reconstruction: Float[Tensor, "B samples"],
    rng: np.random.Generator,
  ) -> tuple[Float[Tensor, "B samples"], dict[str, Tensor]]:
    """Returns what the two losses add to the gradient at the codec's output, and the losses.

    Args:
      estimate: the codec's output.
      audio: what it should be.
      reconstruction: the gradient of the reconstruction losses there, which sets the scale.
      rng: chooses the part that is heard, and whether the discriminator learns from it.
    """
    if not torch.isfinite(reconstruction).all():  # a step that will be skipped teaches nothing
      return torch.zeros_like(audio), {}
    config, estimate = self.config, estimate.detach().requires_grad_()
    start = int(rng.integers(max(audio.shape[1] - self._samples, 0) + 1))
    heard = slice(start, start + self._samples)
    rms = audio[:, heard].square().mean(dim=1, keepdim=True).sqrt().clamp(min=QUIET)
    real, made = audio[:, heard] / rms, estimate[:, heard] / rms
    self.steps += 1
    figures, alone = {}, self.steps <= config.alone_steps
    if rng.random() < config.update_share or alone:
      figures["discriminator"] = self._learn(real, made.detach())
    if alone:
      return torch.zeros_like(audio), figures
    with torch.autocast("cpu", torch.bfloat16, enabled=self._bfloat16):
      with torch.no_grad():
        of_real = self.model(real)
      of_made = self.model(made)
    figures["adversarial"], figures["feature"] = (
      adversarial_loss(of_made),
      feature_loss(of_real, of_made),
    )
    ramp = min((self.steps - config.alone_steps) / max(config.warmup_steps, 1), 1.0)
    weights = {"adversarial": config.weight * ramp, "feature": config.feature_weight * ramp}
    scale, total = self._track("reconstruction", reconstruction), torch.zeros_like(reconstruction)
    for name, weight in weights.items():
      (slope,) = torch.autograd.grad(figures[name], estimate, retain_graph=name == "adversarial")
      total += slope * (weight * scale / (self._track(name, slope) + 1e-12))
    return total, figures

  def _track(self, name: str, gradient: Tensor) -> float:
    """Returns the moving average of a gradient's norm: of the first ones, the plain mean."""
    rate = max(1 - self.config.balance_decay, 1 / (self.steps - self.config.alone_steps))
    size = float(gradient.norm())
    if math.isfinite(size):  # otherwise the step is skipped, and the average must outlive it
      self.norms[name] += rate * (size - self.norms[name])
    return self.norms[name]

  def _learn(self, real: Float[Tensor, "B samples"], made: Float[Tensor, "B samples"]) -> Tensor:
    """Takes one step of the discriminator and returns its loss."""
    with torch.autocast("cpu", torch.bfloat16, enabled=self._bfloat16):
      loss = judge_loss(self.model(real), self.model(made))
    self.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if torch.isfinite(loss):
      self.optimizer.step()
    return loss

  def state(self) -> dict:
    """Returns all that a resumed run needs."""
    return {
      "model": self.model.state_dict(),
      "optimizer": self.optimizer.state_dict(),
      "steps": self.steps,
      "norms": dict(self.norms),
    }

  def load(self, state: dict) -> None:
    """Takes up what `state` returned.

    Raises:
      UserError: if it is of a discriminator of another shape.
    """
    try:
      self.model.load_state_dict(state["model"])
      self.optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError) as error:
      raise UserError(
        "config.discriminator must keep the windows and filters of the run to resume; got"
        f" windows={self.config.windows} filters={self.config.filters}. Set them back, or give"
        " another --workdir."
      ) from error
    self.steps, self.norms = state["steps"], dict(state["norms"])
