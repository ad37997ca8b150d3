# SPDX-License-Identifier: Apache-2.0
"""What a decoder is taught by: log spectra in mel bands and in bins, and complex spectra."""

import torch
from jaxtyping import Float
from torch import Tensor

from stemgen_jax.codec.fidelity import mel_filters

MEL_BANDS = {2048: 160, 1024: 120, 512: 80, 256: 40, 128: 20}  # window -> bands
FLOOR = 1e-5  # of a full-scale sine's magnitude, -100 dB
BIN_WINDOWS, BIN_WEIGHT = (2048, 1024, 512), 0.5
COMPLEX_WINDOWS = (2048, 1024)
COMPLEX_WEIGHT, COMPRESSION = 0.2, 0.3


class Spectra:
  """Short-time spectra of several windows on one device, and the losses made of them."""

  def __init__(self, rate_hz: int, device: str):
    self._hann = {w: torch.hann_window(w, device=device) for w in MEL_BANDS}
    self._mel = {
      w: torch.from_numpy(mel_filters(rate_hz, w, bands)).to(device)
      for w, bands in MEL_BANDS.items()
    }

  def loss(
    self, made: Float[Tensor, "B samples"], audio: Float[Tensor, "B samples"]
  ) -> dict[str, Float[Tensor, ""]]:
    """Returns the losses by name: "mel", "bins" and "phase", to be added.

    "mel" is the mean |log mel difference|. A band does not tell a noise from one tone of its power:
    "bins", the same of single bins, does. "phase" is the mean distance of compressed complex
    spectra, |X|^0.3 X / |X|.
    """
    mel, bins, phase = [], [], []
    for window, hann in self._hann.items():
      pair = torch.cat([made, audio])
      spectrum = torch.stft(pair, window, window // 4, window=hann, return_complex=True)
      power = torch.view_as_real(spectrum).square().sum(-1)
      magnitude = power.clamp(min=1e-12).sqrt()
      bands = (magnitude * (2 / hann.sum())).transpose(1, 2) @ self._mel[window]
      mel.append(_distance(bands))
      if window in BIN_WINDOWS:
        bins.append(BIN_WEIGHT * _distance(magnitude * (2 / hann.sum())))
      if window in COMPLEX_WINDOWS:
        size = magnitude.clamp(min=1e-4)
        pressed = torch.view_as_real(spectrum) * (size ** (COMPRESSION - 1))[..., None]
        ours, theirs = pressed.chunk(2)
        apart = (ours - theirs).square().sum(-1).clamp(min=1e-12).sqrt()
        phase.append(COMPLEX_WEIGHT * apart.mean())
    return {
      "mel": torch.stack(mel).mean(),
      "bins": torch.stack(bins).mean(),
      "phase": torch.stack(phase).sum(),
    }


def _distance(magnitudes: Float[Tensor, "two_B time freqs"]) -> Float[Tensor, ""]:
  """Returns the mean |log difference| of the first half of a batch from the second."""
  ours, theirs = torch.log(magnitudes + FLOOR).chunk(2)
  return (ours - theirs).abs().mean()
