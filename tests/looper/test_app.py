# SPDX-License-Identifier: Apache-2.0
"""The looper over HTTP, with recorded takes: takes, undo, uploads, export, and who is refused."""

import errno
import http.client
import io
import json
import socket
import zipfile

import numpy as np
import pytest
import soundfile
from served import TOKEN, serving

from stemgen_jax.looper import app as module
from stemgen_jax.looper import recorded
from stemgen_jax.looper import session as session_module
from stemgen_jax.looper.document import RATE_HZ


@pytest.fixture(autouse=True)
def quick(monkeypatch):
  """Recorded takes come at once."""
  monkeypatch.setattr(recorded, "PART_S", 0.005)


@pytest.fixture
def looper(tmp_path):
  """A new session that is served."""
  with serving(tmp_path / "mine") as looper:
    yield looper


def wav(seconds=2.0, channels=1, hz=220.0):
  time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
  beat = np.exp(-(time_s % 0.5) * 12) * np.sin(2 * np.pi * hz * time_s) * 0.5
  file = io.BytesIO()
  soundfile.write(file, np.repeat(beat[:, None], channels, axis=1), RATE_HZ, format="WAV")
  return file.getvalue()


def read(data):
  samples, rate_hz = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
  assert rate_hz == RATE_HZ
  return samples.T


def upload(looper, data, status=200, **query):
  return looper.post("/api/upload", data, status, **query)


def test_a_new_session_has_four_lanes_and_a_model_that_is_recorded(looper):
  state = looper.state()
  assert [lane["instrument"] for lane in state["lanes"]] == ["drums", "bass", "piano", "synth_lead"]
  assert state["loop_samples"] == 0
  assert looper.wait(lambda s: s["model"]["status"] == "recorded")["model"]["instruments"]


def test_takes_are_written_whole_and_as_long_as_the_loop(looper):
  first = looper.generate("lane1")
  other = looper.generate("lane1", "another")
  again = looper.generate("lane2")
  state = looper.state()
  assert [take["label"] for take in state["lanes"][0]["takes"]] == ["A", "B"]
  assert (first["seed"], other["seed"], again["label"]) == (0, 1, "A")
  sounds = [
    read(looper.send("GET", f"/api/take/{take['id']}.wav")[2]) for take in (first, other, again)
  ]
  assert {sound.shape[1] for sound in sounds} == {state["loop_samples"]}
  assert not np.array_equal(sounds[0], sounds[1])
  about = looper.get(f"/api/take/{first['id']}.json")
  assert len(about["onsets_s"]) > 4
  assert about["command"] is None  # no command gives a recorded take
  status, head, png = looper.send("GET", f"/api/spectrogram/{first['id']}.png")
  assert (status, head["Content-Type"], png[:4]) == (200, "image/png", b"\x89PNG")


def test_everything_is_undone_and_found_again_after_a_restart(looper, tmp_path):
  looper.generate("lane1")
  looper.edit("set_lane", lane="lane1", level_db=-3, pan=0.25)
  before = looper.state()
  upload(looper, wav(), lane="lane2", name="beat.wav")
  looper.edit("remove_lane", lane="lane1")
  for _ in range(2):
    state = looper.post("/api/undo")
  assert (state["lanes"], state["song"]) == (before["lanes"], before["song"])
  state = looper.post("/api/redo")
  assert state["lanes"][1]["takes"][0]["origin"] == "file"
  kept = looper.state()
  looper.desk.session.close()
  with serving(tmp_path / "mine") as again:
    state = again.state()
    same = ("lanes", "song", "loop_samples", "can_undo", "can_redo")
    assert {name: state[name] for name in same} == {name: kept[name] for name in same}
    assert state["revision"] > 1
    while again.state()["can_undo"]:
      again.post("/api/undo")
    assert again.post("/api/undo", status=409)["error"] == "There is nothing to undo."
    assert not any(lane["takes"] for lane in again.state()["lanes"])


def test_the_first_file_sets_the_song_and_later_ones_fit_it(looper):
  state = upload(looper, wav(4.0, 2), lane="new", name="../../loop.wav")
  assert (state["song"]["tempo_bpm"], state["song"]["bars"]) == (120.0, 2)
  assert state["lanes"][0]["name"] == "loop"
  assert state["song"]["name"] == "loop"
  assert "2 bars at 120.0" in state["notice"]
  state = upload(looper, wav(1.0), lane="lane1", name="x.wav", latency_s=0.25)
  take = looper.take(state, "lane1")
  assert take["origin"] == "recording"
  sound = read(looper.send("GET", f"/api/take/{take['id']}.wav")[2])
  assert sound.shape == (1, 4 * RATE_HZ)
  np.testing.assert_allclose(sound[0, :1000], read(wav())[0, RATE_HZ // 4 :][:1000], atol=1e-4)
  assert not sound[0, RATE_HZ:].any()


def test_what_a_loop_takes_of_another_file_is_said(looper):
  upload(looper, wav(4.0), lane="lane1", name="loop.wav")
  state = upload(looper, wav(9.0), lane="lane2", name="long.wav")
  assert state["notice"] == "'long.wav' lasts 9.0 s: the loop takes 4.0 s, from 0.00 s on."
  state = upload(looper, wav(1.0), lane="lane2", name="short.wav")
  assert state["notice"] == "'short.wav' lasts 1.0 s: the rest of the loop of 4.0 s is silence."
  assert upload(looper, wav(4.0), lane="lane2", name="fits.wav")["notice"] is None


def test_a_session_does_not_begin_with_a_click(looper):
  error = upload(looper, wav(0.1), status=400, lane="new", name="tick.wav")["error"]
  assert error == "A session must begin with 0.5 s of sound or more; 'tick.wav' has 0.10 s."
  assert looper.state()["loop_samples"] == 0


def test_there_is_an_end_to_lanes_however_they_come(looper):
  upload(looper, wav(2.0), lane="new", name="loop.wav")
  for _ in range(11):
    looper.edit("add_lane", instrument="bass")
  assert "at most 16 lanes" in upload(looper, wav(), status=409, lane="new", name="x.wav")["error"]
  assert len(looper.state()["lanes"]) == 16


def test_a_locked_lane_takes_no_sound_and_stays(looper):
  upload(looper, wav(2.0), lane="lane1", name="loop.wav")
  looper.edit("set_lane", lane="lane1", lock=True)
  before = looper.state()["lanes"]
  assert "is locked" in upload(looper, wav(), status=409, lane="lane1", name="x.wav")["error"]
  gone = looper.post("/api/edit", {"op": "remove_lane", "lane": "lane1"}, 409)
  assert "is locked" in gone["error"]
  assert looper.state()["lanes"] == before


def test_another_length_cuts_every_take_anew(looper):
  upload(looper, wav(4.0), lane="lane2", name="loop.wav")
  looper.generate("lane1")
  whole = looper.state()
  state = looper.edit("set_song", bars=1)
  assert state["loop_samples"] == 2 * RATE_HZ
  for lane in state["lanes"][:2]:
    sound = read(looper.send("GET", f"/api/take/{lane['active']}.wav")[2])
    assert sound.shape[1] == 2 * RATE_HZ
  longer = looper.edit("set_song", bars=2)
  found, first = (
    read(looper.send("GET", f"/api/take/{looper.take(s, 'lane2')['id']}.wav")[2])
    for s in (longer, whole)
  )
  np.testing.assert_array_equal(found, first)  # cut from the file, not from the shorter take
  for _ in range(2):
    state = looper.post("/api/undo")
  assert state["lanes"] == whole["lanes"]


def test_jobs_wait_in_a_queue_and_are_cancelled_at_once(looper, monkeypatch):
  looper.wait(lambda s: s["model"]["status"] == "recorded")
  monkeypatch.setattr(recorded, "PART_S", 0.3)
  jobs = [
    looper.post("/api/generate", {"lane": f"lane{i}", "kind": "generate"})["job"] for i in (1, 2, 3)
  ]
  queue = looper.wait(lambda s: s["queue"][0]["status"] == "running")["queue"]
  assert [one["job"] for one in queue] == jobs
  assert [one["status"] for one in queue[1:]] == ["waiting"] * 2
  state = looper.post("/api/cancel", {"job": jobs[0]})  # while it runs
  assert [one["job"] for one in state["queue"]] == jobs[1:]
  looper.post("/api/cancel", {"job": jobs[0]}, 404)
  looper.edit("remove_lane", lane="lane2")  # takes its job along
  monkeypatch.setattr(recorded, "PART_S", 0.005)
  state = looper.wait(lambda s: not s["queue"])
  assert [len(lane["takes"]) for lane in state["lanes"]] == [0, 1, 0]


def test_what_cannot_be_generated_is_refused_with_a_sentence(looper):
  looper.edit("set_lane", lane="lane1", lock=True)
  for status, asked in (
    (409, {"lane": "lane1"}),
    (404, {"lane": "lane77"}),
    (404, {}),
    (400, {"lane": "lane2", "kind": "sing"}),
    (409, {"lane": "lane2", "kind": "vary"}),
    (409, {"lane": "lane2", "keep": [[0, 1]]}),
    (400, {"lane": "lane2", "keep": [[1, 0]]}),
    (400, {"lane": "lane2", "keep": [[0, 1e9]]}),
    (400, {"lane": "lane2", "keep": "0-1"}),
    (400, {"lane": "lane2", "kind": "vary", "amount": 0}),
    (400, {"lane": "lane2", "words": ["--out", "/"]}),
  ):
    error = looper.post("/api/generate", asked, status)["error"]
    assert error.endswith(".")
    assert "\n" not in error
  assert looper.state()["queue"] == []


def test_events_bring_the_state_at_each_change(looper):
  connection = http.client.HTTPConnection("127.0.0.1", looper.port, timeout=20)
  connection.request("GET", f"/api/events?token={TOKEN}")
  answer = connection.getresponse()
  assert answer.headers["Content-Type"].startswith("text/event-stream")

  def following(kind):
    while answer.readline() != f"event: {kind}\n".encode():
      pass
    return json.loads(answer.readline().removeprefix(b"data: "))

  before = following("state")["revision"]
  looper.edit("set_lane", lane="lane1", mute=True)
  while not (state := following("state"))["lanes"][0]["mute"]:
    pass
  assert state["revision"] > before
  job = looper.post("/api/generate", {"lane": "lane2"})["job"]
  told = following("progress")
  assert told["job"] == job
  assert 0 <= told["progress"] <= 1
  answer.close()
  connection.close()
  assert looper.state()["lanes"][0]["mute"]


def test_an_export_adds_up_and_holds_what_its_commands_need(looper):
  assert looper.send("GET", "/api/export.zip")[0] == 409
  upload(looper, wav(4.0, 2), lane="lane2", name="loop.wav")
  looper.generate("lane1")
  looper.edit("set_lane", lane="lane1", level_db=6, pan=-0.5)
  looper.edit("set_lane", lane="lane2", level_db=6)
  status, head, data = looper.send("GET", "/api/export.zip")
  assert (status, head["Content-Type"]) == (200, "application/zip")
  archive = zipfile.ZipFile(io.BytesIO(data))
  stems = [name for name in archive.namelist() if name.startswith("stems/")]
  assert stems == ["stems/01_drums.wav", "stems/02_bass.wav"]
  mix = read(archive.read("mix.wav"))
  np.testing.assert_allclose(mix, sum(read(archive.read(name)) for name in stems), atol=1e-6)
  assert np.abs(mix).max() <= 1
  settings = json.loads(archive.read("settings.json"))
  assert set(settings["takes"]) == {lane["active"] for lane in looper.state()["lanes"][:2]}
  assert b"was not written by the model: file" in archive.read("commands.txt")
  assert not list((looper.desk.session.folder / "work").iterdir())


def test_only_the_page_itself_is_answered(looper):
  home = f"127.0.0.1:{looper.port}"
  asked = [
    {"token": ""},
    {"token": "Secret"},
    {"token": "secret\u00e9".encode("latin-1")},
    {"Host": "evil.example"},
    {"Host": f"evil.example:{looper.port}"},
    {"Host": "127.0.0.1:1"},
    {"Host": "127.0.0.1"},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": f"https://{home}"},
    {"Origin": f"http://localhost:{looper.port}"},
  ]
  for headers in asked:
    for method, path in (("GET", "/"), ("GET", "/api/state"), ("POST", "/api/undo")):
      status, _, body = looper.send(method, path, **headers)
      assert status == 403, headers
      sentence = body.decode() if path == "/" else json.loads(body)["error"]
      assert sentence.endswith((".", "printed\n", "answered\n"))
  assert looper.send("GET", "/api/state", Host=f"localhost:{looper.port}")[0] == 200
  assert looper.send("GET", "/api/state", Origin=f"http://{home}")[0] == 200
  assert looper.send("GET", f"/api/state?token={TOKEN}", token="")[0] == 200
  assert looper.send("GET", "/static/looper.css", token="", Host="evil.example")[0] == 403


def test_no_path_from_outside_is_opened(looper):
  looper.generate("lane1")
  (looper.desk.session.folder / "takes/t999.wav").write_bytes(wav())  # which no one knows
  for path in (
    "/api/take/t999.wav",
    "/api/take/..%2Fsession.json",
    "/api/take/../session.json",
    "/api/take/..%2f..%2f..%2fetc%2fpasswd.wav",
    "/api/spectrogram/%2e%2e.png",
    "/static/../app.py",
    "/static/..%2fapp.py",
    "/static/%00",
    "/session.json",
    "/etc/passwd",
    "/api/take/.wav",
  ):
    status, _, body = looper.send("GET", path)
    assert status == 404, path
    assert json.loads(body)["error"].endswith(".")


@pytest.mark.parametrize(
  "body", [b"", b"{", b"[]", b"null", b"\xff", b'"a"', b"[" * 5000, b"1e999", b'{"op": "\\ud800"}']
)
def test_a_malformed_body_is_a_sentence(looper, body):
  before = looper.state()
  for path in ("/api/edit", "/api/generate", "/api/cancel"):
    status, _, text = looper.send("POST", path, body)
    assert status in (400, 404)
    assert json.loads(text)["error"].endswith(".")
  assert looper.state() == before


def test_bodies_and_sounds_are_bounded(looper, monkeypatch):
  assert looper.send("POST", "/api/edit", b" " * (module.MOST_BODY + 1))[0] == 413
  assert looper.send("POST", "/api/upload", b"", Content_Length=str(2**40))[0] == 413
  monkeypatch.setattr(module, "MOST_SOUND", 1000)
  assert upload(looper, wav(), 413, name="a.wav")["error"].startswith("A sound must have at most")
  assert not list((looper.desk.session.folder / "sources").iterdir())


@pytest.mark.parametrize("data", [b"", b"x", b"RIFF\x00\x00\x00\x00WAVE", b"ID3" + bytes(2000)])
def test_a_bad_file_is_a_sentence_and_leaves_nothing(looper, data):
  error = upload(looper, data, 400, name="song.mp3", lane="lane1")["error"]
  assert str(looper.desk.session.folder) not in error
  assert looper.state()["loop_samples"] == 0
  assert not list((looper.desk.session.folder / "sources").iterdir())
  upload(looper, wav(), 404, name="song.wav", lane="lane77")
  upload(looper, wav(), 400, name="song.wav", lane="lane1", latency_s="nan")


def test_a_full_disk_is_a_sentence_and_changes_nothing(looper, monkeypatch):
  looper.wait(lambda s: s["model"]["status"] == "recorded")
  before = looper.state()

  def fail(*_):
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(session_module, "write_text", fail)
  assert "No space left" in looper.edit("set_lane", 507, lane="lane1", mute=True)["error"]
  assert looper.state() == before
  monkeypatch.undo()
  assert looper.edit("set_lane", lane="lane1", mute=True)["lanes"][0]["mute"]


def test_a_browser_that_leaves_is_no_error(looper, capfd):
  head = f"POST /api/upload?name=a.wav HTTP/1.1\r\nHost: 127.0.0.1:{looper.port}\r\n"
  head += f"X-Looper-Token: {TOKEN}\r\nContent-Length: 99999\r\n\r\nhalf"
  for words in (head, head.replace("POST", "\0"), "GET / HTTP/9\r\n\r\n", "\r\n" * 9):
    with socket.create_connection(("127.0.0.1", looper.port)) as connection:
      linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # reset, do not close
      connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
      connection.sendall(words.encode())
  assert looper.state()["queue"] == []
  assert capfd.readouterr().err == ""
