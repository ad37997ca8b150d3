# SPDX-License-Identifier: Apache-2.0
"""Learning from a teacher's guided predictions: several branches become one that takes the scales.

The teacher hears a batch once for each branch of its guidance and adds the branches up by scales
drawn at random; the student hears it once, with those scales as inputs, and is to predict the same:

  loss = mean over hidden tokens of KL(p_teacher(. | scales) || p_student(. ; scales))

Source: ours; arXiv:2210.03142 distils the guidance of diffusion models so.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stemgen_jax.config import MOST_SCALE, Config
from stemgen_jax.errors import UserError
from stemgen_jax.model import guidance, losses
from stemgen_jax.model.decode import decode, options_of
from stemgen_jax.model.masking import count_left_masked, draw_mask, lowest
from stemgen_jax.model.network import Model
from stemgen_jax.training.step import (
  Lesson,
  TrainState,
  asked_levels,
  descend,
  draw_keep,
  spread_levels,
  step_metrics,
  take_level,
)
from stemgen_jax.types import Array, Bool, Float, Int, Key, Params

PLAIN_EVERY = 4  # every fourth turn of the asked levels is unguided, with sources dropped


class Teacher(NamedTuple):
  """A model and the settings that it was trained and samples with; its weights go their own way."""

  config: Config
  model: Model


class Lessons(NamedTuple):
  """Who teaches a batch what, by row; static, so that each row costs the branches it needs."""

  guided: Int[np.ndarray, " g"]  # rows that are taught guided predictions
  plain: Int[np.ndarray, " p"]  # rows that are taught what the teacher predicts without guidance
  own: Int[np.ndarray, " o"]  # guided rows that are shown what the student itself has written


def share_rows(batch: int, config: Config, teacher: Config) -> Lessons:
  """Returns the rows of a batch by lesson.

  Levels that the teacher does not guide are plain, and so is every fourth turn of the asked levels:
  what the model is without guidance stays. The first row of every other turn is the student's own.
  """
  asked, rows = asked_levels(config), np.arange(batch)
  level, turn = np.array(asked)[rows % len(asked)], rows // len(asked)
  guided = (level < teacher.sample.guided_levels) & (turn % PLAIN_EVERY != PLAIN_EVERY - 1)
  return Lessons(rows[guided], rows[~guided], rows[guided & (rows % len(asked) == 0)])


def check_teacher(config: Config) -> None:
  """Raises a UserError if a model has nothing to distil."""
  sample = config.sample
  one_branch = sample.guidance_mode in ("joint", "distilled")
  if one_branch or not (sample.guidance and sample.guided_levels):
    raise UserError(
      "--checkpoint must sample with guidance in several branches, which are what is distilled;"
      f" got guidance_mode {sample.guidance_mode!r} with guidance of {sorted(sample.guidance)}."
      " Choose another model."
    )


def distilled_config(teacher: Config) -> Config:
  """Returns the settings of the student: the teacher's, with its guided scales as inputs."""
  names = ("context", *teacher.model.sources)
  inputs = tuple(name for name in names if name in teacher.sample.guidance)
  return dataclasses.replace(
    teacher,
    name=f"{teacher.name}_distilled",
    model=dataclasses.replace(teacher.model, scale_inputs=inputs, dropout=0.0),
    sample=dataclasses.replace(teacher.sample, guidance_mode="distilled"),
  )


def build_lesson(teacher: Teacher, params: Params) -> Lesson:
  """Returns the lesson of a teacher and its weights.

  Its metrics are those of training with KL in the place of the loss, and, in the place of hits, how
  often the likeliest code is the teacher's.
  """
  step = functools.partial(distill_step, teacher)
  return Lesson(step, functools.partial(measure_distilled, teacher), (params,))


def distill_step(
  teacher: Teacher,
  config: Config,
  model: Model,
  state: TrainState,
  batch: dict[str, Array],
  teacher_params: Params,
) -> tuple[TrainState, dict[str, Array]]:
  """Returns the next state and the step's metrics, as `step.train_step` does."""
  key = jax.random.fold_in(jax.random.key(config.seed), state.step)
  question = pose(teacher.config, config, model, state.params, batch, key)
  answer = teach(teacher, config, question, teacher_params)

  def loss_fn(params: Params):
    metrics = compare(config, model, params, question, answer)
    return jnp.sum(metrics["level_nll"]) / jnp.sum(metrics["level_count"]), metrics

  (loss, metrics), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
  return descend(config, state, grads, metrics | {"loss": loss})


def measure_distilled(
  teacher: Teacher,
  config: Config,
  model: Model,
  params: Params,
  batch: dict[str, Array],
  key: Key,
  teacher_params: Params,
) -> dict[str, Array]:
  """The sums of `step_metrics` for one batch under the masks and scales of a key."""
  question = pose(teacher.config, config, model, params, batch, key)
  return compare(config, model, params, question, teach(teacher, config, question, teacher_params))


class Question(NamedTuple):
  """What a batch asks of teacher and student."""

  tokens: Int[Array, "B T Q"]  # of the target, V where hidden
  context: Int[Array, "B T Q"]
  conditions: Int[Array, "B C"]
  keep: Bool[Array, "B K"]
  scales: Float[Array, "B K"]  # -1 where a row or a source is not guided
  mask: Bool[Array, "B T Q"]


def pose(
  teacher: Config,
  config: Config,
  model: Model,
  params: Params,
  batch: dict[str, Array],
  key: Key,
) -> Question:
  """Returns the question of a batch: tokens hidden as in training, scales uniform in [0, 6].

  Rows `own` hold what the student has written for the batch's contexts, hidden as the sampler
  hides it: it is asked about the states that it will meet, not only about true stems.
  """
  mask_key, keep_key, scale_key, own_key = jax.random.split(key, 4)
  batch_size, frames, n_levels = batch["target"].shape
  rows = share_rows(batch_size, config, teacher)
  level = spread_levels(asked_levels(config), batch_size)
  mask = draw_mask(mask_key, level, frames, n_levels, config.masking)
  keep = draw_keep(keep_key, batch["conditions"].shape, teacher).at[rows.guided].set(True)
  names = ("context", *config.model.sources)
  steered = np.zeros((batch_size, len(names)), bool)
  steered[rows.guided] = [name in config.model.scale_inputs for name in names]
  drawn = jax.random.uniform(scale_key, steered.shape, maxval=MOST_SCALE)
  scales = jnp.where(steered, drawn, -1)
  heard = (batch["context"], batch["conditions"])
  question = Question(batch["target"], *heard, keep, scales, mask)
  if len(rows.own):
    asked = jax.tree.map(lambda x: x[rows.own], question)
    tokens, own_mask = write_own(config, model, params, asked, asked_levels(config)[0], own_key)
    question = question._replace(
      tokens=question.tokens.at[rows.own].set(tokens), mask=mask.at[rows.own].set(own_mask)
    )
  return question._replace(tokens=jnp.where(question.mask, config.model.n_codes, question.tokens))


def write_own(
  config: Config, model: Model, params: Params, asked: Question, level: int, key: Key
) -> tuple[Int[Array, "o T Q"], Bool[Array, "o T Q"]]:
  """Returns one level of stems as the student writes it, and what the sampler has hidden of it.

  The state is that after k of N iterations, k uniform, with the ranks of eq. 1 but for confidence.
  """
  keys = jax.random.split(key, len(asked.tokens))
  order_key, noise_key = jax.random.split(jax.random.fold_in(key, 1))
  q = jnp.arange(asked.tokens.shape[2])[None, None, :]
  only = [n if i == level else 0 for i, n in enumerate(config.sample.steps)]
  options = options_of(dataclasses.replace(config.sample, steps=tuple(only)))

  def network(tokens, level):
    features = student_features(config, model, params, asked._replace(tokens=tokens))
    return model.read_level(params, features, level)

  known = jnp.broadcast_to(q < level, asked.tokens.shape)
  tokens = decode(network, asked.tokens, known, keys, options, config.model.n_codes)
  count, frames = asked.tokens.shape[:2]
  steps = jnp.int32(config.sample.steps[level])
  done = jax.random.randint(order_key, (count,), 0, steps)
  left = jax.vmap(count_left_masked, (0, None, None))(done, steps, jnp.full(1, frames))[:, 0]
  noise = jax.random.uniform(noise_key, (count, frames))
  earliness = 1 - jnp.arange(frames)[None, :] / frames
  rank = config.sample.w_s * earliness + config.sample.w_r * noise
  hidden = lowest(rank, left)
  return tokens, (q > level) | ((q == level) & hidden[:, :, None])


def student_features(
  config: Config, model: Model, params: Params, question: Question
) -> Float[Array, "B T D"]:
  """What the student hears: everything once, and the scales."""
  names = ("context", *config.model.sources)
  inputs = np.array([names.index(name) for name in config.model.scale_inputs])
  return model.apply(
    params,
    question.tokens,
    question.context,
    question.conditions,
    question.keep,
    None,
    question.scales[:, inputs],
  )


def teach(
  teacher: Teacher, config: Config, question: Question, params: Params
) -> Float[Array, "B T V"]:
  """Returns the teacher's logits of the asked levels: guided by the scales, or plain."""
  (own, model), asked = teacher, asked_levels(config)
  rows = share_rows(len(question.tokens), config, own)
  guided = [name in own.sample.guidance for name in ("context", *own.model.sources)]
  branches = guidance.branches(guided, own.sample.guidance_mode)

  def hear(index: Int[np.ndarray, " b"], keep: Bool[Array, "b K"]) -> Float[Array, "b T D"]:
    tokens, context, conditions = (
      x[index] for x in (question.tokens, question.context, question.conditions)
    )
    return model.apply(params, tokens, context, conditions, keep)

  features = jnp.zeros((*question.tokens.shape[:2], own.model.dim))
  if len(rows.plain):
    features = features.at[rows.plain].set(hear(rows.plain, question.keep[rows.plain]))
  if len(rows.guided):
    times = len(branches)
    heard = hear(
      np.repeat(rows.guided, times), jnp.tile(jnp.asarray(branches), (len(rows.guided), 1))
    )
    weigh: Callable = functools.partial(
      guidance.branch_weights, guided=guided, mode=own.sample.guidance_mode
    )
    weights = jax.vmap(weigh)(question.scales[rows.guided])
    heard = heard.reshape(-1, times, *heard.shape[1:])
    features = features.at[rows.guided].set(jnp.einsum("bgtd,bg->btd", heard, weights))
  return jax.lax.stop_gradient(model.read_asked(params, features, asked))


def compare(
  config: Config, model: Model, params: Params, question: Question, answer: Float[Array, "B T V"]
) -> dict[str, Array]:
  """The sums of `step_metrics`: KL(teacher || student) in nats, and agreement in the likeliest."""
  asked = asked_levels(config)
  level = spread_levels(asked, len(question.tokens))
  features = student_features(config, model, params, question)
  logits = jax.nn.log_softmax(model.read_asked(params, features, asked))
  wanted = jax.nn.log_softmax(answer)
  kl = jnp.sum(jnp.exp(wanted) * (wanted - logits), axis=-1)
  agreed = (jnp.argmax(logits, axis=-1) == jnp.argmax(answer, axis=-1)).astype(jnp.float32)
  weight = losses.loss_weight(question.mask, level, "level")
  weight = take_level(weight, level)[:, :, None]
  return step_metrics(kl[:, :, None], agreed[:, :, None], weight, question.mask, level)
