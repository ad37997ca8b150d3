# SPDX-License-Identifier: Apache-2.0
r"""Teaches a model to steer itself: one forward pass, where guidance takes one for each branch.

Example:
  python -m stemgen_jax.distill --checkpoint runs/mine --workdir runs/mine_distilled
  python -m stemgen_jax.distill --checkpoint my_model --data shards/mine --workdir runs/one

The teacher must sample with guidance in several branches; the shipped model is distilled already.
WORKDIR is a run like any other, that goes on where it was stopped; its model takes the guidance
scales as inputs, so that sampling with `--guidance_mode distilled`, its default, still takes any
scale from 0 to 6. The other modes stay what they were.
"""

import dataclasses
import sys
from pathlib import Path

from stemgen_jax.config import MeshConfig, OptimConfig, TrainConfig
from stemgen_jax.errors import UserError, run_cli
from stemgen_jax.model import sharding
from stemgen_jax.model.network import build
from stemgen_jax.shell import compilation_cache
from stemgen_jax.shell.flags import build_parser
from stemgen_jax.train import train
from stemgen_jax.training.checkpoint import hush_closed_loops
from stemgen_jax.training.distillation import (
  Teacher,
  build_lesson,
  check_teacher,
  distilled_config,
)
from stemgen_jax.training.weights import load_average


def main(argv: list[str] | None = None) -> None:
  """Distils as the command line says."""
  parser = build_parser(__doc__)
  add = parser.add_argument
  add("--checkpoint", required=True, metavar="MODEL", help="the teacher, as sample's")
  add("--workdir", required=True, type=Path, help="where the run is kept")
  add("--data", help="a folder of token shards (default: those the teacher was trained on)")
  add("--steps", type=int, default=2000, help="of training (default %(default)s)")
  add("--learning_rate", type=float, default=3e-4, help="at its peak (default %(default)s)")
  add("--batch_size", type=int, help="windows a step (default: the teacher's)")
  add("--every", type=int, default=250, help="steps between validations and checkpoints")
  arguments = parser.parse_args(argv)
  hush_closed_loops()
  compilation_cache.enable()
  mesh = sharding.build_mesh(MeshConfig())
  teacher, params, _ = load_average(arguments.checkpoint, mesh)
  check_teacher(teacher)
  data, size = arguments.data or teacher.data.path, arguments.batch_size
  if not data:
    raise UserError(
      f"--data must be given where the teacher's shards are not known; got --checkpoint"
      f" {arguments.checkpoint} alone. Give a folder that data_prep.tokenize wrote."
    )
  if arguments.steps < 1 or arguments.every < 1 or (size is not None and size < 1):
    raise UserError(
      f"--steps, --every and --batch_size must be positive; got {arguments.steps},"
      f" {arguments.every} and {size}. Change them."
    )
  student = distilled_config(teacher)
  config = dataclasses.replace(
    student,
    data=dataclasses.replace(
      student.data,
      path=data,
      batch_size=student.data.batch_size if size is None else size,
      workers=0,
    ),
    optim=OptimConfig(
      steps=arguments.steps,
      learning_rate=arguments.learning_rate,
      warmup_steps=min(100, arguments.steps // 10),
      final_lr_ratio=0.02,
      ema_decay=0.99,
    ),
    mesh=MeshConfig(),
    train=TrainConfig(),
    log_every_steps=min(50, arguments.every),
    eval_every_steps=arguments.every,
    checkpoint_every_steps=arguments.every,
    patience_steps=0,
  )
  lesson = build_lesson(Teacher(teacher, build(teacher.model, mesh)), params)
  train(config, arguments.workdir, arguments.checkpoint, lesson)


if __name__ == "__main__":
  sys.exit(run_cli(main))
