# SPDX-License-Identifier: Apache-2.0
"""Sets the scale of a codec's layers from data, so that training starts at once.

With PyTorch's default each of the thirty layers in a row shrinks its signal: the decoder then hears
almost nothing of the audio, and the loss stands still for thousands of steps.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

BRANCH_STD, AUDIO_STD = 0.3, 0.1  # outputs of residual branches, and of the decoder


@torch.no_grad()
def scale_layers(model: nn.Module, audio: Float[Tensor, "B channels samples"]) -> None:
  """Sets gains and biases so that every channel of every layer has zero mean and unit deviation.

  Args:
    model: an EncodecModel with weight norm.
    audio: typical music; some twenty seconds are enough.

  Source: weight normalization (arXiv:1602.07868), section 3, data-dependent initialisation. A
  transposed convolution has one gain for each input channel, so it gets one scale for all.
  """
  convolutions = {
    module: name
    for name, module in model.named_modules()
    if isinstance(module, nn.Conv1d | nn.ConvTranspose1d)
  }
  last = [m for m, name in convolutions.items() if name.startswith("decoder")][-1]

  def scale(module: nn.Module, _, out: Tensor) -> Tensor:
    branch = ".block.3." in convolutions[module]
    aim = AUDIO_STD if module is last else BRANCH_STD if branch else 1.0
    mean, deviation = out.mean((0, 2)), out.std((0, 2))
    if isinstance(module, nn.ConvTranspose1d):
      deviation = deviation.square().mean().sqrt().expand_as(mean)
      module.weight_g.mul_(aim / deviation[0])
    else:
      module.weight_g.mul_((aim / deviation)[:, None, None])
    module.bias.copy_((module.bias - mean) * aim / deviation)
    return (out - mean[:, None]) * (aim / deviation)[:, None]

  hooks = [module.register_forward_hook(scale) for module in convolutions]
  model.decoder(model.encoder(audio))
  for hook in hooks:
    hook.remove()
