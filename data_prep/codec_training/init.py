# SPDX-License-Identifier: Apache-2.0
"""Sets the scale of a codec's layers from data, so that training starts at once.

With PyTorch's default each of the thirty layers in a row shrinks its signal, and the decoder hears
almost nothing of the audio. With unit activations ELU rectifies, every layer sees mostly loudness,
and six directions carry the latents even after thousands of steps. Small activations keep ELU
linear: the network starts as a chain of filters that lets the waveform through.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

LAYER_STD, BRANCH_STD, AUDIO_STD = 0.03, 0.003, 0.1  # of layers, residual branches, the output


@torch.no_grad()
def scale_layers(model: nn.Module, audio: Float[Tensor, "B channels samples"]) -> None:
  """Sets gains and biases so that every channel has zero mean and every layer its deviation.

  Args:
    model: an EncodecModel with weight norm.
    audio: typical music; some twenty seconds are enough.

  Source: weight normalization (arXiv:1602.07868), section 3, data-dependent initialisation; one
  gain for all channels of a layer, and small ones.
  """
  convolutions: dict[nn.Module, str] = {
    module: name
    for name, module in model.named_modules()
    if isinstance(module, nn.Conv1d | nn.ConvTranspose1d)
  }
  last = [module for module, name in convolutions.items() if name.startswith("decoder")][-1]

  def scale(module: nn.Module, _, out: Tensor) -> Tensor:
    branch = ".block.3." in convolutions[module]
    aim = AUDIO_STD if module is last else BRANCH_STD if branch else LAYER_STD
    mean = out.mean((0, 2))
    centred = out - mean[:, None]
    gain = aim / centred.std()
    bias = module.get_parameter("bias")
    module.get_parameter("weight_g").mul_(gain)
    bias.copy_((bias - mean) * gain)
    return centred * gain

  hooks = [module.register_forward_hook(scale) for module in convolutions]
  model.get_submodule("decoder")(model.get_submodule("encoder")(audio))
  for hook in hooks:
    hook.remove()
