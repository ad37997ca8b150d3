# SPDX-License-Identifier: Apache-2.0
r"""Trains a model on token shards, and goes on by itself where an earlier run stopped.

Example:
  python -m stemgen_jax.train --config configs/demo.py --workdir runs/demo/model \
    --init_from shipped --config.data.path=runs/demo/tokens --config.optim.steps=400

Any field of the config can be set as `--config.field=value`. WORKDIR holds the checkpoints, the
settings (config.json), metrics.jsonl and TensorBoard curves. The same command resumes a run; after
SIGTERM it has saved first.
"""

import contextlib
import functools
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
from jax.sharding import Mesh

from stemgen_jax.categories import SLAKH_CLASSES
from stemgen_jax.config import Config
from stemgen_jax.config_json import to_dict
from stemgen_jax.data.loader import make_loader
from stemgen_jax.data.records import Dataset
from stemgen_jax.errors import UserError, run_cli
from stemgen_jax.model import sharding
from stemgen_jax.model.network import Model, build
from stemgen_jax.shell import compilation_cache
from stemgen_jax.shell.flags import build_parser, parse_config
from stemgen_jax.shell.folders import refuse_address, refuse_patterns
from stemgen_jax.training.audition import build_audition
from stemgen_jax.training.checkpoint import abstract_like, hush_closed_loops
from stemgen_jax.training.codebook_init import read_codebooks
from stemgen_jax.training.recorder import Recorder
from stemgen_jax.training.step import PREDICT, Lesson, TrainState, init_state, jit_train_step
from stemgen_jax.training.stopping import Patience, StopSignal
from stemgen_jax.training.validation import build_validation
from stemgen_jax.training.workdir import check_fit, describe, git_commit, load_init, open_run
from stemgen_jax.types import Params

PROFILED = range(3, 8)  # steps of this process: the first ones compile


def train(
  config: Config,
  workdir: Path,
  init_from: str | os.PathLike | None = None,
  lesson: Lesson = PREDICT,
) -> TrainState:
  """Trains to `config.optim.steps`, or to a SIGTERM, and returns the state then.

  Args:
    config: the settings.
    workdir: where the run is kept.
    init_from: what `load_average` reads, whose averaged weights a new run starts from.
    lesson: what it learns: to predict hidden tokens, or what another model predicts (distill).

  Raises:
    UserError: if the config breaks a rule, does not fit the shards, the workdir holds a run of
      another model or cannot be written, or the loss stays not finite.
  """
  config.validate()
  refuse_patterns(workdir, "--workdir")
  check_data(config)
  dataset = Dataset.open(config.data.path)
  mesh = sharding.build_mesh(config.mesh)
  check_fit(config, dataset, mesh)
  model = build(config.model, mesh)
  share, shares = sharding.batch_share(mesh)
  loader = make_loader(
    dataset,
    config.data.train_split,
    config.data,
    seed=config.seed,
    share=share,
    shares=shares,
    sources=tuple(config.model.sources),
  )
  validate = None
  if config.eval_batches:
    validate = build_validation(config, model, dataset, mesh, lesson)
  audition = build_audition(config, model, dataset, mesh) if config.train.audio_examples else None
  init, arguments = starting_point(config, model, dataset, mesh, init_from)
  abstract = abstract_like(jax.eval_shape(init, *arguments), mesh)
  shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
  step_fn = jit_train_step(config, model, shardings, lesson.step)
  meta = {"config": to_dict(config), "dataset": describe(dataset), "git_commit": git_commit()}
  songs = dataset.source(config.data.train_split).songs
  patience = Patience(config.patience_steps)
  began, steps = time.perf_counter(), config.optim.steps

  with (
    StopSignal() as stop,
    contextlib.closing(open_run(workdir, config, meta)) as checkpoints,
    Recorder(config, workdir, songs, start=checkpoints.latest_step() or 0) as record,
  ):
    if checkpoints.latest_step() is None:
      state = jax.jit(init, out_shardings=shardings)(*arguments)
    else:
      state = checkpoints.restore(abstract)
      if init_from:
        record.say(
          f"goes on from its own step {int(state.step)}: --init_from {init_from} is not read"
        )
      told = checkpoints.read_meta()
      record.set_state(told["log"])
      if "patience" in told:
        patience.set_state(told["patience"], int(state.step))
    start = step = int(state.step)
    loader.set_state({"next_index": start})  # a step reads one batch
    asked = False
    while step < steps and not (asked or patience.over):
      step += 1
      with traced(workdir / "profile", step - start, config.train.profile):
        waited_from = time.perf_counter()
        batch = next(loader)
        wait_s = time.perf_counter() - waited_from
        state, metrics = step_fn(state, sharding.put_batch(batch, mesh), *lesson.given)
        record.add(step, metrics, wait_s, batch["clip"])
      if due(step, config.log_every_steps, steps):
        record.tell_step(step)
      if validate and due(step, config.eval_every_steps, steps):
        scalars = validate(state.average)
        record.tell_validation(step, scalars)
        patience.see(step, scalars["validation/accuracy"])
        if audition:
          record.add_sounds(audition(state.average), step)
      asked = stop.reached(step)
      if asked or patience.over or due(step, config.checkpoint_every_steps, steps):
        loss = record.latest.get("validation/loss")
        told = {
          "log": record.get_state(),
          "patience": patience.get_state(),
          "listening_score_nats": record.listening_score(),
        }
        checkpoints.save(state, {**meta, **told}, loss)
    checkpoints.finish()
    if asked and step < steps:
      record.say(f"stopped by SIGTERM after step {step}, and saved: the same command goes on")
    else:
      if patience.over:
        record.say(f"ends at step {step}: validation accuracy has not risen since {patience.since}")
      record.tell_end(step, workdir, time.perf_counter() - began)
  return state


def check_data(config: Config) -> None:
  """Says how a dataset is made, where there is none yet."""
  path = Path(config.data.path)
  refuse_address(path, "data.path")
  if path.exists():
    return
  what = f"data.path must be a folder of token shards; got {path}, which is missing."
  name = re.sub(r"[^a-z0-9_]", "_", path.name.lower())
  words = f"--out {path.parent} --name {name}"
  if config.data.codec:
    raise UserError(
      f"{what} Make it of MUSIC, folders of stems, with python -m data_prep.tokenize --root MUSIC"
      f" --codec {config.data.codec} {words}; or give --config.data.path."
    )
  if config.model.sources.get("instrument") == SLAKH_CLASSES:
    words += " --corpus slakh --categories data_prep/corpora/slakh_classes.yaml"
  raise UserError(
    f"{what} Make it with these two commands, or give --config.data.path:",
    commands=(
      "python -m data_prep.convert_codec --from facebook/encodec_32khz --out codecs/32khz",
      f"python -m data_prep.tokenize --root SLAKH2100 --codec codecs/32khz {words}",
    ),
  )


def due(step: int, every: int, steps: int) -> bool:
  """Whether what happens each `every` steps, and at the end, happens after this one."""
  return step % every == 0 or step == steps


def starting_point(
  config: Config,
  model: Model,
  dataset: Dataset,
  mesh: Mesh,
  init_from: str | os.PathLike | None,
) -> tuple[Callable[..., TrainState], tuple[Params, ...]]:
  """Returns a function that makes the first state, and its arguments.

  Raises:
    UserError: if the codec or the other run's model do not fit.
  """
  fingerprint = dataset.metadata.codec_fingerprint
  if init_from:
    params = load_init(init_from, config, mesh, fingerprint)
    return lambda params: init_state(config, model, params=params), (params,)
  codebooks = None
  if config.data.codec:
    codebooks = read_codebooks(Path(config.data.codec), fingerprint)
  return functools.partial(init_state, config, model, codebooks), ()


@contextlib.contextmanager
def traced(folder: Path, step: int, enabled: bool) -> Iterator[None]:
  """Writes a profile of the steps PROFILED, counted from the start of this process."""
  if enabled and step == PROFILED[0]:
    jax.profiler.start_trace(folder)
  yield
  if enabled and step == PROFILED[-1]:
    jax.effects_barrier()
    jax.profiler.stop_trace()


def join_processes() -> None:
  """Joins the other processes of one program: those of launch/local.sh, or of a cluster.

  Raises:
    UserError: if there is no cluster that JAX can find.
  """
  address = os.environ.get("STEMGEN_COORDINATOR") or None
  processes, process = (os.environ.get(f"STEMGEN_{name}") for name in ("PROCESSES", "PROCESS"))
  try:
    jax.distributed.initialize(
      address, int(processes) if processes else None, int(process) if process else None
    )
  except (RuntimeError, ValueError) as error:
    raise UserError(
      f"--distributed needs a cluster that JAX knows (TPU pod, Slurm, Kubernetes), or"
      f" launch/local.sh; got {error}. Leave it out on one machine."
    ) from error


def main(argv: list[str] | None = None) -> None:
  """Trains as the command line says; the log goes to stderr, the run to its workdir."""
  parser = build_parser(__doc__)
  parser.add_argument(
    "--workdir", type=Path, help="where the run is kept (default runs/ and the name of the config)"
  )
  parser.add_argument(
    "--init_from",
    metavar="MODEL",
    help="start from the averaged weights of what sample takes as --checkpoint: another run, say",
  )
  parser.add_argument(
    "--distributed",
    action="store_true",
    help="join the other processes of a pod or cluster (jax.distributed.initialize)",
  )
  arguments = parse_config(parser, Config, argv)
  hush_closed_loops()
  compilation_cache.enable()
  if arguments.distributed:
    join_processes()
  train(
    arguments.config, arguments.workdir or Path("runs", arguments.config.name), arguments.init_from
  )


if __name__ == "__main__":
  sys.exit(run_cli(main))
