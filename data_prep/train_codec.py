# SPDX-License-Identifier: Apache-2.0
"""Trains a codec of EnCodec's architecture on stems in Slakh's layout; resumes by itself.

  python -m data_prep.train_codec --config configs/codec_demo.py --workdir runs/codec

Writes WORKDIR/state.pt (to resume), WORKDIR/bundle (the codec so far) and, at the end,
WORKDIR/round_trip.json: the figures on held-out songs that it prints.
"""

import dataclasses
import json
import math
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from data_prep import codec_audio, codec_losses
from data_prep.codec_config import CodecConfig, ModelConfig, TrainConfig
from data_prep.codec_init import scale_layers
from data_prep.codec_quantizer import quantize, start_codebooks, update_codebooks
from data_prep.torch_codec import (
  TorchCodec,
  build_model,
  pad_by_joining,
  read_weights,
)
from stemgen_jax.cli import build_parser, parse_config
from stemgen_jax.codec.bundle import save_bundle
from stemgen_jax.errors import UserError, run_cli
from stemgen_jax.files import make_folder

Songs = list[codec_audio.Song]


def train(config: CodecConfig, workdir: Path) -> dict[str, list[float]]:
  """Trains to the last step, from where `workdir` stopped, and returns the round trip's figures."""
  config.validate()
  torch.set_num_threads(config.train.threads)
  pad_by_joining()
  make_folder(workdir, "--workdir")
  data, spec = config.data, config.spec()
  console = Console(stderr=True)
  folders = codec_audio.find_songs(data.root, data.split, data.max_songs)
  eval_folders = codec_audio.find_songs(data.root, data.eval_split, data.max_songs)
  trainer = Trainer(config)
  trainer.resume(workdir / "state.pt")
  with _progress(console) as progress:
    songs = [
      codec_audio.read_song(folder, spec.sample_rate, spec.channels)
      for folder in progress.track(folders, description="reading music")
    ]
    if not trainer.step:
      trainer.start(songs)
    bar = progress.add_task("training", total=config.train.steps, completed=trainer.step)
    saved_s, window = time.monotonic(), []
    while trainer.step < config.train.steps:
      window.append(trainer.train_step(songs))
      if trainer.step % 50 == 0:
        text = "  ".join(f"{k} {np.mean([m[k] for m in window]):.3f}" for k in window[0])
        progress.update(bar, completed=trainer.step, description=f"training  {text}")
        if not console.is_terminal:
          print(f"step {trainer.step}  {text}", file=sys.stderr, flush=True)
        window = []
      if time.monotonic() - saved_s > config.train.checkpoint_every_s:
        trainer.save(workdir)
        saved_s = time.monotonic()
  trainer.save(workdir)
  del songs
  held_out = [codec_audio.read_song(f, spec.sample_rate, spec.channels) for f in eval_folders]
  figures = round_trip(workdir / "bundle", held_out, config.train)
  _write_text(workdir / "round_trip.json", json.dumps(figures, indent=2) + "\n")
  return figures


class Trainer:
  """The model, its optimiser and the step; each step's randomness comes from (seed, step)."""

  def __init__(self, config: CodecConfig):
    self.config, self.step = config, 0
    torch.manual_seed(config.train.seed)
    self.model = build_model(config.spec())
    self.codebooks = [layer._codebook for layer in self.model.quantizer.vq.layers]
    self.optimizer = torch.optim.AdamW(
      self.model.parameters(), lr=config.train.learning_rate, betas=(0.8, 0.99), weight_decay=1e-3
    )

  def start(self, songs: Songs) -> None:
    """Scales the fresh layers to the music."""
    rng, spec = np.random.default_rng(self.config.train.seed), self.config.spec()
    samples = round(self.config.data.crop_s * spec.sample_rate)
    scale_layers(self.model, torch.from_numpy(codec_audio.draw_crops(songs, rng, 32, samples)))

  def train_step(self, songs: Songs) -> dict[str, float]:
    """Takes one step on fresh crops and returns its losses."""
    train, data, spec = self.config.train, self.config.data, self.config.spec()
    rng = np.random.default_rng((train.seed, self.step))
    torch.manual_seed(int(rng.integers(2**31)))
    samples = spec.frames(round(data.crop_s * spec.sample_rate)) * spec.hop_samples
    audio = torch.from_numpy(codec_audio.draw_crops(songs, rng, train.batch, samples, data.gain_db))
    if self.step == train.quantize_from_step:
      self._start_codebooks(songs, rng, samples)
    levels = spec.n_levels if self.step >= train.quantize_from_step else 0
    if levels and rng.random() < train.level_dropout:
      levels = int(rng.integers(1, spec.n_levels))
    books = self.codebooks[:levels]

    latents = self._encode(audio)
    vectors = latents.transpose(1, 2).flatten(0, 1)
    chosen, commit, indices = (
      quantize(vectors, books) if books else (vectors, vectors.sum() * 0, [])
    )
    quantized = chosen.unflatten(0, (len(audio), -1)).transpose(1, 2)
    with torch.autocast("cpu", torch.bfloat16, enabled=train.bfloat16):
      estimate = self.model.decoder(quantized)
    estimate, target = estimate.float().flatten(0, 1), audio.flatten(0, 1)
    wave = codec_losses.wave_loss(estimate, target)
    mel = codec_losses.mel_loss(estimate, target, spec.sample_rate)
    loss = train.wave_weight * wave + train.mel_weight * mel + train.commit_weight * commit

    for group in self.optimizer.param_groups:
      group["lr"] = learning_rate(self.step, train)
    self.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), train.clip_norm)
    self.optimizer.step()
    restarts = update_codebooks(vectors, books, indices, train.ema_decay, train.dead_share)
    self.step += 1
    figures = {"wave": wave, "mel": mel, "commit": commit, "norm": norm, "restarts": restarts}
    return {name: float(torch.as_tensor(value).detach()) for name, value in figures.items()}

  def save(self, workdir: Path) -> None:
    """Writes the state and the bundle; each appears whole."""
    state = {
      "model": self.model.state_dict(),
      "optimizer": self.optimizer.state_dict(),
      "step": self.step,
      "architecture": dataclasses.asdict(self.config.model),
    }
    partial = workdir / ".state.pt.partial"
    torch.save(state, partial)
    os.replace(partial, workdir / "state.pt")
    save_bundle(workdir / "bundle", self.config.spec(), read_weights(self.model), "float16")

  def resume(self, path: Path) -> None:
    """Takes up a saved state, if there is one.

    Raises:
      UserError: if it is of another architecture.
    """
    if not path.is_file():
      return
    state = torch.load(path, weights_only=True)
    if ModelConfig(**state["architecture"]) != self.config.model:
      raise UserError(
        f"config.model must be that of the run to resume; got {self.config.model}, but {path} has"
        f" {state['architecture']}. Give another --workdir."
      )
    self.model.load_state_dict(state["model"])
    self.optimizer.load_state_dict(state["optimizer"])
    self.step = state["step"]

  def _encode(self, audio: Float[Tensor, "B channels samples"]) -> Float[Tensor, "B D T"]:
    with torch.autocast("cpu", torch.bfloat16, enabled=self.config.train.bfloat16):
      return self.model.encoder(audio).float()

  @torch.no_grad()
  def _start_codebooks(self, songs: Songs, rng: np.random.Generator, samples: int) -> None:
    """Starts the codebooks from latents of fresh crops."""
    train, spec = self.config.train, self.config.spec()
    batches = -(-train.init_vectors // (train.batch * spec.frames(samples)))
    latents = []
    for _ in range(batches):
      crops = codec_audio.draw_crops(songs, rng, train.batch, samples, self.config.data.gain_db)
      latents.append(self._encode(torch.from_numpy(crops)).transpose(1, 2).flatten(0, 1))
    start_codebooks(self.codebooks, torch.cat(latents))


def learning_rate(step: int, train: TrainConfig) -> float:
  """Returns the rate of a step: linear warm-up, then half a cosine to 1 % of the peak."""
  if step < train.warmup_steps:
    return train.learning_rate * (step + 1) / train.warmup_steps
  done = (step - train.warmup_steps) / max(train.steps - train.warmup_steps, 1)
  return train.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


def round_trip(bundle: Path, songs: Songs, train: TrainConfig) -> dict[str, list[float]]:
  """Returns figures of a bundle on crops of songs, one for each number of levels kept.

  `mel_distance_db` and `si_sdr_db` (median over crops) are of the reconstruction from the first
  1, 2, ... levels; `perplexity` and `used_share` are of each level's codes.
  """
  codec = TorchCodec(bundle)
  spec, rng = codec.spec, np.random.default_rng(train.seed)
  samples = round(train.eval_crop_s * spec.sample_rate)
  audio = codec_audio.draw_crops(songs, rng, train.eval_crops, samples)
  codes = np.concatenate(
    [codec.encode(batch) for batch in np.array_split(audio, -(-len(audio) // 16))]
  )
  figures = {"mel_distance_db": [], "si_sdr_db": [], "perplexity": [], "used_share": []}
  target = torch.from_numpy(audio).flatten(0, 1)
  audible = target.abs().amax(dim=-1) > codec_audio.AUDIBLE
  for levels in range(1, spec.n_levels + 1):
    estimate = torch.from_numpy(codec.decode(codes[..., :levels]))[..., :samples].flatten(0, 1)
    mel = codec_losses.mel_distance_db(estimate, target, spec.sample_rate)
    si_sdr = codec_losses.si_sdr_db(estimate[audible], target[audible]).median()
    share = np.bincount(codes[..., levels - 1].ravel(), minlength=spec.n_codes) / codes[..., 0].size
    entropy = -(share * np.log(share.clip(1e-12))).sum()
    figures["mel_distance_db"].append(round(mel, 3))
    figures["si_sdr_db"].append(round(float(si_sdr), 3))
    figures["perplexity"].append(round(float(np.exp(entropy)), 1))
    figures["used_share"].append(round(float((share > 0).mean()), 3))
  return figures


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


def _progress(console: Console) -> Progress:
  columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
  return Progress(*columns, TimeRemainingColumn(), console=console)


def _write_text(path: Path, text: str) -> None:
  partial = path.with_name(f".{path.name}.partial")
  partial.write_text(text, encoding="utf-8")
  os.replace(partial, path)


if __name__ == "__main__":
  sys.exit(run_cli(main))
