# SPDX-License-Identifier: Apache-2.0
"""What a decoder is taught by: log mel spectra of five windows, and complex spectra of two."""

import torch
from jaxtyping import Float
from torch import Tensor

from stemgen_jax.codec.fidelity import mel_filters

MEL_BANDS = {2048: 160, 1024: 120, 512: 80, 256: 40, 128: 20}  # window -> bands
MEL_FLOOR = 1e-5
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
  ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Returns the mean |log mel difference|, and that of compressed complex spectra.

    The second hears phase: |X|^0.3 X / |X|, after the log mel has no more to say.
    """
    mel, phase = [], []
    for window, hann in self._hann.items():
      pair = torch.cat([made, audio])
      spectrum = torch.stft(pair, window, window // 4, window=hann, return_complex=True)
      power = torch.view_as_real(spectrum).square().sum(-1)
      magnitude = power.clamp(min=1e-12).sqrt()
      bands = (magnitude * (2 / hann.sum())).transpose(1, 2) @ self._mel[window]
      ours, theirs = torch.log(bands + MEL_FLOOR).chunk(2)
      mel.append((ours - theirs.detach()).abs().mean())
      if window in COMPLEX_WINDOWS:
        size = magnitude.clamp(min=1e-4)
        pressed = torch.view_as_real(spectrum) * (size ** (COMPRESSION - 1))[..., None]
        ours, theirs = pressed.chunk(2)
        apart = (ours - theirs).square().sum(-1).clamp(min=1e-12).sqrt()
        phase.append(COMPLEX_WEIGHT * apart.mean())
    return torch.stack(mel).mean(), torch.stack(phase).sum()
