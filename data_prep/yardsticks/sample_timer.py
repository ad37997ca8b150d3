# SPDX-License-Identifier: Apache-2.0
r"""Times the plain PyTorch sampler for `python -m stemgen_jax.bench sample`, which starts this.

Example:
  echo decode | python -m data_prep.yardsticks.sample_timer --weights weights.npz --frames 250 \
    --batch 1 --steps 24 12 8 8 --scales 2 1.5

Every line of standard input is answered with the seconds of one decode; torch's version comes
first.
"""

import sys
import time

import numpy as np
import torch

from data_prep.yardsticks.torch_sampler import TorchNetwork, decode
from stemgen_jax.errors import run_cli
from stemgen_jax.shell.flags import build_parser


def main(argv: list[str] | None = None) -> None:
  """Loads the weights, then answers every line until the input ends."""
  parser = build_parser(__doc__)
  parser.add_argument("--weights", required=True, help="an .npz of the parameters by their paths")
  parser.add_argument("--frames", type=int, required=True)
  parser.add_argument("--batch", type=int, required=True)
  parser.add_argument("--steps", type=int, nargs="+", required=True)
  parser.add_argument("--scales", type=float, nargs="*", default=[])
  parser.add_argument("--threads", type=int, default=1)
  parser.add_argument("--device", default="cpu")
  parser.add_argument("--dtype", default="float32", help="what the network multiplies")
  arguments = parser.parse_args(argv)
  torch.set_num_threads(arguments.threads)
  params = nest(dict(np.load(arguments.weights)))
  network = TorchNetwork(params, list(params.get("conditions", {})))
  network = network.to(arguments.device, getattr(torch, arguments.dtype))
  levels, codes, _ = network.codebooks.shape
  context = torch.randint(0, codes - 1, (arguments.batch, arguments.frames, levels))
  conditions = torch.zeros((arguments.batch, len(network.conditions)), dtype=torch.long)
  context, conditions = context.to(arguments.device), conditions.to(arguments.device)
  print(torch.__version__, flush=True)
  for _ in sys.stdin:
    start = time.perf_counter()
    stem = decode(network, context, conditions, arguments.steps, arguments.scales)
    stem.cpu()  # waits for the device
    print(time.perf_counter() - start, flush=True)


def nest(flat: dict[str, np.ndarray]) -> dict:
  """Returns arrays named as a/b/c as nested dicts."""
  nested: dict = {}
  for path, array in flat.items():
    *folders, name = path.split("/")
    at = nested
    for folder in folders:
      at = at.setdefault(folder, {})
    at[name] = array
  return nested


if __name__ == "__main__":
  sys.exit(run_cli(main))
