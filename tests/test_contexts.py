# SPDX-License-Identifier: Apache-2.0
"""Context mixes: which subsets are drawn, and how they are summed."""

import subprocess
import sys

import numpy as np
import pytest

from data_prep import contexts
from data_prep.contexts import draw_members, make_rng, sum_stems
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


def test_sizes_are_spread():
  sizes = np.concatenate(
    [draw_members(make_rng(0, "song", i), 6, 8)[1:].sum(1) for i in range(400)]
  )
  shares = np.bincount(sizes, minlength=6)[1:6] / len(sizes)
  assert (np.abs(shares - 0.2) < 0.07).all()
  assert shares[0] > 0.12
  assert shares[-1] > 0.12


def test_rules_hold_when_drawing_again_does_not_help(monkeypatch):
  monkeypatch.setattr(contexts, "_TRIES", 1)
  test_rules_hold(4, 3)


def test_one_stem_has_silence_only():
  assert np.array_equal(draw_members(make_rng(0, "a", 0), 1, 8), np.zeros((2, 1), bool))


def test_too_few_mixes():
  with pytest.raises(UserError, match="at least 3; got mixes=2"):
    draw_members(make_rng(0, "a", 0), 4, 2)


def test_draw_depends_on_seed_song_and_clip_alone():
  draws = [
    make_rng(*key).integers(2**62)
    for key in [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1), (1, "0/a", 0), (0, "a", 10)]
  ]
  assert len(set(draws)) == 6
  code = "from data_prep.contexts import make_rng; print(make_rng(0, 'a', 0).integers(2**62))"
  assert int(subprocess.check_output([sys.executable, "-c", code])) == draws[0]


def test_mix_is_a_sum_that_does_not_clip():
  stems = np.stack([np.full((2, 5), x, np.float32) for x in (0.5, -0.2, 0.9)])
  assert np.allclose(sum_stems(stems, np.array([1, 1, 0], bool)), 0.3)
  assert np.allclose(sum_stems(stems, np.array([1, 0, 1], bool)), 1.0)
  assert sum_stems(stems, np.array([1, 0, 1], bool)).dtype == np.float32
  assert np.array_equal(sum_stems(stems, np.zeros(3, bool)), np.zeros((2, 5)))
  assert stems[0, 0, 0] == 0.5
