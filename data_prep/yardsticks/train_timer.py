# SPDX-License-Identifier: Apache-2.0
r"""Times training steps in plain PyTorch for `python -m stemgen_jax.bench train --torch`.

Example:
  echo step | python -m data_prep.yardsticks.train_timer --weights w.npz --frames 250 --batch 8

A step is what ours is: forward, the head of the level that each window is asked for, cross-entropy
over hidden frames, backward, clipping, AdamW (on cuda the fused one), averaged weights. Every line
of standard input is answered with the seconds of one step; torch's version comes first.
"""

import sys
import time
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from data_prep.yardsticks.sample_timer import nest
from data_prep.yardsticks.torch_sampler import TorchNetwork
from stemgen_jax.errors import run_cli
from stemgen_jax.shell.flags import build_parser

AVERAGE_DECAY, CLIP_NORM = 0.999, 1.0


class Trainer:
  """A network in training on random codes."""

  def __init__(self, network: TorchNetwork, frames: int, batch: int, device: str, dtype: str):
    self.device, self.short = device, dtype == "bfloat16"
    self.network = network.to(device).requires_grad_(True)
    self.weights = list(self.network.parameters())
    self.average = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(AVERAGE_DECAY))
    fused: Any = {"fused": True} if device == "cuda" else {}
    self.optimizer = torch.optim.AdamW(self.weights, 1e-4, weight_decay=0.1, **fused)
    levels, codes, _ = network.codebooks.shape
    self.context, self.target = torch.randint(0, codes - 1, (2, batch, frames, levels)).to(device)
    self.level = (torch.arange(batch) % levels).to(device)
    self.hidden = (torch.rand(batch, frames) < 0.5).to(device)
    self.conditions = torch.zeros((batch, len(network.conditions)), dtype=torch.long).to(device)

  def take_step(self) -> float:
    """Takes one step and returns its loss, which waits for the device."""
    keep = [True] * (1 + len(self.network.conditions))
    with torch.autocast(self.device, torch.bfloat16, enabled=self.short):
      features = self.network.features(self.target, self.context, self.conditions, keep)
      logits = torch.einsum("btd,bdv->btv", features, self.network.heads[self.level])
    wanted = self.target.gather(2, self.level[:, None, None].expand(-1, self.target.shape[1], 1))
    losses = functional.cross_entropy(
      logits.flatten(0, 1).float(), wanted.flatten(), reduction="none"
    )
    loss = (losses * self.hidden.flatten()).sum() / self.hidden.sum()
    self.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(self.weights, CLIP_NORM)
    self.optimizer.step()
    self.average.update_parameters(self.network)
    return loss.item()


def main(argv: list[str] | None = None) -> None:
  """Loads the weights, then answers every line until the input ends."""
  parser = build_parser(__doc__)
  parser.add_argument("--weights", required=True, help="an .npz of the parameters by their paths")
  parser.add_argument("--frames", type=int, required=True)
  parser.add_argument("--batch", type=int, required=True)
  parser.add_argument("--threads", type=int, default=1)
  parser.add_argument("--device", default="cpu")
  parser.add_argument("--dtype", default="float32", help="bfloat16 multiplies by autocast")
  arguments = parser.parse_args(argv)
  torch.set_num_threads(arguments.threads)
  params = nest(dict(np.load(arguments.weights)))
  network = TorchNetwork(params, list(params.get("conditions", {})))
  trainer = Trainer(network, arguments.frames, arguments.batch, arguments.device, arguments.dtype)
  print(torch.__version__, flush=True)
  for _ in sys.stdin:
    start = time.perf_counter()
    trainer.take_step()
    print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
  sys.exit(run_cli(main))
