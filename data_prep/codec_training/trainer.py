# SPDX-License-Identifier: Apache-2.0
"""The codec's training step, and its state on disk. Each step's randomness is of (seed, step)."""

import dataclasses
import math
from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from data_prep.codec_training import audio as codec_audio
from data_prep.codec_training import losses as codec_losses
from data_prep.codec_training.config import CodecConfig, ModelConfig, TrainConfig
from data_prep.codec_training.discriminator import Adversary
from data_prep.codec_training.init import scale_layers
from data_prep.codec_training.quantizer import Codebook, quantize, start_codebooks, update_codebooks
from data_prep.codecs.source import read_tensors
from data_prep.codecs.torch_codec import build_model, load_weights, read_weights
from stemgen_jax.codec.bundle import load_bundle, save_bundle
from stemgen_jax.errors import UserError
from stemgen_jax.shell.folders import appearing

Songs = list[codec_audio.Song]
MAX_SKIPS = 10  # steps in a row without a finite gradient, after which a run has failed


class Trainer:
  """The model, its optimiser, perhaps its adversary, and the step."""

  def __init__(self, config: CodecConfig):
    self.config, self.spec, self.step, self._skips = config, config.spec(), 0, 0
    train, judge = config.train, config.discriminator
    torch.manual_seed(train.seed)
    self.model = build_model(self.spec)
    layers = self.model.quantizer.vq.layers
    self.codebooks = [cast(Codebook, layer._codebook) for layer in layers]
    self.optimizer = torch.optim.AdamW(
      self.model.parameters(), lr=train.learning_rate, betas=(0.8, 0.99), weight_decay=1e-3
    )
    self.adversary = None
    if judge.from_step is not None:
      self.adversary = Adversary(judge, self.spec.sample_rate, train.bfloat16)
    crop_samples = round(config.data.crop_s * self.spec.sample_rate)
    self.crop_samples = self.spec.frames(crop_samples) * self.spec.hop_samples
    self.quantize_from_step = 0 if train.init else train.quantize_from_step

  def start(self, songs: Songs) -> None:
    """Takes the weights of the bundle `train.init`, or else scales the fresh layers to the music.

    Raises:
      UserError: if the bundle is of another architecture or licence.
    """
    if self.config.train.init:
      self._start_from_bundle(self.config.train.init)
      return
    rng = np.random.default_rng(self.config.train.seed)
    scale_layers(
      self.model, torch.from_numpy(codec_audio.draw_crops(songs, rng, 32, self.crop_samples))
    )

  def train_step(self, songs: Songs) -> dict[str, float]:
    """Takes one step on fresh crops and returns its losses.

    Raises:
      UserError: after `MAX_SKIPS` steps in a row that had to be skipped.
    """
    train, rng = self.config.train, np.random.default_rng((self.config.train.seed, self.step))
    torch.manual_seed(int(rng.integers(2**31)))
    if self.step == self.quantize_from_step and not train.init:
      self._start_codebooks(songs, rng)
    audio = self._draw(songs, rng)
    books = self.codebooks if self.step >= self.quantize_from_step else []

    latents = self._encode(audio)
    vectors = latents.transpose(1, 2).flatten(0, 1)
    chosen, commit, indices = vectors, vectors.sum() * 0, []
    if books:
      kept = self._draw_levels(len(audio), rng).repeat_interleave(latents.shape[2])
      chosen, commit, indices = quantize(vectors, books, kept)
    quantized = chosen.unflatten(0, (len(audio), -1)).transpose(1, 2)
    with torch.autocast("cpu", torch.bfloat16, enabled=train.bfloat16):
      estimate = self.model.decoder(quantized)
    estimate, target = estimate.float().flatten(0, 1), audio.flatten(0, 1)

    gradient, figures = self._output_gradient(estimate.detach(), target, rng)
    rate = learning_rate(self.step, train)
    for group in self.optimizer.param_groups:
      group["lr"] = rate
    self.optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward([estimate, train.commit_weight * commit], [gradient, None])
    norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), train.clip_norm)
    figures |= {"commit": commit, "norm": norm, "lr": rate, "restarts": 0}
    if self._is_usable(norm):
      self.optimizer.step()
      figures["restarts"] = update_codebooks(
        vectors, books, indices, train.ema_decay, train.dead_share
      )
    self.step += 1
    return {name: float(torch.as_tensor(value).detach()) for name, value in figures.items()}

  def perplexity(self) -> list[float]:
    """Returns of each level the perplexity of its codes' moving use; nothing before they start."""
    if self.step <= self.quantize_from_step:
      return []
    shares = [book.cluster_size / book.cluster_size.sum() for book in self.codebooks]
    return [float(torch.exp(-(s * s.clamp(min=1e-12).log()).sum())) for s in shares]

  def save(self, workdir: Path) -> None:
    """Writes the state and the bundle; each appears whole."""
    state = {
      "model": self.model.state_dict(),
      "optimizer": self.optimizer.state_dict(),
      "step": self.step,
      "architecture": dataclasses.asdict(self.config.model),
      "source": self.spec.source,
    }
    if self.adversary:
      state["adversary"] = self.adversary.state()
    with appearing(workdir / "state.pt") as partial, partial.open("wb") as file:
      torch.save(state, file)  # by name it would not say that the disk is full
    save_bundle(workdir / "bundle", self.spec, read_weights(self.model), "float16")

  def resume(self, path: Path) -> None:
    """Takes up a saved state, if there is one; an adversary that it lacks starts afresh.

    Raises:
      UserError: if it is damaged, or of another architecture.
    """
    if not path.is_file():
      return
    state = read_tensors(path)
    if ModelConfig(**state["architecture"]) != self.config.model:
      raise UserError(
        f"config.model must be that of the run to resume; got {self.config.model}, but {path} has"
        f" {state['architecture']}. Give another --workdir."
      )
    self.model.load_state_dict(state["model"])
    self.optimizer.load_state_dict(state["optimizer"])
    self.step = state["step"]
    self.spec = dataclasses.replace(self.spec, source=state.get("source", self.spec.source))
    if self.adversary and "adversary" in state:
      self.adversary.load(state["adversary"])

  def _output_gradient(
    self,
    estimate: Float[Tensor, "B samples"],
    target: Float[Tensor, "B samples"],
    rng: np.random.Generator,
  ) -> tuple[Float[Tensor, "B samples"], dict[str, Tensor]]:
    """Returns the gradient of all losses at the codec's output, and the losses."""
    train, estimate = self.config.train, estimate.requires_grad_()
    wave = codec_losses.wave_loss(estimate, target)
    mel = codec_losses.mel_loss(estimate, target, self.spec.sample_rate, train.mel_l2_weight)
    (gradient,) = torch.autograd.grad(train.wave_weight * wave + train.mel_weight * mel, estimate)
    figures = {"wave": wave, "mel": mel}
    start = self.config.discriminator.from_step
    if self.adversary and start is not None and self.step >= start:
      more, losses = self.adversary.gradient(estimate, target, gradient, rng)
      gradient, figures = gradient + more, figures | losses
    return gradient, figures

  def _is_usable(self, norm: Tensor) -> bool:
    """Tells whether the step's gradient is finite; too many in a row that are not end the run."""
    self._skips = 0 if torch.isfinite(norm) else self._skips + 1
    if self._skips >= MAX_SKIPS:
      raise UserError(
        f"training must stay finite; got {self._skips} steps in a row with a NaN or infinite"
        f" gradient, up to step={self.step}. The last saved state is sound: lower"
        " train.learning_rate and run the command again."
      )
    return not self._skips

  def _encode(self, audio: Float[Tensor, "B channels samples"]) -> Float[Tensor, "B D T"]:
    with torch.autocast("cpu", torch.bfloat16, enabled=self.config.train.bfloat16):
      return self.model.encoder(audio).float()

  def _draw(self, songs: Songs, rng: np.random.Generator) -> Float[Tensor, "B channels samples"]:
    data, batch = self.config.data, self.config.train.batch
    return torch.from_numpy(
      codec_audio.draw_crops(songs, rng, batch, self.crop_samples, data.gain_db, data.stem_gain_db)
    )

  def _draw_levels(self, examples: int, rng: np.random.Generator) -> Tensor:
    """Returns how many levels each example keeps: all, or at a set rate any smaller number."""
    levels = np.full(examples, self.spec.n_levels)
    dropped = rng.random(examples) < self.config.train.level_dropout
    if self.spec.n_levels > 1:
      levels[dropped] = rng.integers(1, self.spec.n_levels, dropped.sum())
    return torch.from_numpy(levels)

  @torch.no_grad()
  def _start_codebooks(self, songs: Songs, rng: np.random.Generator) -> None:
    """Starts the codebooks from latents of fresh crops."""
    train = self.config.train
    batches = -(-train.init_vectors // (train.batch * self.spec.frames(self.crop_samples)))
    latents = [
      self._encode(self._draw(songs, rng)).transpose(1, 2).flatten(0, 1) for _ in range(batches)
    ]
    start_codebooks(self.codebooks, torch.cat(latents))

  def _start_from_bundle(self, path: str) -> None:
    bundle = load_bundle(path)
    wanted, found = dataclasses.asdict(self.spec), dataclasses.asdict(bundle.spec)
    wrong = [k for k in wanted if k != "source" and wanted[k] != found[k]]
    if wrong:
      raise UserError(
        f"train.init must be a bundle of the config's own architecture and licence; got {path} with"
        f" {', '.join(f'{k}={found[k]!r} instead of {wanted[k]!r}' for k in wrong)}."
        " Change config.model, or start from another bundle."
      )
    load_weights(self.model, bundle.weights)
    source = f"{self.spec.source}, from bundle {bundle.fingerprint[:16]} ({bundle.spec.source})"
    self.spec = dataclasses.replace(self.spec, source=source)


def learning_rate(step: int, train: TrainConfig) -> float:
  """Returns the rate of a step: linear warm-up, then half a cosine to 1 % of the peak."""
  if step < train.warmup_steps:
    return train.learning_rate * (step + 1) / train.warmup_steps
  done = (step - train.warmup_steps) / max(train.steps - train.warmup_steps, 1)
  return train.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))
