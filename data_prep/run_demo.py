# SPDX-License-Identifier: Apache-2.0
r"""Runs the whole chain: music, tokens, some training, and a stem for a song never heard.

Example:
  python -m data_prep.run_demo --out runs/demo

Writes context.wav, stem.wav, mix.wav, target.wav, codec/*.wav and report.html. Each stage is one of
the public commands, shown as it is run; stopped and started again, the demo goes on where it was.
"""

import shutil
import sys
from pathlib import Path

import numpy as np

from data_prep.corpora import open_corpus
from data_prep.corpora.stem_audio import read_stem
from data_prep.corpora.types import Track
from stemgen_jax.audio.files import Samples, write_audio
from stemgen_jax.codec.bundle import DEMO_BUNDLE
from stemgen_jax.errors import UserError, run_cli
from stemgen_jax.shell.flags import build_parser
from stemgen_jax.shell.folders import make_folder
from stemgen_jax.shell.stages import Stages

SONG_S = 30  # many short songs teach more in the same time than few long ones
SONGS_LEAST = 20  # so that validation has two songs or more
EXCERPT_S = 20.0
CODEC_S = 8.0  # of each clip that the page plays before and after the codec


def run_demo(out: Path, songs: int, seed: int, instrument: str, overrides: list[str]) -> Path:
  """Runs every stage and returns the report's path.

  Args:
    out: folder of everything the demo writes.
    songs: how many songs to render.
    seed: of music, tokens, training and sampling.
    instrument: the stem to write for the held-out song.
    overrides: further flags of the training command, as `--config.optim.steps=100`.
  """
  if songs < SONGS_LEAST:
    raise UserError(f"--songs must be at least {SONGS_LEAST}; got {songs}. Fewer cannot be split.")
  make_folder(out, "--out")
  stages = Stages(out / "stages.json")
  music, tokens, model, takes = (out / name for name in ("music", "tokens", "model", "takes"))
  stages.run(
    "render music",
    "data_prep.demo",
    "--out",
    music,
    "--songs",
    songs,
    "--seconds",
    SONG_S,
    "--seed",
    seed,
  )
  stages.run(
    "tokenise", "data_prep.tokenize", "--corpus", "slakh", "--root", music,
    "--codec", DEMO_BUNDLE, "--out", tokens, "--name", "demo", "--mixes", 5,
    "--seed", seed,
  )  # fmt: skip
  stages.run(
    "train", "stemgen_jax.train", "--config", "configs/demo.py", "--workdir", model,
    "--init_from", "shipped", f"--config.data.path={tokens}", f"--config.seed={seed}", *overrides,
  )  # fmt: skip
  track = choose_track(music, instrument)
  write_excerpt(track, instrument, out)
  stages.run(
    "sample", "stemgen_jax.sample", "--checkpoint", model, "--context", out / "context.wav",
    "--instrument", instrument, "--out", takes, "--takes", 2, "--seed", seed,
  )  # fmt: skip
  shutil.copyfile(takes / "take_00.wav", out / "stem.wav")
  shutil.copyfile(takes / "take_00_mix.wav", out / "mix.wav")
  stages.run("report", "data_prep.demo_page", "--demo", out, "--song", track.id)
  return out / "report.html"


def choose_track(music: Path, instrument: str) -> Track:
  """Returns the first test song with a stem of that instrument."""
  for track in open_corpus("slakh", music).tracks():
    if track.split == "test" and len(stems_of(track, instrument)) == 1:
      return track
  raise UserError(f"a test song must have one stem of '{instrument}'; got none under {music}.")


def stems_of(track: Track, instrument: str) -> list[Path]:
  """Returns the files of a track's stems of one instrument."""
  return [s.files[0].path for s in track.stems if s.category == instrument]


def write_excerpt(track: Track, instrument: str, out: Path) -> None:
  """Writes the stretch where the stem is loudest.

  target.wav is the stem and context.wav the sum of all others; codec/ gets a shorter stretch of
  the full mix, of the stem, and of the drums (or the loudest other stem).
  """
  names = [str(stem.conditions.get("instrument")) for stem in track.stems]
  audio = [read_stem(stem) for stem in track.stems]
  rate_hz, length = audio[0][1], max(samples.shape[1] for samples, _ in audio)
  stems = np.stack([np.pad(a, ((0, 0), (0, length - a.shape[1]))) for a, _ in audio])
  index = names.index(instrument)
  excerpt = stems[..., loudest(stems[index], rate_hz, EXCERPT_S)]
  context = np.delete(excerpt, index, axis=0)
  write_audio(out / "target.wav", excerpt[index], rate_hz)
  write_audio(out / "context.wav", context.sum(axis=0), rate_hz)

  clip = stems[..., loudest(stems[index], rate_hz, CODEC_S)]
  level = np.square(clip).sum(axis=(1, 2))
  others = [i for i in range(len(names)) if i != index]
  other = max(others, key=lambda i: (names[i] == "drums", level[i]))
  shutil.rmtree(out / "codec", ignore_errors=True)
  make_folder(out / "codec", "--out")
  write_audio(out / "codec" / "1_full_mix.wav", clip.sum(axis=0), rate_hz)
  write_audio(out / "codec" / f"2_{instrument}.wav", clip[index], rate_hz)
  write_audio(out / "codec" / f"3_{names[other]}.wav", clip[other], rate_hz)


def loudest(samples: Samples, rate_hz: int, seconds: float) -> slice:
  """Returns the stretch of the most energy, starting at a whole second."""
  size = round(seconds * rate_hz)
  starts = range(0, max(1, samples.shape[1] - size + 1), rate_hz)
  start = max(starts, key=lambda s: float(np.square(samples[:, s : s + size]).sum()))
  return slice(start, start + size)


def main(argv: list[str] | None = None) -> None:
  """Runs the demo from the music to the report, and prints where the report lies."""
  parser = build_parser(__doc__)
  parser.add_argument("--out", type=Path, default=Path("runs/demo"))
  parser.add_argument("--songs", type=int, default=60)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--instrument", default="bass")
  arguments, overrides = parser.parse_known_args(argv)
  report = run_demo(arguments.out, arguments.songs, arguments.seed, arguments.instrument, overrides)
  print(f"\nOpen {report} in a browser.")


if __name__ == "__main__":
  sys.exit(run_cli(main))
