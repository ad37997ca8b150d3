# SPDX-License-Identifier: Apache-2.0
"""How far a reconstruction is from its audio: training losses and the figures of a round trip."""

import functools
import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

MEL_WINDOWS = (128, 256, 512, 1024, 2048)  # samples
FLOOR = 3e-4  # of a full-scale sine's mel magnitude; quieter is silence


@functools.cache
def mel_filters(rate_hz: int, window: int, bands: int) -> Float[Tensor, "freqs bands"]:
  """Returns triangular filters, evenly spaced in mel, each of unit sum.

  Source: O'Shaughnessy's mel scale; a filter narrower than a bin takes its nearest bin.
  """
  freqs = np.linspace(0, rate_hz / 2, window // 2 + 1)
  top = 2595 * math.log10(1 + rate_hz / 2 / 700)
  edges = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
  low, mid, high = edges[:-2], edges[1:-1], edges[2:]
  rise = (freqs[:, None] - low) / (mid - low)
  fall = (high - freqs[:, None]) / (high - mid)
  filters = np.maximum(0, np.minimum(rise, fall))
  nearest = np.abs(freqs[:, None] - mid).argmin(axis=0)
  empty = filters.sum(axis=0) == 0
  filters[nearest[empty], np.flatnonzero(empty)] = 1
  return torch.from_numpy(filters / filters.sum(axis=0)).float()


def log_mel(
  audio: Float[Tensor, "B samples"], rate_hz: int, window: int, bands: int
) -> Float[Tensor, "B frames bands"]:
  """Returns the natural log of mel magnitudes, hop = window / 4, floored at FLOOR."""
  hann = torch.hann_window(window)
  spectrum = torch.stft(audio, window, window // 4, window=hann, return_complex=True)
  magnitude = torch.view_as_real(spectrum).square().sum(-1).add(1e-10).sqrt() * (2 / hann.sum())
  mel = magnitude.transpose(1, 2) @ mel_filters(rate_hz, window, bands)
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
    l2_weight: adds so many times the mean over frames of the difference's RMS over bands.

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


def mel_distance_db(
  estimate: Float[Tensor, "B samples"], audio: Float[Tensor, "B samples"], rate_hz: int
) -> float:
  """Returns the mean |difference| in dB of 80-band mel magnitudes, 64 ms window, floor -70 dB."""
  difference = log_mel(estimate, rate_hz, 1024, 80) - log_mel(audio, rate_hz, 1024, 80)
  return float(difference.abs().mean() * (20 / math.log(10)))


def si_sdr_db(
  estimate: Float[Tensor, "B samples"], audio: Float[Tensor, "B samples"]
) -> Float[Tensor, " B"]:
  """Returns the scale-invariant signal-to-distortion ratio of each example.

  Source: Le Roux et al., "SDR - half-baked or well done?" (arXiv:1811.02508), eq. 3.
  """
  audio = audio - audio.mean(dim=-1, keepdim=True)
  estimate = estimate - estimate.mean(dim=-1, keepdim=True)
  scale = (estimate * audio).sum(-1, keepdim=True) / audio.square().sum(-1, keepdim=True)
  signal = (scale * audio).square().sum(-1)
  return 10 * torch.log10(signal / (estimate - scale * audio).square().sum(-1))
