# SPDX-License-Identifier: Apache-2.0
r"""Writes the takes that `looper --recorded` hands out, with the shipped model.

Example:
  python -m stemgen_jax.looper.record

Each instrument of TAKES hears the example loop of the package and is written as a small Ogg, with
what goes round before its start and after its end: an encoder hears no seam then. The seeds are
the first whose takes are not too soft, nor begin with a note where the loop closes.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile

from stemgen_jax.audio.files import read_audio, write_audio
from stemgen_jax.errors import run_cli
from stemgen_jax.looper.document import GUIDANCE
from stemgen_jax.looper.flags import Model, build_words
from stemgen_jax.looper.recorded import FOLDER, ROUND_SAMPLES
from stemgen_jax.shell.flags import build_parser
from stemgen_jax.shell.folders import make_folder
from stemgen_jax.training.model_bundle import EXAMPLE

TAKES = {
  "drums": (0, 1),
  "bass": (0, 2),
  "guitar": (0, 1),
  "piano": (0, 1),
  "strings": (1, 2),
  "synth_lead": (0, 1),
}
COMPRESSION = 0.7  # of Vorbis, from 0, the best, to 1


def record(folder: Path, takes: Mapping[str, Sequence[int]] = TAKES) -> None:
  """Writes takes, by instrument and seed, into a folder."""
  from stemgen_jax.looper.worker import write_take
  from stemgen_jax.sampling.stemgen import StemGen

  make_folder(folder, "--out")
  loaded = StemGen.from_checkpoint()
  context, rate_hz = read_audio(EXAMPLE)
  with tempfile.TemporaryDirectory() as work:
    write_audio(heard := Path(work) / "context.wav", context, rate_hz)
    for instrument, seeds in takes.items():
      for seed in seeds:
        words = build_words(Model(), str(heard), instrument, seed, GUIDANCE)
        write_take(loaded, words, Path(work), lambda text: None)
        stem, _ = read_audio(Path(work) / "take_00.wav")
        length = stem.shape[1]
        wide = np.take(stem, range(-ROUND_SAMPLES, length + ROUND_SAMPLES), axis=1, mode="wrap")
        path = folder / f"{instrument}_{seed}.ogg"
        soundfile.write(path, wide.T, rate_hz, "VORBIS", compression_level=COMPRESSION)
        print(path)


def main(argv: list[str] | None = None) -> None:
  """Writes the takes that the command line asks for."""
  parser: argparse.ArgumentParser = build_parser(__doc__)
  parser.add_argument("--out", type=Path, default=FOLDER, help="folder (default: the package's)")
  record(parser.parse_args(argv).out)


if __name__ == "__main__":
  sys.exit(run_cli(main))
