# SPDX-License-Identifier: Apache-2.0
import json
import shutil

import numpy as np
import pytest
import soundfile

from stemgen_jax import layer
from stemgen_jax.errors import run_cli
from stemgen_jax.sampling.stemgen import StemGen

RATE_HZ = 16_000


@pytest.fixture(scope="module")
def start(music, tmp_path_factory):
  path = tmp_path_factory.mktemp("start") / "loop.wav"
  stereo = np.stack([music[0, :24_000], 0.5 * music[0, :24_000]], axis=1)
  soundfile.write(path, 0.8 * stereo, RATE_HZ)
  return path


@pytest.fixture
def run(stemgen, start, monkeypatch):
  """A function that runs the command and returns how many layers it wrote anew."""
  made = []
  add = layer.add_layer

  def count(*arguments):
    made.append(arguments[4][-1])
    return add(*arguments)

  monkeypatch.setattr(StemGen, "from_checkpoint", lambda *_: stemgen)
  monkeypatch.setattr(layer, "add_layer", count)

  def call(out, *words, instruments="drums,bass", begin=("--start", str(start))):
    made.clear()
    given = ["--checkpoint", "none", *begin, "--instruments", instruments, "--out", str(out)]
    layer.main([*given, "--takes", "2", *words])
    return list(made)

  return call


def test_each_layer_hears_the_mix_of_all_before_and_the_stems_add_up(run, tmp_path, start):
  out = tmp_path / "song"
  assert run(out, "--seed", "5") == ["drums", "bass"]
  assert sorted(path.name for path in out.iterdir()) == [
    "00_start.wav",
    "01_drums",
    "02_bass",
    "index.html",
    "layers.json",
    "mix.wav",
    "stems",
  ]
  mix, _ = soundfile.read(out / "mix.wav")
  stems = [soundfile.read(path, always_2d=True)[0] for path in sorted((out / "stems").iterdir())]
  assert len(stems) == 3
  np.testing.assert_allclose(sum(stems), mix, atol=3e-3)
  for folder, seed in (("01_drums", 6), ("02_bass", 7)):
    record = json.loads((out / folder / "layer.json").read_text())
    takes = json.loads((out / folder / "settings.json").read_text())["takes"]
    assert record["seed"] == seed
    assert record["scores"] == [take["listening_score_nats"] for take in takes]
    assert record["chosen"] == layer.choose(takes, None)
    assert len(list((out / folder).glob("take_*.wav"))) == 4
  page = (out / "index.html").read_text()
  assert page.count("<audio") == 2 + 2 * (1 + 2)
  for name in ("mix.wav", "01_drums/take_01.wav", "02_bass/take_00.wav"):
    assert f'src="{name}"' in page
    assert (out / name).is_file()


def test_a_take_that_hardly_sounds_is_passed_over():
  def take(score, lufs):
    return {
      "listening_score_nats": score,
      "lufs": lufs - 4,
      "gain_db": 6.0,
      "context_gain_db": 10.0,
    }

  assert layer.choose([take(0.1, -20), take(0.3, -22), take(0.2, -21)], None) == 1
  assert layer.choose([take(0.1, -20), take(0.9, -70), take(0.2, -21)], None) == 2
  assert layer.choose([{**take(0.1, 0), "lufs": None}, take(0.2, -80)], None) == 1
  # More than true stems have is no merit.
  assert layer.choose([take(0.1, -20), take(0.3, -22), take(0.9, -21)], 0.25) == 1
  assert layer.choose([take(0.1, -20), take(0.2, -22), take(0.15, -21)], 0.25) == 1


def test_stopped_it_goes_on_and_comes_to_the_same(run, tmp_path):
  assert run(tmp_path / "whole", instruments="drums,bass,piano") == ["drums", "bass", "piano"]
  shutil.copytree(tmp_path / "whole", tmp_path / "cut")
  (tmp_path / "cut/02_bass/layer.json").unlink()
  shutil.rmtree(tmp_path / "cut/03_piano")
  assert run(tmp_path / "cut", instruments="drums,bass,piano") == ["bass", "piano"]
  for path in (tmp_path / "whole").rglob("*.wav"):
    other = tmp_path / "cut" / path.relative_to(tmp_path / "whole")
    assert path.read_bytes() == other.read_bytes(), path
  assert run(tmp_path / "whole", instruments="drums,bass,piano,strings") == ["strings"]
  assert run(tmp_path / "whole", instruments="drums,organ,piano") == ["organ", "piano"]
  names = [path.name for path in sorted((tmp_path / "whole/stems").iterdir())]
  assert names == ["00_start.wav", "01_drums.wav", "02_organ.wav", "03_piano.wav"]


def test_it_can_begin_with_silence(run, tmp_path):
  run(tmp_path / "song", instruments="drums", begin=("--silence_s", "1"))
  mix, rate_hz = soundfile.read(tmp_path / "song/mix.wav")
  assert len(mix) == rate_hz
  assert np.abs(mix).max() > 0


def test_mistakes_are_one_line(run, tmp_path, capsys):
  run(tmp_path / "song", instruments="drums")
  for words, complaint in (
    (["--seed", "9"], "other flags"),
    (["--instruments", "kazoo"], "instrument must be one of"),
    (["--steps", "1"], "4 positive numbers"),
  ):
    assert run_cli(lambda words=words: run(tmp_path / "song", *words)) == 2
    assert complaint in capsys.readouterr().err
  take = tmp_path / "song/01_drums/take_00.wav"
  record = tmp_path / "song/01_drums/layer.json"
  (chosen,) = {json.loads(record.read_text())["files"][0]}
  take = tmp_path / "song/01_drums" / chosen
  take.write_bytes(take.read_bytes()[:5000])
  assert run_cli(lambda: run(tmp_path / "song", instruments="drums")) == 2
  said = capsys.readouterr().err.splitlines()[-1]
  assert f"{take} must be as this program wrote it" in said
  assert f"remove {take.parent} to begin it anew" in said
  record.unlink()
  record.mkdir()
  assert run_cli(lambda: run(tmp_path / "song", instruments="drums")) == 2
  assert f"{record} must be as this program wrote it" in capsys.readouterr().err
  record.rmdir()
  mix = tmp_path / "song/mix.wav"
  assert run_cli(lambda: run(tmp_path / "song", begin=("--start", str(mix)))) == 2
  assert "--start must not be a file that this command writes" in capsys.readouterr().err
  assert run_cli(lambda: run(tmp_path / "new", "--top_p", "7")) == 2
  assert not (tmp_path / "new").exists()
