# SPDX-License-Identifier: Apache-2.0
r"""Seconds a stem takes to sample, beside the plain PyTorch way of the same decode.

Example:
  python -m stemgen_jax.bench sample --json sample.json --plot sample.png
  python -m stemgen_jax.bench sample --checkpoint runs/demo/model   # and the time to first audio

The first row is the base; each other row changes one number of it. "x torch" is against
data_prep/yardsticks/torch_sampler.py (one forward a guidance branch, the heads of all levels, a
Python loop) in a process of its own, with the same sizes, iterations and threads, the two taking
turns. A forward is the network on all branches of one iteration, alone; "overhead" is what an
iteration takes beyond it. FLOP are those the model needs (`stemgen_jax.model.flops`), "matmul" the
rate of a product of two square matrices of --matmul rows, timed between the stems; "compile" is
what the first stem takes longer. Networks, PyTorch's too, multiply numbers of --dtype, and so does
"matmul"; "MFU" is against the device's published peak, "x real time" against frames of 20 ms.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp

from stemgen_jax.bench.device import MatrixProduct, add_dtype, resolve_dtype, torch_device
from stemgen_jax.bench.first_audio import measure_first_audio
from stemgen_jax.bench.growth import plot_growth
from stemgen_jax.bench.table import Row, describe_machine
from stemgen_jax.bench.train import HEAD_WIDTH, MLP_RATIO
from stemgen_jax.bench.worker import TorchWorker, save_flat
from stemgen_jax.config import ModelConfig, SampleConfig
from stemgen_jax.errors import UserError
from stemgen_jax.model import guidance
from stemgen_jax.model.decode import options_of
from stemgen_jax.model.flops import forward_flops, peak_flops
from stemgen_jax.model.generate import build_generate, steering_of, take_keys
from stemgen_jax.model.network import build
from stemgen_jax.model.sharding import cast_layers
from stemgen_jax.shell.folders import make_folder

LEVELS, CODES, FRAME_RATE_HZ = 4, 2048, 50
GROWS = {name: name for name in ("frames", "iterations", "branches", "takes")}
COLUMNS = {
  "case": ("case", ""),
  "stem_s": ("s a stem", ".2f"),
  "torch_s": ("torch", ".2f"),
  "times_torch": ("x torch", ".2f"),
  "times_real": ("x real time", ".1f"),
  "iteration_ms": ("iteration ms", ".1f"),
  "forward_ms": ("forward ms", ".1f"),
  "overhead": ("overhead", ".1%"),
  "gflops_per_s": ("GFLOP/s", ".0f"),
  "matmul_share": ("of matmul", ".0%"),
  "mfu": ("MFU", ".0%"),
  "compile_s": ("compile s", ".1f"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the subcommand's flags."""
  parser.add_argument("--dim", type=int, default=512, help="width")
  parser.add_argument("--layers", type=int, default=8)
  parser.add_argument("--frames", type=int, default=500)
  parser.add_argument("--steps", type=int, nargs=LEVELS, default=[24, 12, 8, 8])
  parser.add_argument("--sources", type=int, default=2, help="guided ones, the context among them")
  parser.add_argument("--takes", type=int, default=1)
  parser.add_argument("--repeats", type=int, default=3, help="timed stems of each")
  add_dtype(parser)
  parser.add_argument("--only_base", action="store_true", help="leave the growth out")
  parser.add_argument("--matmul", type=int, help="rows of the matrices: 2048, or 8192")
  parser.add_argument("--plot", type=Path, metavar="FILE", help="draw how the cost grows")
  parser.add_argument("--checkpoint", help="measure its time to first audio too")


def measure_all(arguments: argparse.Namespace) -> Iterator[Row]:
  """Yields a row for each size, then for each start if a checkpoint is given.

  Raises:
    UserError: if a number breaks its rule, or the plot's folder cannot be made.
  """
  base = {name: getattr(arguments, name) for name in ("frames", "steps", "sources", "takes")}
  sizes = [arguments.dim, arguments.layers, arguments.repeats, *base["steps"], arguments.frames]
  if min(*sizes, arguments.takes) < 1 or arguments.sources < 0 or arguments.dim % HEAD_WIDTH:
    raise UserError(
      f"every number must be positive and --dim a multiple of {HEAD_WIDTH}; got --dim"
      f" {arguments.dim} and {base}, {arguments.layers} layers, {arguments.repeats} repeats."
      " Change it."
    )
  cases = {"base": base}
  if not arguments.only_base:
    for frames in (arguments.frames // 2, 2 * arguments.frames):
      cases[f"{frames} frames"] = base | {"frames": frames}
    twice = [2 * n for n in arguments.steps]
    cases[f"{sum(twice)} iterations"] = base | {"steps": twice}
    for sources in {0, 1, 2} - {arguments.sources}:
      cases[f"{sources} guided sources"] = base | {"sources": sources}
    for takes in (2, 4):
      cases[f"{takes * arguments.takes} takes"] = base | {"takes": takes * arguments.takes}
  if arguments.plot:
    make_folder(arguments.plot.parent, "the folder of --plot")
  rows = []
  for name, case in cases.items():
    rows.append({"case": name, **measure(arguments, **case)})
    yield rows[-1]
  if arguments.plot:
    plot_growth(rows, GROWS, "takes_s", "seconds", arguments.plot)
  if arguments.checkpoint:
    yield from measure_first_audio(arguments.checkpoint)


def measure(
  arguments: argparse.Namespace, frames: int, steps: list[int], sources: int, takes: int
) -> Row:
  """Returns the row of one size."""
  config = ModelConfig(
    n_levels=LEVELS,
    n_codes=CODES,
    dim=arguments.dim,
    n_layers=arguments.layers,
    n_heads=arguments.dim // HEAD_WIDTH,
    mlp_dim=round(arguments.dim * MLP_RATIO / 64) * 64,
    sources={f"source_{i}": ("a", "b") for i in range(max(0, sources - 1))},
    compute_dtype=resolve_dtype(arguments.dtype),
    remat="none",
  )
  model = build(config)
  weights_whole = jax.jit(model.init)(jax.random.key(0))
  params = cast_layers(weights_whole, config.compute_dtype)
  mode = "independent" if sources else "joint"
  scales = {name: 2.0 for name in ("context", *config.sources)}
  settings = SampleConfig(steps=tuple(steps), guidance_mode=mode, guidance=scales)
  options, steering = options_of(settings), steering_of(settings, config)
  context = jax.random.randint(jax.random.key(1), (takes, frames, LEVELS), 0, CODES)
  conditions = jnp.zeros((takes, len(config.sources)), jnp.int32)
  arrays = (params, context, conditions, context, jnp.zeros(context.shape, bool))
  generate = build_generate(model, CODES)
  branches = guidance.branches(steering.guided, mode)
  rows = takes * len(branches)
  forward = jax.jit(model.apply)
  keep = jnp.tile(jnp.asarray(branches), (takes, 1))
  tiled = [jnp.repeat(x, len(branches), axis=0) for x in (context, context, conditions)]
  product = MatrixProduct(config.compute_dtype, arguments.matmul)

  def run_forward(turn: int) -> None:
    jax.block_until_ready(forward(params, *tiled, keep))

  def run_generate(turn: int) -> None:
    jax.block_until_ready(generate(*arrays, take_keys(turn, takes), options, steering))

  def run_matmul(turn: int) -> None:
    product.run()

  taken: dict = {run_generate: [], run_forward: [], run_matmul: [], "torch": []}
  with tempfile.TemporaryDirectory() as folder:
    weights = save_flat(weights_whole, Path(folder) / "weights.npz")
    words = ["--weights", weights, "--frames", frames, "--batch", takes, "--steps", *steps]
    if sources:
      words += ["--scales", *[2.0] * sources]
    words += ["--device", torch_device(), "--dtype", config.compute_dtype]
    with TorchWorker("data_prep.yardsticks.sample_timer", words) as torch_worker:
      for turn in range(1 + arguments.repeats):
        for call in (run_forward, run_matmul):
          for _ in range(5):
            taken[call].append(_time(call, turn))
        taken[run_generate].append(_time(run_generate, turn))
        taken["torch"].append(torch_worker.time("decode"))
  stem_s, torch_s = (statistics.median(taken[key][1:]) for key in (run_generate, "torch"))
  forward_s, matmul_s = (statistics.median(taken[key][5:]) for key in (run_forward, run_matmul))
  iteration_s = stem_s / sum(steps)
  rate = rows * forward_flops(config, frames) / iteration_s
  matmul_rate, peak = product.rate(matmul_s), peak_flops(jax.devices()[0].device_kind)
  row = {
    "stem_s": stem_s / takes,
    "takes_s": stem_s,
    "frames": frames,
    "iterations": sum(steps),
    "branches": len(branches),
    "takes": takes,
    "times_real": takes * frames / FRAME_RATE_HZ / stem_s,
    "iteration_ms": 1000 * iteration_s,
    "forward_ms": 1000 * forward_s,
    "overhead": iteration_s / forward_s - 1,
    "gflops_per_s": rate / 1e9,
    "matmul_share": rate / matmul_rate,
    "matmul_gflops_per_s": matmul_rate / 1e9,
    "mfu": peak and rate / peak,
    "dtype": config.compute_dtype,
    "compile_s": taken[run_generate][0] - stem_s,
    "dim": arguments.dim,
    "layers": arguments.layers,
    "repeats": arguments.repeats,
    **describe_machine(),
  }
  if not torch_worker.note:
    row |= {"torch_s": torch_s / takes, "times_torch": torch_s / stem_s}
    row["torch"] = torch_worker.version
  return row


def _time(call, turn: int) -> float:
  began_s = time.perf_counter()
  call(turn)
  return time.perf_counter() - began_s
