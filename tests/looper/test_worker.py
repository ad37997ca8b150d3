# SPDX-License-Identifier: Apache-2.0
"""The looper with the shipped model in its process: takes, cancelling, a death, the commands."""

import json
import os
import shlex
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from served import serving
from test_app import read, wav

from stemgen_jax import sample
from stemgen_jax.errors import run_cli
from stemgen_jax.looper import worker
from stemgen_jax.looper.__main__ import main
from stemgen_jax.looper.document import RATE_HZ
from stemgen_jax.looper.flags import Model
from stemgen_jax.looper.messages import Ready, Warmed
from stemgen_jax.looper.worker import Worker, choose_steps

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def looper(tmp_path_factory):
  """A session of two seconds with four takes of the shipped model, each hearing those before it."""
  folder = tmp_path_factory.mktemp("looper") / "mine"
  with serving(folder, Worker(folder, Model()), Model()) as looper:
    looper.post("/api/upload", wav(2.0, 2), lane="lane1", name="beat.wav")
    looper.edit("set_lane", lane="lane1", level_db=-6, pan=0.3)
    looper.edit("set_lane", lane="lane2", guidance=2, seed=5)
    looper.written = [looper.generate("lane2"), looper.generate("lane2", "vary", amount=0.5)]
    looper.written += [looper.generate("lane2", keep=[[0.5, 1.25]]), looper.generate("lane3")]
    yield looper


def sound_of(looper, take):
  return looper.send("GET", f"/api/take/{take['id']}.wav")[2]


def test_the_model_is_ready_and_its_takes_are_told(looper):
  state = looper.state()
  assert state["model"]["status"] == "ready"
  assert state["model"]["seconds_last"] > 0
  assert "12,1,1,1: nothing is traded" in state["model"]["preset"]
  assert [take["origin"] for take in looper.written] == ["generated", "varied", "kept", "generated"]
  assert [take["seed"] for take in looper.written] == [5, 6, 7, 0]
  first, varied, kept, other = (read(sound_of(looper, take)) for take in looper.written)
  assert first.shape[1] == 2 * RATE_HZ
  assert np.abs(first).max() > 0.01
  start, stop = round(0.5 * RATE_HZ), round(1.25 * RATE_HZ)
  np.testing.assert_array_equal(kept[:, start:stop], varied[:, start:stop])
  assert not np.array_equal(kept, varied)
  assert other.shape == first.shape


def test_the_context_is_what_sounds(looper):
  take = looper.desk.session.takes[looper.written[0]["id"]]
  context, _ = soundfile.read(looper.desk.session.folder / take.words[1], dtype="float32")
  played = np.tile(read(wav(2.0, 2)), 1) * 10 ** (-6 / 20)
  angle = 0.3 * np.pi / 2
  left, right = played[0] * np.cos(angle), played[1] + played[0] * np.sin(angle)
  np.testing.assert_allclose(context, np.stack([left, right], axis=1), atol=1e-4)


def run_commands(looper, folder, run):
  """Runs each command of an export in its folder, and returns the pairs of files to compare."""
  folder.mkdir()
  status, _, data = looper.send("GET", "/api/export.zip")
  assert status == 200
  (folder / "export.zip").write_bytes(data)
  zipfile.ZipFile(folder / "export.zip").extractall(folder)
  commands = [
    shlex.split(line)
    for line in (folder / "commands.txt").read_text().splitlines()
    if line.startswith("python")
  ]
  assert len(commands) == len(looper.written)
  for words, take in zip(commands, looper.written, strict=True):
    assert words[:3] == ["python", "-m", "stemgen_jax.sample"]
    run(words[3:])
    again = folder / words[words.index("--out") + 1] / "take_00.wav"
    yield again.read_bytes(), (folder / f"takes/{take['id']}.wav").read_bytes()


def test_the_commands_of_an_export_give_each_take_again(looper, tmp_path, monkeypatch, capsys):
  def run(words):
    with monkeypatch.context() as patch:
      patch.chdir(tmp_path / "out")
      assert run_cli(lambda: sample.main(words)) == 0

  for number, (again, take) in enumerate(run_commands(looper, tmp_path / "out", run)):
    assert again == take, number


@pytest.mark.slow
def test_so_they_do_in_processes_of_their_own(looper, tmp_path):
  def run(words):
    command = [sys.executable, "-m", "stemgen_jax.sample", *words]
    paths = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=tmp_path / "out", check=True, capture_output=True, env=paths)

  for again, take in run_commands(looper, tmp_path / "out", run):
    assert again == take


def test_a_job_is_cancelled_at_once_and_the_process_goes_on(looper):
  before = [lane["takes"] for lane in looper.state()["lanes"]]
  pid = looper.desk.jobs.maker.pid
  job = looper.post("/api/generate", {"lane": "lane4"})["job"]
  looper.wait(lambda s: s["queue"] and s["queue"][0]["status"] == "running")
  assert looper.post("/api/cancel", {"job": job})["queue"] == []
  take = looper.generate("lane4", "another")
  after = [lane["takes"] for lane in looper.state()["lanes"]]
  assert after[:3] == before[:3]
  assert after[3] == [take]
  assert looper.desk.jobs.maker.pid == pid
  looper.post("/api/undo")


def test_a_process_that_dies_is_started_again_and_the_page_says_so(looper):
  pid = looper.desk.jobs.maker.pid
  os.kill(pid, signal.SIGKILL)
  state = looper.wait(lambda s: s["notice"] and "started again" in s["notice"])
  assert "exit code -9" in state["notice"]
  looper.wait(lambda s: s["model"]["status"] in ("compiling", "ready"))
  assert looper.desk.jobs.maker.pid != pid


def test_a_model_that_cannot_be_loaded_is_one_line(tmp_path, capsys):
  words = ["--checkpoint", str(tmp_path / "nothing"), "--no-open"]
  assert run_cli(lambda: main([*words, "--session", str(tmp_path / "mine")])) == 2
  error = capsys.readouterr().err.splitlines()[-1]
  assert error.startswith("error: ")
  assert "nothing" in error


def test_settings_of_each_take_are_kept(looper):
  take = looper.written[1]
  path = looper.desk.session.folder / f"takes/{take['id']}.json"
  settings = json.loads(path.read_text())
  assert (settings["seed"], settings["vary"], settings["loop"]) == (6, 0.5, True)


def test_only_the_first_length_of_loop_is_timed_and_others_are_compiled_by_the_quickest_take(
  monkeypatch,
):
  written = []
  monkeypatch.setattr(worker, "write_take", lambda loaded, words, *_: written.append(words))
  ready = Ready(("bass",), "10,1,1", 3.0, "")
  first = worker.warm(None, ready, Model(), 1000)
  assert [words[words.index("--steps") + 1] for words in written] == ["1,1,1", "10,1,1"]
  assert 0 <= first.seconds < 10
  other = worker.warm(None, ready, Model(), 3000, pace=0.001)
  assert [words[words.index("--steps") + 1] for words in written[2:]] == ["1,1,1"]
  assert other == Warmed(3000, 3.0)


def test_steps_are_two_fifths_and_never_none_or_all_of_one_pass():
  assert choose_steps((24, 1, 1, 1), "nested") == (10, 1, 1, 1)
  assert choose_steps((128, 64, 33), "independent") == (52, 26, 14)
  assert choose_steps((24, 1, 1, 1), "distilled") == (24, 1, 1, 1)
