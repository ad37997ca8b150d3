# SPDX-License-Identifier: Apache-2.0
"""Trains a decoder of the Vocos kind on the frozen tokens of a codec, for some minutes.

Example:
  python -m data_prep.demo --out runs/decoder_music --rate 32000 --songs 200
  python -m data_prep.train_decoder --data runs/decoder_music --workdir runs/decoder --minutes 60

Encoder and codebooks stay as they are, so every token and every model stays valid. WORKDIR gets
bundle/, the codec with the averaged weights of the new decoder, state.pt to go on from, and
log.jsonl. The learning rate and the discriminator follow the share of the minutes that has passed;
the same command resumes a run.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from data_prep.codec_training.decoder_music import (
  MARGIN_FRAMES,
  Crops,
  FrozenCodec,
  Music,
  read_music,
)
from data_prep.codec_training.discriminator import (
  Discriminator,
  adversarial_loss,
  feature_loss,
  judge_loss,
)
from data_prep.codec_training.spectra import Spectra
from data_prep.codecs.backends import check_device
from data_prep.codecs.source import read_tensors
from data_prep.codecs.torch_vocos import Vocos, build_vocos
from stemgen_jax.codec.bundle import DEMO_BUNDLE, Bundle, add_decoder, load_bundle
from stemgen_jax.codec.decoder import DecoderSpec, tensor_shapes
from stemgen_jax.codec.fidelity import mel_distance_db, si_sdr_db
from stemgen_jax.errors import UserError, run_cli
from stemgen_jax.shell.flags import build_parser
from stemgen_jax.shell.folders import appearing

JUDGE_WINDOWS, JUDGE_FILTERS = (2048, 1024, 512, 256), 24
ADVERSARIAL_WEIGHT, FEATURE_WEIGHT = 0.03, 0.1
CLIP_NORM, EMA_DECAY, WARMUP_STEPS = 1.0, 0.999, 200
SAVE_EVERY_S, VALIDATION_CLIPS, VALIDATION_FRAMES = 60.0, 8, 400


class Trainer:
  """The decoder, its average, its adversary, their optimisers, and the step."""

  def __init__(self, spec: DecoderSpec, flags: argparse.Namespace):
    torch.manual_seed(flags.seed)
    self.spec, self.flags, self.step, self.elapsed_s = spec, flags, 0, 0.0
    self.model, self.average = (Vocos(spec).to(flags.device) for _ in range(2))
    self.average.load_state_dict(self.model.state_dict())
    self.judge = Discriminator(JUDGE_WINDOWS, JUDGE_FILTERS).to(flags.device)
    self.optimizer = torch.optim.AdamW(
      self.model.parameters(), flags.learning_rate, betas=(0.8, 0.95), weight_decay=0.01
    )
    self.judge_optimizer = torch.optim.AdamW(self.judge.parameters(), 3e-4, betas=(0.8, 0.9))
    self.spectra = Spectra(spec.sample_rate, flags.device)

  @property
  def done(self) -> float:
    """The share of the minutes that has passed."""
    return min(self.elapsed_s / (60 * self.flags.minutes), 1.0)

  def take_step(
    self, audio: Float[Tensor, "B samples"], vectors: Float[Tensor, "B d T"]
  ) -> dict[str, Tensor]:
    """Takes one step and returns its losses."""
    warm = min(1.0, (self.step + 1) / WARMUP_STEPS)
    rate = self.flags.learning_rate * warm * (0.02 + 0.49 * (1 + math.cos(math.pi * self.done)))
    for group in self.optimizer.param_groups:
      group["lr"] = rate
    made = self.model(vectors)
    losses = self.spectra.loss(made, audio)
    total = torch.stack(list(losses.values())).sum()
    if self.done >= self.flags.judge_from:
      level = audio.square().mean(dim=1, keepdim=True).sqrt().clamp(min=0.01)
      half = audio.shape[1] // 2
      real, fake = audio[:, :half] / level, made[:, :half] / level
      losses["judge"] = judge_loss(self.judge(real), self.judge(fake.detach()))
      self.judge_optimizer.zero_grad(set_to_none=True)
      losses["judge"].backward()
      self.judge_optimizer.step()
      ramp = min(1.0, (self.done - self.flags.judge_from) / 0.05)
      with torch.no_grad():
        of_real = self.judge(real)
      of_fake = self.judge(fake)
      losses["adversarial"] = adversarial_loss(of_fake)
      losses["feature"] = feature_loss(of_real, of_fake)
      total = total + ramp * ADVERSARIAL_WEIGHT * losses["adversarial"]
      total = total + ramp * FEATURE_WEIGHT * losses["feature"]
    self.optimizer.zero_grad(set_to_none=True)
    total.backward()
    norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
    if torch.isfinite(norm):
      self.optimizer.step()
    decay = min(EMA_DECAY, (1 + self.step) / (10 + self.step))
    with torch.no_grad():
      for ours, own in zip(self.average.parameters(), self.model.parameters(), strict=True):
        ours.lerp_(own, 1 - decay)
    self.step += 1
    return {name: value.detach() for name, value in losses.items()}

  def save(self) -> None:
    """Writes the averaged weights, and what a resumed run needs; each appears whole."""
    folder = self.flags.workdir
    named = {name: value.cpu().numpy() for name, value in self.average.state_dict().items()}
    add_decoder(self.flags.codec, folder / "bundle", self.spec, named)
    state = {
      "step": self.step,
      "elapsed_s": self.elapsed_s,
      **{name: getattr(self, name).state_dict() for name in _PARTS},
    }
    with appearing(folder / "state.pt") as partial, partial.open("wb") as file:
      torch.save(state, file)  # by name it would not say that the disk is full

  def resume(self) -> None:
    """Takes up a saved state, if there is one; raises a UserError if it is damaged."""
    path = self.flags.workdir / "state.pt"
    if path.is_file():
      state = read_tensors(path)
      self.step, self.elapsed_s = state["step"], state["elapsed_s"]
      for name in _PARTS:
        getattr(self, name).load_state_dict(state[name])

  def start_from(self, path: Path) -> None:
    """Takes the decoder of a bundle to begin with.

    Raises:
      UserError: if the bundle has no decoder of these sizes.
    """
    found = load_bundle(path).decoder
    if found is None or tensor_shapes(found.spec) != tensor_shapes(self.spec):
      raise UserError(
        f"--init_from must be a bundle with a decoder of the same sizes; got {path} with"
        f" {found and found.spec}. Leave it out to begin with random weights."
      )
    for model in (self.model, self.average):
      model.load_state_dict(build_vocos(found.spec, found.weights).state_dict())


_PARTS = ("model", "average", "judge", "optimizer", "judge_optimizer")


@torch.no_grad()
def validate(model: Vocos, crops: Crops) -> dict[str, float]:
  """Returns mel distance and SI-SDR in dB of held-out stems, and of sums of a song's stems."""
  rng, figures = np.random.default_rng(0), {}
  songs = [song for song in crops.music.songs if song[2] > crops.length][:VALIDATION_CLIPS]
  for name in ("stems", "sums"):
    rows = []
    for first, stems, size in songs:
      start = int(rng.integers((size - crops.length) // crops.hop + 1)) * crops.hop
      count = min(stems, 6) if name == "sums" else 1
      members = rng.permutation(stems)[:count]
      places, gains = np.zeros((1, 6), np.int64), np.zeros((1, 6), np.float32)
      places[0, :count], gains[0, :count] = first + members * size + start, 1.0
      audio, vectors = crops.cut(places, gains)
      if audio.square().mean().sqrt() < 1e-3:
        continue
      made, audio = (x[0].float().cpu().numpy() for x in (model(vectors), audio))
      rate_hz = model.spec.sample_rate
      rows.append((mel_distance_db(made, audio, rate_hz), si_sdr_db(made, audio)))
    mel, si_sdr = np.array(rows).T
    figures |= {f"{name}_mel_db": float(mel.mean()), f"{name}_si_sdr_db": float(np.median(si_sdr))}
  return figures


def choose_spec(bundle: Bundle, rate_hz: int) -> DecoderSpec:
  """Returns the sizes of a decoder of a codec that gives audio of a rate.

  Raises:
    UserError: if the rate is below the codec's, or a frame is no whole number of samples of it.
  """
  hop = rate_hz / bundle.spec.frame_rate_hz
  if rate_hz % bundle.spec.sample_rate or hop != int(hop):
    raise UserError(
      f"--rate must be a multiple of the codec's {bundle.spec.sample_rate} Hz, of which a frame is"
      f" a whole number of samples; got {rate_hz} Hz, {hop:g} samples a frame. Choose another."
    )
  return DecoderSpec(
    sample_rate=rate_hz,
    hop_samples=int(hop),
    n_fft=4 * int(hop),
    dimension=bundle.spec.dimension,
    licence=bundle.spec.licence,
    source="trained by data_prep.train_decoder",
  )


def train(flags: argparse.Namespace) -> None:
  """Runs the command.

  Raises:
    UserError: if there is no music of the rate, or the codec cannot have a decoder of it.
  """
  flags.workdir.mkdir(parents=True, exist_ok=True)
  bundle = load_bundle(flags.codec)
  spec = choose_spec(bundle, flags.rate)
  torch.backends.cudnn.benchmark = torch.backends.cuda.matmul.allow_tf32 = True
  codec = FrozenCodec(bundle, flags.device)

  def open_crops(split: str, frames: int) -> Crops:
    music: Music = read_music(flags.data, split, spec.sample_rate, flags.device)
    return Crops(music, codec, spec.sample_rate, frames, flags.device)

  crops, held_out = open_crops("train", flags.frames), open_crops("validation", VALIDATION_FRAMES)
  trainer = Trainer(spec, flags)
  if flags.init_from and not (flags.workdir / "state.pt").is_file():
    trainer.start_from(flags.init_from)
  trainer.resume()
  batch_s = flags.batch * flags.frames / bundle.spec.frame_rate_hz
  before_s, began_s, first = trainer.elapsed_s, time.monotonic(), trainer.step
  saved_s = told_s = began_s
  with (flags.workdir / "log.jsonl").open("a", encoding="utf-8") as log:
    while trainer.done < 1.0:
      rng = np.random.default_rng([flags.seed, trainer.step])
      losses = trainer.take_step(*crops.draw(rng, flags.batch))
      now_s = time.monotonic()
      trainer.elapsed_s = before_s + now_s - began_s
      if now_s - told_s >= 10 or trainer.done >= 1.0:
        told_s = now_s
        line = {"step": trainer.step, "elapsed_s": round(trainer.elapsed_s, 1)}
        line |= {name: round(float(value), 4) for name, value in losses.items()}
        line["audio_s_per_s"] = (trainer.step - first) * batch_s / (now_s - began_s)
        if now_s - saved_s >= SAVE_EVERY_S or trainer.done >= 1.0:
          saved_s = now_s
          trainer.save()
          line |= validate(trainer.average, held_out)
        text = json.dumps(line)
        print(text, file=sys.stderr, flush=True)
        log.write(text + "\n")
        log.flush()
  print(flags.workdir / "bundle")


def main(argv: list[str] | None = None) -> None:
  """Trains a decoder as the command line says, and prints the folder of its bundle."""
  parser = build_parser(__doc__)
  add = parser.add_argument
  add("--data", type=Path, nargs="+", required=True, help="folders in Slakh's layout, at --rate")
  add("--codec", type=Path, default=DEMO_BUNDLE, help="the bundle whose tokens are decoded")
  add("--workdir", type=Path, required=True, help="where the run is kept")
  add("--init_from", type=Path, help="a bundle whose decoder to begin with")
  add("--rate", type=int, default=32_000, help="of the audio it gives, in Hz (default 32000)")
  add("--minutes", type=float, default=60.0, help="how long to train (default 60)")
  add("--batch", type=int, default=8, help="crops of a step (default 8)")
  add("--frames", type=int, default=64, help=f"of a crop, beside {MARGIN_FRAMES} on either side")
  add("--learning_rate", type=float, default=1e-3)
  add("--judge_from", type=float, default=0.6, help="share of the time before the discriminator")
  add("--device", default="cpu", help="cpu or cuda")
  add("--seed", type=int, default=0)
  flags = parser.parse_args(argv)
  if not 0 < flags.minutes < math.inf or min(flags.batch, flags.frames) < 1:
    raise UserError(
      "--minutes, --batch and --frames must be positive and finite; got"
      f" {flags.minutes:g}, {flags.batch} and {flags.frames}. Change them."
    )
  check_device(flags.device)
  train(flags)


if __name__ == "__main__":
  sys.exit(run_cli(main))
