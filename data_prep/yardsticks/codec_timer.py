# SPDX-License-Identifier: Apache-2.0
r"""Times the PyTorch codec for `python -m stemgen_jax.bench codec`, which starts this.

Example:
  head -c 64000 /dev/zero |
    python -m data_prep.yardsticks.codec_timer --codec BUNDLE --shape 1 1 16000

Standard input is float32 audio of the shape, then a line `encode` or `decode` for each call (decode
takes the codes of the last encode). Every answer is a line: torch's version, then seconds.
"""

import sys
import time

import numpy as np
import torch

from data_prep.codecs.torch_codec import TorchCodec
from stemgen_jax.errors import run_cli
from stemgen_jax.shell.flags import build_parser


def main(argv: list[str] | None = None) -> None:
  """Loads the codec and the audio, then answers every line until the input ends.

  Raises:
    UserError: if the bundle cannot be loaded.
  """
  parser = build_parser(__doc__)
  parser.add_argument("--codec", required=True, metavar="BUNDLE")
  parser.add_argument("--shape", type=int, nargs=3, required=True, help="batch, channels, samples")
  parser.add_argument("--threads", type=int, default=1)
  arguments = parser.parse_args(argv)
  torch.set_num_threads(arguments.threads)
  codec = TorchCodec(arguments.codec)
  read = sys.stdin.buffer
  sound = np.frombuffer(read.read(4 * int(np.prod(arguments.shape))), np.float32)
  audio = sound.reshape(arguments.shape).copy()  # torch wants to own what it reads
  print(torch.__version__, flush=True)
  codes = np.zeros((0, 0, 0), np.int32)
  for line in read:
    start = time.perf_counter()
    if line.strip() == b"encode":
      codes = codec.encode(audio)
    else:
      codec.decode(codes)
    print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
  sys.exit(run_cli(main))
