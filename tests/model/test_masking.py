# SPDX-License-Identifier: Apache-2.0
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stemgen_jax.config import MaskingConfig
from stemgen_jax.model.masking import (
  count_left_masked,
  draw_mask,
  draw_mask_rate,
  draw_writable,
  lowest,
)


@pytest.mark.parametrize("schedule", ["cosine", "uniform"])
def test_mask_hides_nothing_below_some_at_and_all_above_the_level(schedule):
  level = jnp.arange(64) % 4
  mask = np.asarray(draw_mask(jax.random.key(0), level, 50, 4, MaskingConfig(schedule=schedule)))
  for row, q in zip(mask, np.asarray(level), strict=True):
    assert not row[:, :q].any()
    assert row[:, q + 1 :].all()
    assert 1 <= row[:, q].sum() <= 50
  counts = [row[:, q].sum() for row, q in zip(mask, np.asarray(level), strict=True)]
  assert len(set(counts)) > 20


def test_mask_rates_follow_their_laws():
  cosine = np.asarray(draw_mask_rate(jax.random.key(0), 20_000, MaskingConfig()))
  uniform = np.asarray(draw_mask_rate(jax.random.key(0), 20_000, MaskingConfig(schedule="uniform")))
  assert abs(cosine.mean() - 2 / np.pi) < 0.01  # E[cos(pi/2 u)]
  assert abs(uniform.mean() - 0.5) < 0.01
  with pytest.raises(ValueError, match="schedule must be"):
    draw_mask_rate(jax.random.key(0), 2, MaskingConfig(schedule="linear"))


def test_a_share_hides_the_whole_level():
  level = jnp.zeros(4000, int)
  for full_prob in (0.0, 0.3, 1.0):
    mask = draw_mask(jax.random.key(0), level, 20, 2, MaskingConfig(full_prob=full_prob))
    whole = float(np.asarray(mask)[..., 0].all(axis=1).mean())
    by_chance = 2 / np.pi * np.arccos(19 / 20)  # the share of rates that round up to all
    assert abs(whole - (full_prob + (1 - full_prob) * by_chance)) < 0.03


def test_some_examples_leave_only_stretches_to_be_written():
  batch, frames = 3000, 250
  all_of_them = MaskingConfig(span_prob=1.0)
  writable = np.asarray(draw_writable(jax.random.key(0), batch, frames, all_of_them))
  changes = np.abs(np.diff(writable.astype(int), axis=1)).sum(axis=1)
  suffix = (changes == 1) & writable[:, -1]
  assert suffix.mean() > 0.3
  inside = (changes == 2) & ~writable[:, 0] & ~writable[:, -1]
  assert inside.mean() > 0.2
  assert (changes > 2).mean() > 0.2  # beats
  some = np.asarray(draw_writable(jax.random.key(1), batch, frames, MaskingConfig(span_prob=0.2)))
  assert abs((~some).any(axis=1).mean() - 0.2) < 0.03
  assert np.asarray(draw_writable(jax.random.key(1), 9, frames, MaskingConfig())).all()


def test_only_what_is_to_be_written_is_hidden_at_the_level():
  level, spans = jnp.zeros(500, int), MaskingConfig(span_prob=1.0, full_prob=1.0)
  mask = np.asarray(draw_mask(jax.random.key(3), level, 60, 2, spans))
  hidden = mask[..., 0].sum(axis=1)
  assert hidden.min() >= 1
  assert len(set(hidden)) > 20
  suffixes = (np.diff(mask[..., 0].astype(int), axis=1) >= 0).all(axis=1)
  assert suffixes.mean() > 0.3  # all of a suffix at once
  assert mask[..., 1].all()


def test_lowest_marks_exactly_count_and_breaks_ties_by_time():
  score = jnp.array([[3.0, 1.0, 2.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
  marked = lowest(score, jnp.array([2, 3]))
  np.testing.assert_array_equal(marked, [[False, True, False, True], [False, True, True, True]])


@pytest.mark.parametrize(("steps", "hidden"), [(128, 1000), (10, 7), (1, 5), (20, 3)])
def test_number_left_follows_the_cosine_to_zero(steps, hidden):
  left = [
    int(count_left_masked(jnp.int32(k), jnp.int32(steps), jnp.array([hidden]))[0])
    for k in range(1, steps + 1)
  ]
  exact = np.cos(np.pi / 2 * np.arange(1, steps) / steps) * hidden
  near = np.abs(exact - np.rint(exact)) < 1e-3  # float32 may fall on either side of an integer
  law = np.maximum(1, np.floor(np.where(near, np.rint(exact), exact)))
  assert (~near).any() or steps == 1
  np.testing.assert_array_equal(np.array(left[:-1])[~near], law[~near])
  np.testing.assert_allclose(np.array(left[:-1])[near], law[near], atol=1)
  assert left[-1] == 0
  assert all(a >= b for a, b in itertools.pairwise(left))
  assert min(left[:-1], default=1) >= 1
