# SPDX-License-Identifier: Apache-2.0
r"""Writes the takes that `looper --recorded` hands out, with the shipped model.

Example:
  python -m stemgen_jax.looper.record

Each of INSTRUMENTS hears the example loop of the package, with two seeds, and is written as a small
Ogg, with what goes round before its start and after its end: an encoder hears no seam then.
"""

import argparse
import sys
import tempfile
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

INSTRUMENTS = ("drums", "bass", "guitar", "piano", "strings", "synth_lead")
SEEDS = (0, 1)
COMPRESSION = 0.7  # of Vorbis, from 0, the best, to 1


def record(folder: Path) -> None:
  """Writes all takes into a folder."""
  from stemgen_jax.looper.worker import write_take
  from stemgen_jax.sampling.stemgen import StemGen

  make_folder(folder, "--out")
  loaded = StemGen.from_checkpoint()
  context, rate_hz = read_audio(EXAMPLE)
  with tempfile.TemporaryDirectory() as work:
    write_audio(heard := Path(work) / "context.wav", context, rate_hz)
    for instrument in INSTRUMENTS:
      for seed in SEEDS:
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
