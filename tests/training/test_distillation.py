# SPDX-License-Identifier: Apache-2.0
"""A model learns to steer by itself what its teacher's branches together predict."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stemgen_jax import distill
from stemgen_jax.config import MOST_SCALE, MeshConfig, OptimConfig
from stemgen_jax.errors import UserError
from stemgen_jax.model import guidance
from stemgen_jax.model.decode import options_of
from stemgen_jax.model.generate import build_generate, steering_of, take_keys
from stemgen_jax.model.network import build
from stemgen_jax.model.sharding import build_mesh
from stemgen_jax.train import train
from stemgen_jax.training import distillation
from stemgen_jax.training.distillation import Teacher, distilled_config, share_rows
from stemgen_jax.training.metrics import read_metrics
from stemgen_jax.training.weights import load_average
from stemgen_jax.training.workdir import load_init

B, T, Q, V = 16, 20, 4, 16


def make_teacher(tiny_config, mode="nested", levels=Q):
  config = tiny_config()
  config.sample = dataclasses.replace(
    config.sample,
    guidance_mode=mode,
    guidance={"context": 2.0, "instrument": 3.0},
    guided_levels=levels,
  )
  model = build(config.model)
  return Teacher(config, model), model.init(jax.random.key(3))


def make_student(teacher, params):
  config = distilled_config(teacher.config)
  model = build(config.model)
  tables = model.init(jax.random.key(0))["steering"]
  return config, model, {**params, "steering": tables}


def make_batch():
  rng = np.random.default_rng(0)
  return {
    "target": jnp.asarray(rng.integers(0, V, (B, T, Q)), jnp.int32),
    "context": jnp.asarray(rng.integers(0, V, (B, T, Q)), jnp.int32),
    "conditions": jnp.asarray(rng.integers(0, 3, (B, 1)), jnp.int32),
  }


def ask(teacher, config, model, student, batch):
  pose = jax.jit(functools.partial(distillation.pose, teacher.config, config, model))
  return pose(student, batch, jax.random.key(1))


@pytest.mark.parametrize("mode", ["independent", "nested", "leave_one_out"])
def test_the_answer_is_the_sum_of_the_teachers_branches(tiny_config, mode):
  teacher, params = make_teacher(tiny_config, mode)
  config, model, student = make_student(teacher, params)
  question = ask(teacher, config, model, student, make_batch())
  answer = jax.jit(lambda q: distillation.teach(teacher, config, q, params))(question)
  rows, hear = share_rows(B, config, teacher.config), jax.jit(teacher.model.apply)
  assert sorted([*rows.guided, *rows.plain]) == list(range(B))
  assert len(rows.guided)
  assert len(rows.plain)
  for b in (*rows.guided[:5], *rows.plain):
    one = [x[b][None] for x in (question.tokens, question.context, question.conditions)]
    if b in rows.plain:
      keeps, weights = question.keep[b][None], [1.0]
      assert (question.scales[b] == -1).all()
    else:
      keeps = guidance.branches([True, True], mode)
      weights = guidance.branch_weights(question.scales[b], [True, True], mode)
      assert ((question.scales[b] >= 0) & (question.scales[b] <= MOST_SCALE)).all()
    wanted = sum(
      w * teacher.model.read_level(params, hear(params, *one, keep[None]), jnp.int32(b % Q))
      for w, keep in zip(weights, jnp.asarray(keeps), strict=True)
    )
    np.testing.assert_allclose(answer[b], wanted[0], rtol=1e-4, atol=1e-4)


def test_levels_that_are_not_guided_are_plain_and_own_rows_ask_the_first_level(tiny_config):
  teacher, params = make_teacher(tiny_config, levels=1)
  config, model, student = make_student(teacher, params)
  rows = share_rows(B, config, teacher.config)
  assert list(rows.guided) == [0, 4, 8]  # the fourth turn is plain
  assert list(rows.own) == [0, 4, 8]
  batch = make_batch()
  question = ask(teacher, config, model, student, batch)
  mask, tokens = np.array(question.mask), np.array(question.tokens)
  own = rows.own
  assert (tokens[mask] == V).all()
  assert mask[own][:, :, 1:].all()  # levels above are hidden
  assert mask[own][:, :, 0].any(axis=1).all()  # something is left to ask
  rest = [b for b in range(B) if b not in own]
  truth = np.array(batch["target"])
  np.testing.assert_array_equal(tokens[rest][~mask[rest]], truth[rest][~mask[rest]])


def test_before_it_has_learnt_a_student_is_its_teacher_without_guidance(tiny_config):
  teacher, params = make_teacher(tiny_config)
  _, model, student = make_student(teacher, params)
  batch, scales = make_batch(), jnp.full((B, 2), 3.0)
  keep = jnp.ones((B, 2), bool)
  args = (batch["target"], batch["context"], batch["conditions"], keep)
  wanted = teacher.model.apply(params, *args)
  np.testing.assert_allclose(model.apply(student, *args, None, scales), wanted, atol=1e-5)


def test_scales_act_where_they_are_given_and_are_linear_between_whole_numbers(tiny_config):
  teacher, params = make_teacher(tiny_config)
  _, model, student = make_student(teacher, params)
  keys = jax.random.split(jax.random.key(5), 2)
  tables = student["steering"]["tables"]
  drawn = {n: jax.random.normal(k, t.shape) for (n, t), k in zip(tables.items(), keys, strict=True)}
  student["steering"] = {"tables": drawn}
  batch, keep = make_batch(), jnp.ones((B, 2), bool)
  args = (batch["target"], batch["context"], batch["conditions"], keep, None)

  @jax.jit
  def steer(tables, scales):
    params = {**student, "steering": {"tables": tables}}
    return model.apply(params, *args, jnp.tile(scales[None], (B, 1)))

  def apply(scales):
    return steer(drawn, jnp.array(scales))

  plain = model.apply(student, *args)
  np.testing.assert_allclose(apply([-1.0, -1.0]), plain, atol=1e-5)
  assert np.abs(apply([2.0, -1.0]) - plain).max() > 0.1
  assert np.abs(apply([2.0, 1.0]) - apply([2.0, -1.0])).max() > 0.1
  for name in drawn:  # a table that is the same at 2 and 3 is so at 2.5
    drawn[name] = drawn[name].at[3].set(drawn[name][2])
  np.testing.assert_allclose(apply([2.5, 2.2]), apply([2.0, 3.0]), atol=1e-4)


def test_sampling_gives_the_scales_to_the_network_once_at_guided_levels(tiny_config):
  teacher, params = make_teacher(tiny_config, levels=1)
  config, model, student = make_student(teacher, params)
  seen = []

  def apply(params, target, context, conditions, keep, dropout_key=None, scales=None):
    jax.debug.callback(lambda k, s: seen.append((np.array(k), np.array(s))), keep, scales)
    return model.apply(params, target, context, conditions, keep, dropout_key, scales)

  generate = build_generate(model._replace(apply=apply), V)
  batch = make_batch()
  nothing = jnp.zeros((2, T, Q), bool)
  steering = steering_of(config.sample, config.model)
  options = options_of(dataclasses.replace(config.sample, steps=(2, 1, 1, 1)))
  generate(
    student, batch["context"][:2], batch["conditions"][:2], batch["target"][:2], nothing,
    take_keys(0, 2), options, steering,
  )  # fmt: skip
  jax.effects_barrier()
  assert len(seen) == 5
  assert all(keep.shape == (2, 2) and keep.all() for keep, _ in seen)
  guided = sorted(scales.tolist() for _, scales in seen)
  assert guided == [[[-1, -1]] * 2] * 3 + [[[2, 3]] * 2] * 2


def test_the_command_makes_a_model_that_is_nearer_to_its_guided_teacher(tiny_config, tmp_path):
  config = make_teacher(tiny_config)[0].config
  config.optim = OptimConfig(steps=60, warmup_steps=5, learning_rate=1e-2)
  config.eval_batches, config.eval_every_steps, config.log_every_steps = 1, 60, 60
  train(config, tmp_path / "teacher")
  words = f"--checkpoint {tmp_path}/teacher --workdir {tmp_path}/student --steps 80 --every 10"
  distill.main([*words.split(), "--batch_size", "16", "--learning_rate", "1e-2"])
  rows = read_metrics(tmp_path / "student")
  assert rows[80]["validation/loss"] < 0.7 * rows[10]["validation/loss"]
  mesh = build_mesh(MeshConfig())
  student, params, meta = load_average(tmp_path / "student", mesh)
  assert student.sample.guidance_mode == "distilled"
  assert student.model.scale_inputs == ("context", "instrument")
  assert jnp.abs(params["steering"]["tables"]["context"]).max() > 0
  # Training goes on from it without the scales, and from its teacher with them.
  fingerprint = meta["dataset"]["codec_fingerprint"]
  without = load_init(tmp_path / "student", config, mesh, fingerprint)
  jax.tree.map(np.testing.assert_array_equal, params, {**without, "steering": params["steering"]})
  grown = load_init(tmp_path / "teacher", student, mesh, fingerprint)
  assert not any(map(jnp.any, jax.tree.leaves(grown["steering"])))


def test_a_model_without_branches_is_refused(tiny_config):
  teacher, _ = make_teacher(tiny_config, mode="joint")
  with pytest.raises(UserError, match="in several branches"):
    distillation.check_teacher(teacher.config)
