# SPDX-License-Identifier: Apache-2.0
"""Time to first audio: the sampling command from its start until the stem lies there."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stemgen_jax.audio.files import write_audio
from stemgen_jax.bench.table import Row, describe_machine
from stemgen_jax.errors import UserError
from stemgen_jax.sampling.stemgen import StemGen

SECONDS, RATE_HZ = 5.0, 44_100


def measure_first_audio(checkpoint: str | os.PathLike) -> Iterator[Row]:
  """Yields a row each for a process with an empty cache, one with a full one, and a warm process.

  Each writes one stem for five seconds of noise.

  Raises:
    UserError: if the command fails.
  """
  rng = np.random.default_rng(0)
  context = 0.1 * rng.standard_normal((1, round(SECONDS * RATE_HZ)), np.float32)
  with tempfile.TemporaryDirectory() as folder:
    write_audio(Path(folder) / "context.wav", context, RATE_HZ)
    command = [
      sys.executable,
      "-m",
      "stemgen_jax.sample",
      "--checkpoint",
      str(checkpoint),
      "--context",
      f"{folder}/context.wav",
      "--out",
      f"{folder}/out",
    ]
    environment = os.environ | {"XDG_CACHE_HOME": f"{folder}/cache"}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    for case in ("first audio, empty cache", "first audio, full cache"):
      began_s = time.perf_counter()
      done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
      taken_s = time.perf_counter() - began_s
      if done.returncode:
        raise UserError(f"the sampling command must succeed; got {done.stderr.strip()}")
      yield {"case": case, "stem_s": taken_s, **describe_machine()}
    model = StemGen.from_checkpoint(checkpoint)
    for seed in range(2):
      began_s = time.perf_counter()
      model.generate(context, sample_rate=RATE_HZ, seed=seed)
      taken_s = time.perf_counter() - began_s
    yield {"case": "first audio, warm process", "stem_s": taken_s, **describe_machine()}
