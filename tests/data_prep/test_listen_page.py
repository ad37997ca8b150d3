# SPDX-License-Identifier: Apache-2.0
"""The page to hear a model by: which examples it takes, and what it writes of them."""

import json
import re

import numpy as np
import pytest
import soundfile

from data_prep import listen_page
from stemgen_jax.audio.files import write_audio
from stemgen_jax.errors import run_cli

RATE_HZ = 16_000


def tone(path, pitch_hz, rate_hz=RATE_HZ, gain=0.2):
  path.parent.mkdir(parents=True, exist_ok=True)
  sound = gain * np.sin(2 * np.pi * pitch_hz * np.arange(rate_hz) / rate_hz)
  write_audio(path, sound.astype(np.float32)[None], rate_hz)


@pytest.fixture
def report(tmp_path):
  """A report of four windows, two of them of one instrument."""
  listed = []
  for i, category in enumerate(["bass", "bass", "drums", "piano"]):
    files = {name: f"examples/{i:04d}/{name}.wav" for name in ("context", "true", "model")}
    for k, file in enumerate(files.values()):
      tone(tmp_path / "report" / file, 200 * (k + 1))
    sets = {"true": files["true"], "model": files["model"]}
    listed.append({"id": f"{i:04d}", "song": f"song {i}", "category": category,
                   "context": files["context"], "sets": sets})  # fmt: skip
  (tmp_path / "report/examples.json").write_text(json.dumps(listed))
  return tmp_path / "report"


@pytest.fixture
def takes(tmp_path):
  """What `sample` leaves, over a context of another rate."""
  tone(tmp_path / "loop.wav", 300, 44_100)
  tone(tmp_path / "takes/take_00.wav", 500, 44_100)
  record = {
    "context": str(tmp_path / "loop.wav"),
    "conditions": {"instrument": {"value": "guitar"}},
    "takes": [{"files": ["take_00.wav", "take_00_mix.wav"]}],
  }
  (tmp_path / "takes/settings.json").write_text(json.dumps(record))
  return tmp_path / "takes"


def run(report, out, *words):
  return run_cli(lambda: listen_page.main(["--report", str(report), "--out", str(out), *words]))


def test_the_first_of_each_instrument_comes_first(report, takes, tmp_path):
  out = tmp_path / "page"
  assert run(report, out, "--examples", "3", "--takes", str(takes), "--about", "A <test>.") == 0
  page = (out / "index.html").read_text()
  headings = re.findall("<h2>(.*)</h2>", page)
  assert headings == [
    "bass for song 0, window 0000",
    "drums for song 2, window 0002",
    "piano for song 3, window 0003",
    "guitar for loop",
  ]
  assert "A &lt;test&gt;." in page
  files = re.findall(r'src="([^"]+)"', page)
  assert len(files) == 3 * 5 + 4
  assert {path.name for path in out.iterdir()} == {*files, "index.html", "README.md"}
  readme = (out / "README.md").read_text()
  assert all(f"({file})" in readme for file in files)
  assert readme.count("![spectrograms](") == 4


def test_the_mix_is_the_sum_and_all_have_one_gain(report, takes, tmp_path):
  assert run(report, tmp_path / "page", "--examples", "1", "--takes", str(takes)) == 0
  for number in ("01", "02"):
    read = {
      kind: soundfile.read(tmp_path / f"page/{number}_{kind}.ogg")[0]
      for kind in ("context", "generated", "mix")
    }
    np.testing.assert_allclose(read["mix"], read["context"] + read["generated"], atol=0.06)
    assert np.abs(read["mix"]).max() == pytest.approx(listen_page.PEAK, abs=0.05)
    assert np.abs(read["context"]).max() == pytest.approx(np.abs(read["generated"]).max(), abs=0.05)


def test_mistakes_are_one_line_and_leave_a_folder_as_it_is(report, takes, tmp_path, capsys):
  other = tmp_path / "mine"
  other.mkdir()
  (other / "song.txt").write_text("keep me")
  (takes / "settings.json").write_text("{}")
  for words, complaint in (
    ((tmp_path / "none", tmp_path / "a"), "--report must be a folder"),
    ((report, tmp_path / "a", "--examples", "0"), "--examples must be at least 1; got 0"),
    ((report, tmp_path / "a", "--takes", str(takes)), "--takes must be folders"),
    ((report, other), "--out must be a new folder, or such a page"),
  ):
    assert run(*words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line
  assert [path.name for path in other.iterdir()] == ["song.txt"]
  assert not (tmp_path / "a").exists()
