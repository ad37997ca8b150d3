# SPDX-License-Identifier: Apache-2.0
"""Trains a codec of EnCodec's architecture on stems in Slakh's layout; resumes by itself.

Example:
  python -m data_prep.train_codec --config configs/codec_demo.py --workdir runs/codec

WORKDIR gets state.pt (to resume), bundle (the codec so far), music (the songs at the codec's rate;
may be deleted), tensorboard, listen (held-out clips as the codec gives them back) and, at the end,
round_trip.json: the figures on held-out songs that the command prints. Ctrl-C or SIGTERM saves.
"""

import contextlib
import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress

from data_prep.codec_training import audio as codec_audio
from data_prep.codec_training.config import CodecConfig
from data_prep.codec_training.report import RunLog, round_trip
from data_prep.codec_training.trainer import Songs, Trainer
from data_prep.codecs.torch_codec import TorchCodec, pad_by_joining
from stemgen_jax.errors import UserError, run_cli
from stemgen_jax.shell.flags import build_parser, parse_config
from stemgen_jax.shell.folders import make_folder, write_text
from stemgen_jax.shell.progress import make_bars, say


def train(config: CodecConfig, workdir: Path) -> dict[str, list[float]]:
  """Trains to the last step, from where `workdir` stopped, and returns the round trip's figures.

  Raises:
    UserError: if the config breaks a rule, a root holds no songs, or the workdir holds another run.
    SystemExit: with code 130 or 143, the state saved, after SIGINT or SIGTERM.
  """
  config.validate()
  torch.set_num_threads(config.train.threads)
  pad_by_joining()
  make_folder(workdir, "--workdir")
  trainer = Trainer(config)
  trainer.resume(workdir / "state.pt")
  with make_bars() as progress:
    songs = _read(config, config.data.split, workdir, progress)
    held_out = _draw_held_out(_read(config, config.data.eval_split, workdir, progress), config)
    if not trainer.step:
      trainer.start(songs)
    _train(trainer, songs, held_out, workdir, progress)
  figures = round_trip(TorchCodec(workdir / "bundle"), held_out)
  write_text(workdir / "round_trip.json", json.dumps(figures, indent=2) + "\n")
  return figures


def _train(
  trainer: Trainer, songs: Songs, held_out: np.ndarray, workdir: Path, progress: Progress
) -> None:
  """Takes the steps that are left, and reports and saves on the way."""
  train = trainer.config.train
  bar = progress.add_task("training", total=train.steps, completed=trainer.step)
  saved_s = time.monotonic()
  with contextlib.closing(RunLog(workdir)) as log, _note_signals() as signals:
    while trainer.step < train.steps and not signals:
      log.add(trainer.train_step(songs))
      progress.update(bar, completed=trainer.step)
      look = train.eval_every and trainer.step % train.eval_every == 0
      if trainer.step % train.log_every == 0:
        _say(progress, f"step {trainer.step}  {log.flush(trainer.step, trainer.perplexity())}")
      if look or time.monotonic() - saved_s > train.checkpoint_every_s:
        trainer.save(workdir)
        saved_s = time.monotonic()
      if look:
        text = log.look(trainer.step, held_out, train.eval_clips)
        _say(progress, f"step {trainer.step}  held out  {text}")
    trainer.save(workdir)
    if signals:
      _say(progress, f"stopped at step {trainer.step}; the same command goes on from there")
      raise SystemExit(128 + signals[0])


@contextlib.contextmanager
def _note_signals() -> Iterator[list[int]]:
  """Yields a list that SIGINT and SIGTERM are added to; a second one acts as ever."""
  noted: list[int] = []

  def note(number: int, _) -> None:
    noted.append(number)
    signal.signal(number, usual[number])

  usual: dict[int, Any] = {
    number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)
  }
  try:
    yield noted
  finally:
    for number, handler in usual.items():
      signal.signal(number, handler)


def _read(config: CodecConfig, split: str, workdir: Path, progress: Progress) -> Songs:
  data, spec = config.data, config.spec()
  folders = codec_audio.find_songs(data.roots, split, data.max_songs)
  songs = codec_audio.read_songs(folders, spec.sample_rate, spec.channels, workdir / "music")
  found = list(progress.track(songs, total=len(folders), description=f"reading {split} music"))
  if not found:
    raise UserError(
      f"data.roots must hold stems that can be read; got {len(folders)} songs in split={split}"
      " without one. What is wrong with each stands above."
    )
  return found


def _draw_held_out(songs: Songs, config: CodecConfig) -> np.ndarray:
  """Returns the crops that every evaluation hears, [crops, channels, samples]."""
  train, rng = config.train, np.random.default_rng(config.train.seed)
  samples = round(train.eval_crop_s * config.model.sample_rate)
  return codec_audio.draw_crops(songs, rng, train.eval_crops, samples)


def _say(progress: Progress, text: str) -> None:
  say(progress.console, text)


def main() -> None:
  """Runs the command line."""
  parser = build_parser(__doc__)
  parser.add_argument(
    "--workdir", required=True, type=Path, help="folder of the run; resumed if it holds one"
  )
  arguments = parse_config(parser, CodecConfig)
  figures = train(arguments.config, arguments.workdir)
  print("levels kept      " + "".join(f"{i + 1:>9}" for i in range(len(figures["si_sdr_db"]))))
  for name, values in figures.items():
    print(f"{name:<17}" + "".join(f"{value:>9}" for value in values))


if __name__ == "__main__":
  sys.exit(run_cli(main))
