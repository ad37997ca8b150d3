# SPDX-License-Identifier: Apache-2.0
"""What a run reports: sums over steps become scalars in TensorBoard and `metrics.jsonl`."""

import hashlib
import importlib
import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from tensorboardX import SummaryWriter

from stemgen_jax.errors import UserError


class Sound(NamedTuple):
  """Something to hear in TensorBoard."""

  name: str
  audio: Float[np.ndarray, "channels samples"]
  rate_hz: int


class MetricLog:
  """Adds up step metrics on the host and writes their means; silent where `workdir` is None."""

  def __init__(self, workdir: Path | None, wandb_project: str = "", name: str = ""):
    """Opens the writers in `workdir` (the first process only: the others give None).

    Raises:
      UserError: if a project is given and Weights & Biases is not installed.
    """
    self._wandb = _open_wandb(workdir, wandb_project, name) if workdir and wandb_project else None
    self._writer = SummaryWriter(str(workdir / "tensorboard")) if workdir else None
    self._lines = _open_lines(workdir / "metrics.jsonl") if workdir else None
    self._reset()

  def _reset(self) -> None:
    self._sums: dict[str, np.ndarray] = {}
    self._steps, self._frames, self._wait_s, self._start_s = 0, 0, 0.0, time.perf_counter()

  def add(self, metrics: dict[str, jax.Array], frames: int, wait_s: float) -> dict[str, np.ndarray]:
    """Adds one step: its metrics, the frames it trained on, the seconds it waited for data.

    Returns the metrics on the host. A skipped step adds to nothing but `skipped`.
    """
    found = jax.device_get(metrics)
    counted = {"skipped": found["skipped"]} if found["skipped"] else found
    for name, value in counted.items():
      self._sums[name] = self._sums.get(name, 0) + np.asarray(value, np.float64)
    self._steps += 1
    self._frames += frames
    self._wait_s += wait_s
    return found

  def get_state(self) -> dict[str, Any]:
    """Returns what has been added since the last flush, as JSON: a resumed run goes on from it."""
    return {
      "sums": {name: np.asarray(value).tolist() for name, value in self._sums.items()},
      "steps": self._steps,
      "frames": self._frames,
      "wait_s": self._wait_s,
      "elapsed_s": time.perf_counter() - self._start_s,
    }

  def set_state(self, state: dict[str, Any]) -> None:
    """Goes on from a state."""
    self._sums = {name: np.asarray(value, np.float64) for name, value in state["sums"].items()}
    self._steps, self._frames, self._wait_s = state["steps"], state["frames"], state["wait_s"]
    self._start_s = time.perf_counter() - state["elapsed_s"]

  def flush(self, step: int, **more: float) -> dict[str, float]:
    """Writes and returns the scalars since the last flush, and `more` (already scalars).

    `loss`, `gradient_norm` and `learning_rate` are means over the steps that were not skipped, and
    `skipped_steps` counts those that were; `loss/level_q` nats per hidden token of level q (from
    1); `accuracy/mask_a-b` the share of hits at mask rates in (a, b]; `frames_per_s`; and
    `data_wait_share`, the share of time spent waiting for a batch.
    """
    scalars: dict[str, Any] = dict(more)
    if self._steps:
      sums, elapsed_s = self._sums, time.perf_counter() - self._start_s
      skipped = float(sums["skipped"])
      if skipped < self._steps:
        for name in ("loss", "gradient_norm", "learning_rate"):
          scalars[name] = sums[name] / (self._steps - skipped)
        for q, (nll, count) in enumerate(
          zip(sums["level_nll"], sums["level_count"], strict=True), start=1
        ):
          scalars[f"loss/level_{q}"] = nll / count if count else float("nan")
        scalars |= name_bins("accuracy", sums["bin_hits"], sums["bin_count"])
      scalars["skipped_steps"] = skipped
      scalars["frames_per_s"] = self._frames / elapsed_s
      scalars["data_wait_share"] = self._wait_s / elapsed_s
    self._reset()
    scalars = {name: float(value) for name, value in scalars.items()}
    if self._writer:
      for name, value in scalars.items():
        self._writer.add_scalar(name, value, step)
    if self._lines:
      self._lines.write(json.dumps({"step": step, **scalars}) + "\n")
      self._lines.flush()
    if self._wandb:
      self._wandb.log(scalars, step=step)
    return scalars

  def add_audio(self, sound: Sound, step: int) -> None:
    """Writes a sound to TensorBoard, and its spectrogram."""
    if self._writer:
      mono = sound.audio.mean(axis=0)
      self._writer.add_audio(sound.name, mono, step, sample_rate=sound.rate_hz)
      image = spectrogram(mono)
      self._writer.add_image(f"{sound.name}/spectrogram", image, step, dataformats="HW")

  def close(self) -> None:
    """Closes the writers."""
    if self._writer:
      self._writer.close()
    if self._lines:
      self._lines.close()
    if self._wandb:
      self._wandb.finish()


def name_bins(
  prefix: str, sums: Float[np.ndarray, " bins"], counts: Float[np.ndarray, " bins"]
) -> dict[str, float]:
  """Names the mean of each mask-rate bin that holds something: {"PREFIX/mask_0.2-0.4": mean}."""
  n = len(counts)
  return {
    f"{prefix}/mask_{i / n:.1f}-{(i + 1) / n:.1f}": float(total / count)
    for i, (total, count) in enumerate(zip(sums, counts, strict=True))
    if count
  }


def spectrogram(audio: Float[np.ndarray, " samples"]) -> Float[np.ndarray, "F T"]:
  """Returns log magnitudes in [0, 1], 80 dB from black to white, low frequencies at the bottom."""
  size = 1024
  padded = jnp.pad(jnp.asarray(audio), (0, max(0, size - len(audio))))
  _, _, bins = jax.scipy.signal.stft(padded, nperseg=size, noverlap=size // 2)
  db = 20 * jnp.log10(jnp.maximum(jnp.abs(bins), 1e-9))
  return np.asarray(jnp.clip((db - db.max()) / 80 + 1, 0, 1))[::-1]


def _open_lines(path: Path) -> TextIO:
  """Opens a log to append to, without the half of a line that a killed run may have left."""
  if path.exists():
    text = path.read_bytes()
    if not text.endswith(b"\n"):
      os.truncate(path, text.rfind(b"\n") + 1)
  return path.open("a", encoding="utf-8")


def _open_wandb(workdir: Path, project: str, name: str) -> Any:
  try:
    wandb = importlib.import_module("wandb")
  except ImportError as error:
    raise UserError(
      f"train.wandb needs Weights & Biases; got project {project!r} without the package."
      ' Run pip install "stemgen_jax[wandb]".'
    ) from error
  identity = hashlib.sha256(os.fsencode(workdir.resolve())).hexdigest()[:16]  # resumes one run
  return wandb.init(project=project, name=name, dir=workdir, id=identity, resume="allow")


def read_metrics(workdir: Path) -> dict[int, dict[str, float]]:
  """Returns {step: scalars} of a run; a step that was redone after a crash counts once."""
  rows: dict[int, dict[str, float]] = {}
  for line in (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
    row = json.loads(line)
    rows.setdefault(row.pop("step"), {}).update(row)
  return rows
