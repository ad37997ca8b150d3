# SPDX-License-Identifier: Apache-2.0
"""From a job to a take: seeds, a loop that is changed meanwhile, and a disk that is full."""

import errno

import numpy as np
import pytest
from served import serving
from test_app import read, upload, wav

from stemgen_jax.audio.files import read_audio
from stemgen_jax.audio.loudness import measure_lufs
from stemgen_jax.errors import UserError
from stemgen_jax.looper import recorded, sounds
from stemgen_jax.looper import session as session_module
from stemgen_jax.looper.document import RATE_HZ


@pytest.fixture
def looper(tmp_path, monkeypatch):
  """A new session that is served, whose takes come at once."""
  monkeypatch.setattr(recorded, "PART_S", 0.005)
  with serving(tmp_path / "mine") as looper:
    yield looper


def shown_seed(looper, lane="lane1"):
  (found,) = (one for one in looper.state()["lanes"] if one["id"] == lane)
  return found["seed"]


def test_the_seed_that_is_shown_is_that_of_the_next_take(looper):
  for kind in ("generate", "generate", "another", "vary"):
    shown = shown_seed(looper)
    assert looper.generate("lane1", kind)["seed"] == shown
    assert shown_seed(looper) == shown + 1
  looper.edit("set_lane", lane="lane1", seed=7)
  assert looper.generate("lane1")["seed"] == 7
  looper.post("/api/undo")
  assert shown_seed(looper) == 7
  looper.edit("set_lane", lane="lane1", seed=2**32 - 1)
  looper.generate("lane1")
  assert shown_seed(looper) == 4


def test_takes_that_wait_have_seeds_of_their_own_and_a_cancelled_one_gives_its_back(
  looper, monkeypatch
):
  looper.wait(lambda s: s["model"]["status"] == "recorded")
  monkeypatch.setattr(recorded, "PART_S", 0.3)
  looper.post("/api/generate", {"lane": "lane1"})
  assert shown_seed(looper) == 1
  job = looper.post("/api/generate", {"lane": "lane1"})["job"]
  assert shown_seed(looper) == 2
  looper.post("/api/cancel", {"job": job})
  assert shown_seed(looper) == 1
  monkeypatch.setattr(recorded, "PART_S", 0.005)
  looper.wait(lambda s: not s["queue"])
  assert shown_seed(looper) == 1


def sound(looper, take):
  return read(looper.send("GET", f"/api/take/{take['id']}.wav")[2])[0]


def test_a_recorded_take_keeps_what_is_marked(looper):
  first = sound(looper, looper.generate("lane1"))
  second = sound(looper, looper.generate("lane1", "another"))
  mixed = sound(looper, looper.generate("lane1", keep=[[0, 2.0]]))
  at, fade = 2 * RATE_HZ, RATE_HZ // 50
  np.testing.assert_allclose(mixed[:at], second[:at], atol=1e-4)
  np.testing.assert_allclose(mixed[at + fade : -fade], first[at + fade : -fade], atol=1e-4)
  assert np.abs(first - second)[at + fade :].max() > 0.01


def test_takes_written_from_silence_are_heard_as_loud_as_the_first(looper):
  """Each take is softer than what it hears: without an end to that a session would fade away."""
  context = read_context(looper, "lane2")
  assert not context.any()
  looper.generate("lane1")
  looper.edit("set_lane", lane="lane1", level_db=-30.0)
  assert measure_lufs(read_context(looper, "lane2"), RATE_HZ) == pytest.approx(-17, abs=0.1)
  looper.edit("set_lane", lane="lane1", level_db=12.0)
  loud = read_context(looper, "lane2")
  assert measure_lufs(loud, RATE_HZ) > -17
  upload(looper, wav(2.0), lane="lane3")  # what somebody plays is the measure from then on
  looper.edit("set_lane", lane="lane1", mute=True)
  looper.edit("set_lane", lane="lane3", level_db=-30.0)
  assert measure_lufs(read_context(looper, "lane2"), RATE_HZ) < -30


def read_context(looper, lane):
  """What a take of a lane would hear now."""
  session = looper.desk.session
  lanes = session.document.list_sounding(but=lane)
  length = session.document.song.begin().loop_samples
  name = looper.desk.sounds.write_context(lanes, length)
  return read_audio(session.folder / name)[0]


def test_a_loop_cannot_start_where_its_file_is_over(looper):
  upload(looper, wav(4.0))
  said = looper.edit("set_song", status=400, offset_s=3.6)["error"]
  assert said == (
    "The loop must start at 3.50 s or before, as its file ends at 4.00 s; got 3.60 s."
  )
  assert looper.state()["song"]["offset_s"] == 0
  assert looper.edit("set_song", offset_s=3.4)["song"]["offset_s"] == 3.4


def test_the_same_again_takes_another_seed_and_says_so(looper):
  looper.generate("lane1")
  looper.edit("set_lane", lane="lane1", seed=0)
  take = looper.generate("lane1")
  assert take["seed"] == 1
  assert "seed 1 was taken" in looper.state()["notice"]


def test_a_take_is_kept_though_the_loop_is_changed_while_it_is_written(looper, monkeypatch):
  upload(looper, wav(4.0), lane="lane2", name="loop.wav")
  looper.generate("lane1")
  monkeypatch.setattr(recorded, "PART_S", 0.2)
  for kind in ("another", "vary"):
    looper.post("/api/generate", {"lane": "lane1", "kind": kind})
  looper.wait(lambda s: s["queue"][0]["status"] == "running")
  looper.edit("set_song", bars=1)  # and the take that is to be varied has another name
  monkeypatch.setattr(recorded, "PART_S", 0.005)
  state = looper.wait(lambda s: len(s["queue"]) < 2)
  assert "was changed while 'drums' was written" in state["notice"]
  state = looper.wait(lambda s: not s["queue"])
  takes = state["lanes"][0]["takes"]
  assert [take["label"] for take in takes] == ["A", "B", "C"]
  sounds = [read(looper.send("GET", f"/api/take/{take['id']}.wav")[2]) for take in takes]
  assert {sound.shape[1] for sound in sounds} == {2 * RATE_HZ}
  longer = looper.edit("set_song", bars=2)["lanes"][0]["takes"][1]["id"]
  whole = read(looper.send("GET", f"/api/take/{longer}.wav")[2])
  assert whole.shape[1] == 4 * RATE_HZ
  assert not np.array_equal(whole[:, : 2 * RATE_HZ], whole[:, 2 * RATE_HZ :])  # all was kept


def test_a_disk_that_is_full_in_the_middle_of_a_cut_is_one_sentence_and_leaves_nothing(
  looper, monkeypatch
):
  upload(looper, wav(4.0), lane="lane2", name="loop.wav")
  for lane in ("lane1", "lane3"):
    looper.generate(lane)
  before, folder = looper.state(), looper.desk.session.folder
  files = sorted(folder.rglob("*"))
  write, written = sounds.write_audio, []

  def fail(path, *rest):
    if len(written) == 2:
      raise UserError(f"the disk must take an audio file whole; got path={path} (System error).")
    written.append(path)
    write(path, *rest)

  with monkeypatch.context() as patch:
    patch.setattr(sounds, "write_audio", fail)
    error = looper.edit("set_song", 507, bars=1)["error"]
  assert error.startswith("The loop cannot be written: the disk is full")
  assert str(folder) not in error
  assert len(written) == 2
  assert looper.state() == before
  assert sorted(folder.rglob("*")) == files

  def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")

  with monkeypatch.context() as patch:
    patch.setattr(session_module, "write_text", full)
    assert "No space left" in looper.edit("set_song", 507, bars=1)["error"]
  assert looper.state() == before
  assert sorted(folder.rglob("*")) == files
  assert looper.edit("set_song", bars=1)["loop_samples"] == 2 * RATE_HZ


def test_a_take_that_the_disk_does_not_take_is_said_and_the_next_is_written(looper, monkeypatch):
  def fail(*_):
    raise UserError("the disk must take an audio file whole; got no room.")

  with monkeypatch.context() as patch:
    patch.setattr(recorded, "write_audio", fail)
    looper.post("/api/generate", {"lane": "lane1"})
    state = looper.wait(lambda s: not s["queue"])
  assert state["notice"].startswith("The take cannot be written: the disk is full")
  assert looper.generate("lane1")["label"] == "A"
