# SPDX-License-Identifier: Apache-2.0
"""How far a reconstruction is from its audio: the losses of codec training."""

import functools

import torch
from jaxtyping import Float
from torch import Tensor

from stemgen_jax.codec.fidelity import FLOOR, MEL_WINDOWS, mel_filters


@functools.cache
def mel_bands(rate_hz: int, window: int, bands: int) -> Float[Tensor, "freqs {bands}"]:
  """Returns the triangular filters of the mel distance."""
  return torch.from_numpy(mel_filters(rate_hz, window, bands))


def log_mel(
  audio: Float[Tensor, "B samples"], rate_hz: int, window: int, bands: int
) -> Float[Tensor, "B frames bands"]:
  """Returns the natural log of mel magnitudes, hop = window / 4, floored at FLOOR."""
  hann = torch.hann_window(window)
  spectrum = torch.stft(audio, window, window // 4, window=hann, return_complex=True)
  magnitude = torch.view_as_real(spectrum).square().sum(-1).add(1e-10).sqrt() * (2 / hann.sum())
  mel = magnitude.transpose(1, 2) @ mel_bands(rate_hz, window, bands)
  return torch.log(mel + FLOOR)


def mel_loss(
  estimate: Float[Tensor, "B samples"],
  audio: Float[Tensor, "B samples"],
  rate_hz: int,
  l2_weight: float = 0.0,
) -> Float[Tensor, ""]:
  """Returns the mean over window sizes of the mean |log mel difference|.

  Args:
    estimate: the reconstruction.
    audio: what it should be.
    rate_hz: of both.
    l2_weight: adds this many times the mean over frames of the difference's RMS over bands.

  Source: EnCodec (arXiv:2210.13438) section 3.4, eq. 1, whose weights are 1 and 1; means instead of
  norms, and fewer bands for short windows, because 64 bands do not fit into 33 bins.
  """
  losses = []
  for window in MEL_WINDOWS:
    bands = min(window * 5 // 32, 80)
    with torch.no_grad():
      target = log_mel(audio, rate_hz, window, bands)
    difference = log_mel(estimate, rate_hz, window, bands) - target
    losses.append(difference.abs().mean())
    if l2_weight:
      rms = (difference.square().mean(dim=-1) + 1e-9).sqrt()  # a root has no slope at zero
      losses[-1] = losses[-1] + l2_weight * rms.mean()
  return torch.stack(losses).mean()


def wave_loss(
  estimate: Float[Tensor, "B samples"], audio: Float[Tensor, "B samples"]
) -> Float[Tensor, ""]:
  """Returns mean |difference| relative to the example's mean |sample|: quiet crops count too."""
  size = audio.abs().mean(dim=-1) + 0.01
  return ((estimate - audio).abs().mean(dim=-1) / size).mean()
