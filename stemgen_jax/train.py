# SPDX-License-Identifier: Apache-2.0
r"""Trains a model on token shards, and goes on by itself where an earlier run stopped.

Example:
  python -m stemgen_jax.train --config configs/demo.py --workdir runs/demo/model \
    --config.data.path=runs/demo/tokens --config.optim.steps=400

Any field of the config can be set as `--config.field=value`. WORKDIR holds the checkpoints, the
settings (config.json), metrics.jsonl and TensorBoard scalars. The same command resumes a run.
"""

import contextlib
import functools
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
from jax.sharding import Mesh
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from stemgen_jax import sharding
from stemgen_jax.checkpoint import Checkpoints, abstract_like
from stemgen_jax.cli import build_parser, parse_config
from stemgen_jax.codebook_init import read_codebooks
from stemgen_jax.config import Config, to_dict
from stemgen_jax.data import make_loader
from stemgen_jax.errors import UserError, run_cli
from stemgen_jax.evaluation.listening import build_listening
from stemgen_jax.files import make_folder, write_text
from stemgen_jax.metrics import MetricLog
from stemgen_jax.model import build
from stemgen_jax.records import Dataset
from stemgen_jax.step import TrainState, init_state, jit_train_step


def train(config: Config, workdir: Path) -> TrainState:
  """Trains to `config.optim.steps` and returns the final state.

  Raises:
    UserError: if the config breaks a rule, does not fit the shards, or the workdir holds a run of
      another model.
  """
  config.validate()
  dataset = Dataset.open(config.data.path)
  mesh = sharding.build_mesh(config.mesh)
  check_fit(config, dataset, mesh)
  model = build(config.model, mesh)
  loader = make_loader(
    dataset,
    config.data.train_split,
    crop_frames=config.data.crop_frames,
    batch_size=config.data.batch_size // jax.process_count(),
    seed=config.seed,
    silence_gate_db=config.data.silence_gate_db,
    silence_prob=config.data.silence_prob,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
    workers=config.data.workers,
    sources=tuple(config.model.sources),
  )
  listen = None
  if config.eval_batches:
    listen = build_listening(
      config, model, dataset, mesh, config.data.eval_split, config.eval_batches
    )

  codebooks = None
  if config.data.codec:
    codebooks = read_codebooks(Path(config.data.codec), dataset.metadata.codec_fingerprint)
  init = functools.partial(init_state, config, model, codebooks)
  abstract = abstract_like(jax.eval_shape(init), mesh)
  shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
  step_fn = jit_train_step(config, model, shardings)
  meta = {"config": to_dict(config), "dataset": describe(dataset), "git_commit": git_commit()}
  first = jax.process_index() == 0
  with (
    contextlib.closing(open_run(workdir, config, meta)) as checkpoints,
    contextlib.closing(MetricLog(workdir if first else None)) as log,
    progress_bar(enabled=first) as bar,
  ):
    if checkpoints.latest_step() is None:
      state = jax.jit(init, out_shardings=shardings)()
    else:
      state = checkpoints.restore(abstract, loader)

    start, steps = int(state.step), config.optim.steps
    frames = config.data.batch_size * config.data.crop_frames
    task = bar.add_task("train", total=steps, completed=start)
    pending = None  # metrics of the step before: read after the next one is under way
    for step in range(start + 1, steps + 1):
      waited_from = time.perf_counter()
      batch = next(loader)
      wait_s = time.perf_counter() - waited_from
      state, metrics = step_fn(state, sharding.put_batch(batch, mesh))
      if pending:
        log.add(*pending)
      pending = (metrics, frames, wait_s)
      bar.update(task, advance=1)
      if step % config.log_every_steps == 0 or step == steps:
        log.add(*pending)
        pending = None
        scalars = log.flush(step)
        bar.console.print(
          f"step {step}/{steps}  loss {scalars['loss']:.3f} nats"
          f"  {scalars['frames_per_s']:.0f} frames/s",
          soft_wrap=True,
        )
      if listen and (step % config.eval_every_steps == 0 or step == steps):
        scalars = log.flush(step, **listen(state.average))
        bar.console.print(
          f"step {step}/{steps}  validation: true context {scalars['listening/true/mean']:.3f},"
          f" another song's {scalars['listening/foreign/mean']:.3f},"
          f" none {scalars['listening/none/mean']:.3f} nats",
          soft_wrap=True,
        )
      if step % config.checkpoint_every_steps == 0 or step == steps:
        checkpoints.save(state, loader, meta)
  return state


def check_fit(config: Config, dataset: Dataset, mesh: Mesh) -> None:
  """Raises a UserError naming every setting that does not fit the shards or the devices."""
  wanted, found = config.model, dataset.metadata
  pairs = {
    "model.n_levels": (wanted.n_levels, found.n_levels),
    "model.n_codes": (wanted.n_codes, found.n_codes),
  }
  pairs |= {  # a model may leave out sources that the shards have
    f"model.sources[{name!r}]": (values, found.sources.get(name))
    for name, values in wanted.sources.items()
  }
  wrong = [f"{name} must be {b!r}, got {a!r}" for name, (a, b) in pairs.items() if a != b]
  if wrong:
    raise UserError(f"config '{config.name}' must fit the shards at {dataset.path}: {wrong}.")
  if config.eval_batches and config.data.eval_split not in dataset.shards:
    raise UserError(
      f"held-out songs must be there to evaluate on; got no split {config.data.eval_split!r} in"
      f" {dataset.path}. Tokenise more songs, or train with --config.eval_batches=0."
    )
  shares = math.lcm(mesh.shape["data"] * mesh.shape["fsdp"], jax.process_count())
  if config.data.batch_size % shares:
    raise UserError(
      f"data.batch_size must be a multiple of {shares}, the devices and processes that share it;"
      f" got {config.data.batch_size}. Change it, or give devices to --config.mesh.tensor."
    )


def describe(dataset: Dataset) -> dict[str, object]:
  """What sampling must know of the shards: the codec and its rates."""
  metadata = dataset.metadata
  return {
    "path": os.fspath(dataset.path),
    "codec_fingerprint": metadata.codec_fingerprint,
    "sample_rate_hz": metadata.sample_rate_hz,
    "frame_rate_hz": metadata.frame_rate_hz,
    "channels": metadata.channels,
  }


def open_run(workdir: Path, config: Config, meta: dict) -> Checkpoints:
  """Returns the workdir's checkpoints, after checking that they are of this model and codec."""
  make_folder(workdir, "--workdir")
  checkpoints = Checkpoints(workdir, config.checkpoints_kept)
  if checkpoints.latest_step() is not None:
    saved = checkpoints.read_meta()
    fixed = {
      "model": (saved["config"]["model"], json.loads(json.dumps(meta["config"]["model"]))),
      "codec": (saved["dataset"]["codec_fingerprint"], meta["dataset"]["codec_fingerprint"]),
    }
    for name, (old, new) in fixed.items():
      if old != new:
        raise UserError(
          f"a resumed run must keep its {name}; got another one than the checkpoint at step"
          f" {checkpoints.latest_step()} of {workdir}. Choose another --workdir, or remove it."
        )
    print(f"resuming {workdir} from step {checkpoints.latest_step()}", file=sys.stderr)
    for name, old, new in list_changes(saved["config"], json.loads(json.dumps(meta["config"]))):
      print(f"warning: {name} was {old!r} so far and is {new!r} from here on", file=sys.stderr)
  if jax.process_index() == 0:
    write_text(workdir / "config.json", json.dumps(meta, indent=1) + "\n")
  return checkpoints


def list_changes(old: dict, new: dict, prefix: str = "") -> list[tuple[str, object, object]]:
  """Returns (name, old, new) of every setting that differs between two configs as dicts."""
  changes = []
  for name in sorted({*old, *new}):
    a, b = old.get(name), new.get(name)
    if isinstance(a, dict) and isinstance(b, dict):
      changes += list_changes(a, b, f"{prefix}{name}.")
    elif a != b:
      changes.append((prefix + name, a, b))
  return changes


def git_commit() -> str | None:
  """The commit of the source tree this file lies in, or None outside one."""
  command = ["git", "-C", os.fspath(Path(__file__).parent), "rev-parse", "HEAD"]
  try:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
  except (OSError, subprocess.CalledProcessError):
    return None


def progress_bar(enabled: bool) -> Progress:
  """A bar on stderr with steps done and time left."""
  return Progress(
    TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
    console=Console(stderr=True), disable=not enabled,
  )  # fmt: skip


def main(argv: list[str] | None = None) -> None:
  """The command."""
  parser = build_parser(__doc__)
  parser.add_argument("--workdir", required=True, type=Path, help="where the run is kept")
  parser.add_argument(
    "--distributed",
    action="store_true",
    help="join the other processes of a pod or cluster (jax.distributed.initialize)",
  )
  arguments = parse_config(parser, Config, argv)
  if arguments.distributed:
    jax.distributed.initialize()
  train(arguments.config, arguments.workdir)


if __name__ == "__main__":
  sys.exit(run_cli(main))
