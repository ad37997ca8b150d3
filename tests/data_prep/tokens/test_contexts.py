# SPDX-License-Identifier: Apache-2.0
"""Context mixes: which subsets are drawn, and how they are summed."""

import subprocess
import sys

import numpy as np
import pytest

from data_prep.tokens import contexts
from data_prep.tokens.contexts import draw_gains, draw_members, make_rng, sum_stems
from stemgen_jax.errors import UserError


@pytest.mark.parametrize("stems", [2, 3, 4, 6, 12])
@pytest.mark.parametrize("mixes", [3, 4, 8])
def test_rules_hold(stems, mixes):
  for clip in range(60):
    members = draw_members(make_rng(0, "song", clip), stems, mixes)
    assert members.shape == (min(mixes, 2**stems - 1), stems)
    assert members.dtype == bool
    assert not members[0].any()
    assert (members[1:].any(1) & ~members[1:].all(1)).all()
    assert len(np.unique(members, axis=0)) == len(members)
    assert (~members[1:]).any(0).all()  # each stem has a mix that sounds without it


@pytest.mark.parametrize(("stems", "mixes"), [(10, 24), (6, 16)])
def test_what_a_target_may_hear_is_of_any_size_alike(stems, mixes):
  """Counted over targets and the mixes that go without them."""
  counts, backed, thirds = np.zeros(stems), 0, []
  clips = 300
  for i in range(clips):
    members = draw_members(make_rng(0, "song", i), stems, mixes)
    sizes = members.sum(1)
    thirds.append((sizes == stems - 1).sum())
    for target in range(stems):
      usable = sizes[~members[:, target] & (sizes > 0)]
      counts += np.bincount(usable, minlength=stems)
      backed += (usable == stems - 1).any()
  assert set(thirds) == {round((mixes - 1) / 3)}  # all but one
  shares = counts[1:] / counts.sum()
  np.testing.assert_allclose(shares, 1 / (stems - 1), atol=0.35 / (stems - 1))
  assert backed / (clips * stems) == pytest.approx(thirds[0] / stems)


def test_rules_hold_when_drawing_again_does_not_help(monkeypatch):
  monkeypatch.setattr(contexts, "_TRIES", 1)
  test_rules_hold(4, 3)


def test_one_stem_has_silence_only():
  assert np.array_equal(draw_members(make_rng(0, "a", 0), 1, 8), np.zeros((1, 1), bool))


def test_too_few_mixes():
  with pytest.raises(UserError, match="at least 3; got mixes=2"):
    draw_members(make_rng(0, "a", 0), 4, 2)


def test_draw_depends_on_seed_song_and_clip_alone():
  draws = [
    make_rng(*key).integers(2**62)
    for key in [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1), (1, "0/a", 0), (0, "a", 10)]
  ]
  assert len(set(draws)) == 6
  code = (
    "from data_prep.tokens.contexts import make_rng; print(make_rng(0, 'a', 0).integers(2**62))"
  )
  assert int(subprocess.check_output([sys.executable, "-c", code])) == draws[0]


STEMS = np.stack([np.full((2, 5), x, np.float32) for x in (0.5, -0.2, 0.9)])


def db(*gains):
  with np.errstate(divide="ignore"):
    return (20 * np.log10(gains)).astype(np.float16)


def test_mix_is_a_sum_that_does_not_clip():
  mix, gains = sum_stems(STEMS, db(1, 1, 0))
  assert np.allclose(mix, 0.3)
  assert mix.dtype == np.float32
  assert np.array_equal(gains, db(1, 1, 0))
  mix, gains = sum_stems(STEMS, db(1, 0, 1))
  assert np.allclose(mix, 1.0)
  assert np.allclose(gains, db(1 / 1.4, 0, 1 / 1.4), atol=0.01)  # both as much quieter
  mix, _ = sum_stems(STEMS, db(0.5, 2, 0))
  assert np.allclose(mix, 0.25 - 0.4, atol=1e-3)
  silence, gains = sum_stems(STEMS, db(0, 0, 0))
  assert np.array_equal(silence, np.zeros((2, 5)))
  assert (gains == -np.inf).all()
  assert STEMS[0, 0, 0] == 0.5


def test_gains():
  members = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]], bool)
  draws = np.stack([draw_gains(make_rng(0, "a", i), members, 3.0, 0.0) for i in range(300)])
  assert draws.dtype == np.float16
  assert (draws[:, ~members] == -np.inf).all()
  assert (draws[:, 1, 0] == 0).all()  # a lone stem keeps its level
  jittered = draws[:, 2:][:, members[2:]].astype(float)
  assert np.abs(jittered).max() <= 3.0
  shares = np.histogram(jittered, 6, (-3, 3))[0] / jittered.size
  assert (np.abs(shares - 1 / 6) < 0.05).all()
  assert (draw_gains(make_rng(0, "a", 0), members, 0.0, 0.0)[members] == 0).all()


def test_a_whole_mix_is_as_loud_as_it_happens_to_be():
  members = np.array([[1, 0, 0], [1, 1, 1]], bool)
  draws = np.stack([draw_gains(make_rng(0, "a", i), members, 0.0, 6.0) for i in range(400)])
  alone, mix = draws[:, 0, 0].astype(float), draws[:, 1].astype(float)
  assert (mix == mix[:, :1]).all()
  for gains in (alone, mix[:, 0]):
    assert np.abs(gains).max() <= 6.0
    assert (np.histogram(gains, 4, (-6, 6))[0] / len(gains) > 0.15).all()
  assert abs(np.corrcoef(alone, mix[:, 0])[0, 1]) < 0.2
