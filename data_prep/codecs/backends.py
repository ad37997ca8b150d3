# SPDX-License-Identifier: Apache-2.0
"""Chooses what runs a codec bundle: PyTorch, or JAX where it is missing or wished for."""

import importlib.util

from data_prep.tokens.tokenizer import Codec
from stemgen_jax.errors import UserError


def load_codec(bundle: str, backend: str | None = None, device: str = "cpu") -> Codec:
  """Returns a bundle's codec in PyTorch or JAX: their tokens are the same.

  Args:
    bundle: its folder.
    backend: torch, jax, or None for torch where it is installed.
    device: of torch, cpu or cuda; JAX takes the accelerator that it finds.

  Raises:
    UserError: if the backend or the device is not there, or the bundle cannot be used.
  """
  installed = all(importlib.util.find_spec(name) for name in ("torch", "encodec"))
  backend = backend or ("torch" if installed else "jax")
  if backend == "jax":
    if device != "cpu":
      raise UserError(f"device is torch's; got device={device} with backend=jax. Leave it out.")
    from stemgen_jax import codec

    return codec.load(bundle)
  if not installed:
    raise UserError("backend must be installed; got backend=torch without it. Use --backend jax.")
  import torch

  from data_prep.codecs.torch_codec import TorchCodec

  check_device(device)
  # A core for each process, no threads inside an operation: torch's own wait by spinning, and two
  # of them were ten times slower than one when another program used a core.
  torch.set_num_threads(1)
  # TF32 flips codes near the edge between two: they must be those of a CPU and of JAX.
  torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
  return TorchCodec(bundle, device)


def check_device(device: str) -> None:
  """Raises a UserError for a CUDA device that torch does not have."""
  import torch

  if device.startswith("cuda") and not torch.cuda.is_available():
    raise UserError(f"device must be one that torch has; got device={device}. Use --device cpu.")
