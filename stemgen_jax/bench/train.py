# SPDX-License-Identifier: Apache-2.0
r"""Training steps on this machine: time, FLOP/s, and the share of its matrix product rate.

Example:
  python -m stemgen_jax.bench train --json train.json --plot train.png

Varies one of width, length and batch at a time about the first of each. Shards of random codes are
read by the real pipeline, and the real step is taken: loss, gradient, AdamW, averaged weights. A
step's FLOP are those the model needs (`stemgen_jax.model.flops`), not what is computed over again.

"matmul": the rate of a product of two square matrices of --matmul rows, the median of those timed
just before and just after the steps, so that a drift of the machine meets both. All multiply
numbers of --dtype. "MFU" is against the device's published peak. "wait": the share of the time
spent waiting for the pipeline. "compiled": how often the step was. With --torch the same step in
plain PyTorch (data_prep/yardsticks/train_timer.py) is timed afterwards: "x torch".
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import jax

from stemgen_jax.bench.device import MatrixProduct, add_dtype, resolve_dtype, torch_device
from stemgen_jax.bench.growth import plot_growth
from stemgen_jax.bench.random_shards import METADATA, write_random
from stemgen_jax.bench.table import Row, describe_machine
from stemgen_jax.bench.worker import TorchWorker, save_flat
from stemgen_jax.config import Config, DataConfig, ModelConfig
from stemgen_jax.data.clips import Metadata
from stemgen_jax.data.loader import make_loader
from stemgen_jax.data.records import Dataset
from stemgen_jax.errors import UserError
from stemgen_jax.model import sharding
from stemgen_jax.model.flops import peak_flops, train_flops
from stemgen_jax.model.network import build
from stemgen_jax.shell.folders import make_folder
from stemgen_jax.training.checkpoint import abstract_like
from stemgen_jax.training.step import init_state, jit_train_step
from stemgen_jax.types import Params

SONGS = 40
HEAD_WIDTH = 64
MLP_RATIO = 2432 / 1024  # as configs/slakh.py
GROWS = {"dim": "width", "frames": "frames", "batch": "windows a batch"}
COLUMNS = {
  "dim": ("width", "d"),
  "frames": ("frames", "d"),
  "batch": ("batch", "d"),
  "parameters_m": ("M weights", ".1f"),
  "step_s": ("step s", ".3f"),
  "spread": ("± of it", ".1%"),
  "gflops_per_s": ("GFLOP/s", ".0f"),
  "matmul_gflops_per_s": ("matmul GFLOP/s", ".0f"),
  "matmul_share": ("of matmul", ".0%"),
  "mfu": ("MFU", ".1%"),
  "times_torch": ("x torch", ".2f"),
  "memory_gb": ("GB", ".1f"),
  "wait_share": ("wait", ".2%"),
  "compilations": ("compiled", "d"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the subcommand's flags."""
  parser.add_argument("--dim", type=int, nargs="+", default=[512, 128, 256, 768], help="widths")
  parser.add_argument("--layers", type=int, default=4)
  parser.add_argument("--frames", type=int, nargs="+", default=[250, 500, 1000], help="lengths")
  parser.add_argument("--batch", type=int, nargs="+", default=[8, 4, 16], help="windows of a batch")
  parser.add_argument("--steps", type=int, default=5, help="timed, after two that are not")
  parser.add_argument("--remat", default="none", help="as config.model.remat")
  parser.add_argument("--unroll", type=int, help="as config.model.unroll; all layers if not given")
  parser.add_argument("--matmul", type=int, help="rows of the matrices: 2048, or 8192")
  add_dtype(parser)
  parser.add_argument("--torch", action="store_true", help="time plain PyTorch too")
  parser.add_argument("--plot", type=Path, metavar="FILE", help="draw how the cost grows")


def measure_all(arguments: argparse.Namespace) -> Iterator[Row]:
  """Yields a row for each size.

  Raises:
    UserError: if a number breaks its rule, or the plot's folder cannot be made.
  """
  counts = [arguments.layers, arguments.steps, arguments.matmul or 1]
  sizes = [*arguments.dim, *arguments.frames, *arguments.batch, *counts]
  if min(sizes) < 1 or any(dim % HEAD_WIDTH for dim in arguments.dim):
    raise UserError(
      f"every number must be positive and --dim a multiple of {HEAD_WIDTH}; got --dim"
      f" {arguments.dim} --frames {arguments.frames} --batch {arguments.batch} --layers"
      f" {arguments.layers} --steps {arguments.steps}. Change it."
    )
  if arguments.plot:
    make_folder(arguments.plot.parent, "the folder of --plot")
  rows = []
  with tempfile.TemporaryDirectory() as folder:
    path = write_random(Path(folder), SONGS, song_s=max(arguments.frames) / METADATA.frame_rate_hz)
    dataset = Dataset.open(path)
    for dim, frames, batch in cases(arguments.dim, arguments.frames, arguments.batch):
      rows.append(measure(dataset, arguments, dim, frames, batch))
      yield rows[-1]
  if arguments.plot:
    plot_growth(rows, GROWS, "step_s", "seconds a step", arguments.plot)


def cases(
  dims: Sequence[int], frames: Sequence[int], batches: Sequence[int]
) -> list[tuple[int, int, int]]:
  """Returns (width, length, batch): the first of each, and every other value of one alone."""
  found = [(dim, frames[0], batches[0]) for dim in dims]
  found += [(dims[0], length, batches[0]) for length in frames[1:]]
  return found + [(dims[0], frames[0], batch) for batch in batches[1:]]


def measure(
  dataset: Dataset, arguments: argparse.Namespace, dim: int, frames: int, batch: int
) -> Row:
  """Returns the row of one size."""
  config = build_config(
    dataset.metadata, dim, frames, batch, arguments.layers, path=str(dataset.path)
  )
  config.model.remat = arguments.remat
  config.model.unroll = arguments.unroll or arguments.layers
  config.model.compute_dtype = dtype = resolve_dtype(arguments.dtype)
  config.validate()
  mesh = sharding.build_mesh(config.mesh, jax.devices()[:1])
  model = build(config.model, mesh)
  abstract = abstract_like(jax.eval_shape(lambda: init_state(config, model)), mesh)
  shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
  state = jax.jit(lambda: init_state(config, model), out_shardings=shardings)()
  step_fn = jit_train_step(config, model, shardings)
  loader = make_loader(dataset, "train", config.data, seed=0)
  product = MatrixProduct(dtype, arguments.matmul)
  product.time()
  products_s, steps_s, waits_s = [product.time() for _ in range(5)], [], []
  try:
    for _ in range(2 + arguments.steps):
      began_s = time.perf_counter()
      rows = next(loader)
      waits_s.append(time.perf_counter() - began_s)
      state, metrics = step_fn(state, sharding.put_batch(rows, mesh))
      jax.block_until_ready((state, metrics))
      steps_s.append(time.perf_counter() - began_s)
  finally:
    loader.close()
  products_s += [product.time() for _ in range(5)]
  steps_s, waits_s = steps_s[2:], waits_s[2:]  # the first compiles, the second still warms up
  step_s = statistics.median(steps_s)
  rate = batch * train_flops(config.model, frames) / step_s
  matmul_rate, device = product.rate(statistics.median(products_s)), jax.devices()[0]
  peak, memory = peak_flops(device.device_kind), device.memory_stats() or {}
  row: Row = {
    "dim": dim,
    "frames": frames,
    "batch": batch,
    "layers": arguments.layers,
    "remat": arguments.remat,
    "unroll": config.model.unroll,
    "parameters_m": sum(leaf.size for leaf in jax.tree.leaves(state.params)) / 1e6,
    "step_s": step_s,
    "spread": (max(steps_s) - min(steps_s)) / 2 / step_s,
    "gflops_per_s": rate / 1e9,
    "matmul_gflops_per_s": matmul_rate / 1e9,
    "matmul_share": rate / matmul_rate,
    "mfu": peak and rate / peak,
    "dtype": dtype,
    "memory_gb": memory.get("peak_bytes_in_use", 0) / 1e9 or None,
    "wait_share": sum(waits_s) / sum(steps_s),
    "compilations": cast(Any, step_fn)._cache_size(),  # which jax.stages.Wrapped does not declare
    **describe_machine(),
  }
  if arguments.torch:
    params = state.params
    del state  # PyTorch needs the room
    row |= measure_torch(params, config, arguments.steps, step_s)
  return row


def measure_torch(params: Params, config: Config, steps: int, step_s: float) -> Row:
  """Returns the columns of PyTorch's step on these weights; of none if it cannot be taken."""
  with tempfile.TemporaryDirectory() as folder:
    weights = save_flat(params, Path(folder) / "weights.npz")
    words = ["--weights", weights, "--frames", config.data.crop_frames]
    words += ["--batch", config.data.batch_size, "--dtype", config.model.compute_dtype]
    words += ["--device", torch_device()]
    with TorchWorker("data_prep.yardsticks.train_timer", words) as worker:
      taken = [worker.time("step") for _ in range(2 + steps)][2:]
  if worker.note:
    return {"torch": worker.note}
  torch_s = statistics.median(taken)
  return {"torch": worker.version, "torch_s": torch_s, "times_torch": torch_s / step_s}


def build_config(
  codes: Metadata, dim: int, frames: int, batch: int, layers: int, path: str = ""
) -> Config:
  """Returns the settings of a model in the proportions of `configs/slakh.py`."""
  model = ModelConfig(
    n_levels=codes.n_levels,
    n_codes=codes.n_codes,
    dim=dim,
    n_layers=layers,
    n_heads=dim // HEAD_WIDTH,
    mlp_dim=round(dim * MLP_RATIO / 64) * 64,
    sources=dict(codes.sources),
  )
  data = DataConfig(path=path, crop_frames=frames, batch_size=batch)
  return Config(name="bench", model=model, data=data)
