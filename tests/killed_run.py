# SPDX-License-Identifier: Apache-2.0
"""Tokenises a corpus of tones slowly, in two processes, so that a test can kill it on the way."""

import sys
import time

from small_corpus import MeanCodec, run_some

from data_prep.tokens.job_runner import Engine


class SlowCodec(MeanCodec):
  def encode(self, audio):
    time.sleep(0.05)
    return super().encode(audio)


if __name__ == "__main__":
  print("started", flush=True)
  run_some(sys.argv[1], sys.argv[2], make_codec=SlowCodec, engine=Engine(workers=2))
