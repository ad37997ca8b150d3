# SPDX-License-Identifier: Apache-2.0
"""What a run reports: sums over steps become scalars in TensorBoard and `metrics.jsonl`."""

import json
import time
from pathlib import Path

import jax
import numpy as np
from tensorboardX import SummaryWriter


class MetricLog:
  """Adds up step metrics on the host and writes their means; silent where `workdir` is None."""

  def __init__(self, workdir: Path | None):
    """Opens the writers in `workdir` (the first process only: the others give None)."""
    self._writer = workdir and SummaryWriter(str(workdir / "tensorboard"))
    self._lines = workdir and (workdir / "metrics.jsonl").open("a", encoding="utf-8")
    self._reset()

  def _reset(self) -> None:
    self._sums: dict[str, np.ndarray] = {}
    self._steps, self._frames, self._wait_s, self._start_s = 0, 0, 0.0, time.perf_counter()

  def add(self, metrics: dict[str, jax.Array], frames: int, wait_s: float) -> None:
    """Adds one step: its metrics, the frames it trained on, the seconds it waited for data."""
    for name, value in jax.device_get(metrics).items():
      self._sums[name] = self._sums.get(name, 0) + np.asarray(value, np.float64)
    self._steps += 1
    self._frames += frames
    self._wait_s += wait_s

  def flush(self, step: int, **more: float) -> dict[str, float]:
    """Writes and returns the scalars since the last flush, and `more` (already scalars).

    `loss` is the mean over steps; `loss/level_q` nats per hidden token of level q (from 1);
    `accuracy/mask_a-b` the share of hits at mask rates in (a, b]; `frames_per_s`; and
    `data_wait_share`, the share of time spent waiting for a batch.
    """
    scalars = dict(more)
    if self._steps:
      sums, elapsed_s = self._sums, time.perf_counter() - self._start_s
      scalars["loss"] = sums["loss"] / self._steps
      scalars["gradient_norm"] = sums["gradient_norm"] / self._steps
      for q, (nll, count) in enumerate(zip(sums["level_nll"], sums["level_count"]), start=1):
        scalars[f"loss/level_{q}"] = nll / count if count else float("nan")
      bins = len(sums["bin_hits"])
      for i, (hits, count) in enumerate(zip(sums["bin_hits"], sums["bin_count"])):
        if count:
          scalars[f"accuracy/mask_{i / bins:.1f}-{(i + 1) / bins:.1f}"] = hits / count
      scalars["frames_per_s"] = self._frames / elapsed_s
      scalars["data_wait_share"] = self._wait_s / elapsed_s
    self._reset()
    scalars = {name: float(value) for name, value in scalars.items()}
    if self._writer:
      for name, value in scalars.items():
        self._writer.add_scalar(name, value, step)
      self._lines.write(json.dumps({"step": step, **scalars}) + "\n")
      self._lines.flush()
    return scalars

  def close(self) -> None:
    """Closes the writers."""
    if self._writer:
      self._writer.close()
      self._lines.close()


def read_metrics(workdir: Path) -> dict[int, dict[str, float]]:
  """Returns {step: scalars} of a run; a step that was redone after a crash counts once."""
  rows: dict[int, dict[str, float]] = {}
  for line in (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
    row = json.loads(line)
    rows.setdefault(row.pop("step"), {}).update(row)
  return rows
