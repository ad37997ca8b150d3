# SPDX-License-Identifier: Apache-2.0
"""What a run is and may become: its settings beside its checkpoints, and what must not change."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import jax
from jax.sharding import Mesh

from stemgen_jax.categories import ACTIVITY, ACTIVITY_VALUES
from stemgen_jax.config import Config
from stemgen_jax.config_json import to_dict
from stemgen_jax.data.records import Dataset
from stemgen_jax.errors import UserError
from stemgen_jax.model import sharding
from stemgen_jax.model.network import build
from stemgen_jax.shell.folders import make_folder, write_text
from stemgen_jax.training.checkpoint import Checkpoints
from stemgen_jax.training.weights import load_average
from stemgen_jax.types import Params


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
    if name != ACTIVITY
  }
  if ACTIVITY in wanted.sources:
    pairs[f"model.sources[{ACTIVITY!r}]"] = (wanted.sources[ACTIVITY], ACTIVITY_VALUES)
  wrong = [f"{name} must be {b!r}, got {a!r}" for name, (a, b) in pairs.items() if a != b]
  if wrong:
    raise UserError(
      f"config '{config.name}' must fit the shards at {dataset.path}: {wrong}. Tokenise with the"
      " codec and the --categories that the head of the config names, or choose another config."
    )
  if config.eval_batches and config.data.eval_split not in dataset.shards:
    raise UserError(
      f"held-out songs must be there to evaluate on; got no split {config.data.eval_split!r} in"
      f" {dataset.path}. Tokenise more songs, or train with --config.eval_batches=0."
    )
  shares = mesh.shape["data"] * mesh.shape["fsdp"]
  if config.data.batch_size % shares:
    step = math.lcm(shares, config.model.n_levels * config.optim.accumulate)
    fitting = -(-config.data.batch_size // step) * step
    raise UserError(
      f"data.batch_size must be a multiple of {shares}, the devices that share it;"
      f" got {config.data.batch_size}. Give --config.data.batch_size={fitting}, or devices to"
      " --config.mesh.tensor."
    )


def describe(dataset: Dataset) -> dict[str, object]:
  """What sampling must know of the shards: the codec, its rates, how loud the mixes were."""
  metadata = dataset.metadata
  return {
    "path": os.fspath(dataset.path),
    "codec_fingerprint": metadata.codec_fingerprint,
    "sample_rate_hz": metadata.sample_rate_hz,
    "frame_rate_hz": metadata.frame_rate_hz,
    "channels": metadata.channels,
    "mix_lufs": dataset.mix_lufs,
  }


def open_run(workdir: Path, config: Config, meta: dict) -> Checkpoints:
  """Returns the workdir's checkpoints, after checking that they are of this model and codec."""
  make_folder(workdir, "--workdir")
  checkpoints = Checkpoints(workdir, config.checkpoints_kept)
  if checkpoints.latest_step() is not None:
    saved = checkpoints.read_meta()
    fixed = {
      "model": (_shapes(saved["config"]), _shapes(meta["config"])),
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


def load_init(workdir: str | os.PathLike, config: Config, mesh: Mesh, fingerprint: str) -> Params:
  """Returns the averaged weights of another run, to start from.

  Guidance scales as inputs may be new: their tables then start at zero. A model that has them may
  go on without: it was taught to be what it was where nothing steers.

  Raises:
    UserError: if that run's model or codec is another.
  """
  other, average, meta = load_average(workdir, mesh)
  wanted, had = config.model.scale_inputs, other.model.scale_inputs
  if not (wanted and had):
    other.model.scale_inputs = wanted
  old, new = (_shapes(to_dict(c)) for c in (other, config))
  wrong = [f"{name} was {a!r}, got {b!r}" for name, a, b in list_changes(old, new)]
  if meta["dataset"]["codec_fingerprint"] != fingerprint:
    wrong.append("its codec is another than that of the shards")
  if wrong:
    raise UserError(
      f"--init_from {workdir} must hold the same model and codec: {'. '.join(wrong)}."
    )
  if had and not wanted:
    average = {name: leaf for name, leaf in average.items() if name != "steering"}
  if wanted and not had:
    tables = {"steering": build(config.model, mesh).init(jax.random.key(0))["steering"]}
    average |= jax.device_put(tables, sharding.tree_shardings(tables, mesh))
  return average


def _shapes(config: dict) -> dict:
  """The settings of a model that its parameters' shapes and meaning hang on."""
  model = json.loads(json.dumps(config["model"]))
  free = ["dropout", "compute_dtype", "unroll", "remat"]
  free += [] if model.get("scale_inputs") else ["scale_inputs"]  # which older runs do not name
  return {name: value for name, value in model.items() if name not in free}


def git_commit() -> str | None:
  """The commit of the source tree this file lies in, or None outside one."""
  command = ["git", "-C", os.fspath(Path(__file__).parent), "rev-parse", "HEAD"]
  try:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
  except (OSError, subprocess.CalledProcessError):
    return None
