# SPDX-License-Identifier: Apache-2.0
"""Edits, what sounds, and how lanes are mixed: no server, no model."""

import dataclasses
import math

import numpy as np
import pytest

from stemgen_jax.categories import CATEGORIES
from stemgen_jax.errors import UserError
from stemgen_jax.looper import mixing
from stemgen_jax.looper.document import RATE_HZ, Lane, first_document, next_label
from stemgen_jax.looper.edits import Conflict, NotFound, edit


def change(document, op, **fields):
  return edit(document, {"op": op, **fields}, CATEGORIES, "lane9")


@pytest.fixture
def document():
  """Four lanes, each with a take of its own name."""
  document = first_document()
  for lane in document.lanes:
    document = document.put(dataclasses.replace(lane, takes=(f"t{lane.id}",), active=f"t{lane.id}"))
  return document


def test_lanes_are_added_changed_and_removed(document):
  more = change(document, "add_lane", instrument="strings")
  assert [lane.id for lane in more.lanes] == ["lane1", "lane2", "lane3", "lane4", "lane9"]
  louder = change(more, "set_lane", lane="lane9", level_db=-6, pan=0.5, name="violins", seed=7)
  assert louder.find("lane9") == Lane("lane9", "violins", "strings", -6.0, 0.5, seed=7)
  assert louder.lanes[:4] == document.lanes
  assert change(louder, "remove_lane", lane="lane9") == document


def test_the_song_says_how_long_the_loop_is(document):
  song = change(document, "set_song", tempo_bpm=90, bars=3, beats_per_bar=3).song
  assert song.loop_samples == 3 * 3 * 60 * RATE_HZ // 90
  assert change(document, "choose_take", lane="lane1", take="tlane1") == document


@pytest.mark.parametrize(
  ("kind", "asked"),
  [
    (UserError, {}),
    (UserError, {"op": "format"}),
    (UserError, {"op": ["set_lane"]}),
    (UserError, {"op": "add_lane"}),
    (UserError, {"op": "add_lane", "instrument": "kazoo"}),
    (UserError, {"op": "add_lane", "instrument": ["bass"]}),
    (NotFound, {"op": "set_lane", "lane": "lane7", "mute": True}),
    (NotFound, {"op": "set_lane", "lane": ["lane1"], "mute": True}),
    (NotFound, {"op": "remove_lane"}),
    (UserError, {"op": "set_lane", "lane": "lane1", "takes": []}),
    (UserError, {"op": "set_lane", "lane": "lane1", "mute": 1}),
    (UserError, {"op": "set_lane", "lane": "lane1", "level_db": math.nan}),
    (UserError, {"op": "set_lane", "lane": "lane1", "level_db": True}),
    (UserError, {"op": "set_lane", "lane": "lane1", "level_db": 13}),
    (UserError, {"op": "set_lane", "lane": "lane1", "seed": 1.5}),
    (UserError, {"op": "set_lane", "lane": "lane1", "seed": 2**32}),
    (UserError, {"op": "set_lane", "lane": "lane1", "name": " "}),
    (UserError, {"op": "set_lane", "lane": "lane1", "name": "a\nb"}),
    (NotFound, {"op": "choose_take", "lane": "lane1", "take": "tlane2"}),
    (UserError, {"op": "choose_take", "lane": "lane1"}),
    (UserError, {"op": "set_song", "bars": 0}),
    (UserError, {"op": "set_song", "bars": 64, "tempo_bpm": 20}),
    (UserError, {"op": "set_song", "loop_samples": 3}),
  ],
)
def test_what_is_no_edit_is_one_sentence(document, kind, asked):
  with pytest.raises(kind) as caught:
    edit(document, asked, CATEGORIES, "lane9")
  assert len(str(caught.value)) < 400
  assert str(caught.value).endswith(".")


def test_there_are_not_too_many_lanes(document):
  for number in range(12):
    document = edit(document, {"op": "add_lane", "instrument": "bass"}, CATEGORIES, f"l{number}")
  with pytest.raises(Conflict, match="at most 16"):
    change(document, "add_lane", instrument="bass")


def sounding(document, but=None):
  return [lane.id for lane in document.list_sounding(but)]


def test_mute_and_solo_say_what_is_heard(document):
  assert sounding(document) == ["lane1", "lane2", "lane3", "lane4"]
  muted = change(document, "set_lane", lane="lane2", mute=True)
  assert sounding(muted, but="lane1") == ["lane3", "lane4"]
  soloed = change(muted, "set_lane", lane="lane3", solo=True)
  assert sounding(soloed) == ["lane3"]
  assert sounding(soloed, but="lane3") == ["lane1", "lane4"]  # its own solo silences no context
  both = change(soloed, "set_lane", lane="lane2", solo=True)
  assert sounding(both) == ["lane3"]  # mute goes before solo


def test_takes_are_labelled_as_a_musician_would():
  assert [next_label(i) for i in (0, 1, 25, 26, 27, 52)] == ["A", "B", "Z", "AA", "AB", "BA"]


@pytest.mark.parametrize("pan", [-1.0, -0.3, 0.0, 0.6, 1.0])
def test_panning_keeps_the_power_of_a_mono_sound(pan):
  rng = np.random.default_rng(0)
  mono = rng.standard_normal((1, 1000)).astype(np.float32)
  placed = mixing.place(mono, Lane("l", "l", "bass", pan=pan))
  np.testing.assert_allclose(np.square(placed).sum(), np.square(mono).sum(), rtol=1e-5)
  assert np.sign(np.square(placed[1]).sum() - np.square(placed[0]).sum()) in (np.sign(pan), 0)


def test_a_stereo_sound_in_the_middle_stays_as_it_is_and_moves_whole_to_a_side():
  stereo = np.random.default_rng(0).standard_normal((2, 100)).astype(np.float32)
  np.testing.assert_allclose(mixing.place(stereo, Lane("l", "l", "bass")), stereo, atol=1e-6)
  left = mixing.place(stereo, Lane("l", "l", "bass", pan=-1.0))
  np.testing.assert_allclose(left[0], stereo[0] + stereo[1], atol=1e-6)
  np.testing.assert_allclose(left[1], 0, atol=1e-6)


def test_the_mix_is_the_sum_of_lanes_at_their_levels(document):
  sounds = {f"tlane{i}": np.full((2, 10), i, np.float32) for i in range(1, 5)}
  softer = change(document, "set_lane", lane="lane4", level_db=-20)
  heard = mixing.mix(softer.list_sounding(), sounds.__getitem__, 10)
  np.testing.assert_allclose(heard, 1 + 2 + 3 + 0.4, rtol=1e-6)
  assert not mixing.mix([], sounds.__getitem__, 10).any()
