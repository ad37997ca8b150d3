# SPDX-License-Identifier: Apache-2.0
"""The whole chain by its commands: music, tokens, training, a stem, and what goes wrong on the way.

Real music, the shipped codec, real shards; only the model is tiny and barely trained.
"""

import errno
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import FAST_COMPILE
from tensorboardX.proto import event_pb2

from stemgen_jax import export, layer, sample, train
from stemgen_jax.codec import DEMO_BUNDLE
from stemgen_jax.errors import run_cli
from stemgen_jax.sampling import mixing
from stemgen_jax.training.model_bundle import EXAMPLE

pytestmark = pytest.mark.torch
ROOT = Path(__file__).parents[1]
RATE_HZ = 22_050


def run(module, *words):
  command = [sys.executable, "-m", module, *map(str, words)]
  env = os.environ | {"XLA_FLAGS": FAST_COMPILE}  # one device
  done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, check=False)
  assert done.returncode == 0, done.stderr
  return done


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
  """A folder with music, tokens of it, and a model trained on them for a few steps."""
  root = tmp_path_factory.mktemp("chain")
  run("data_prep.demo", "--out", root / "music", "--songs", 3, "--seed", 1, "--seconds", 20)
  run(
    "data_prep.tokenize", "--corpus", "slakh", "--root", root / "music", "--codec", DEMO_BUNDLE,
    "--out", root / "tokens", "--name", "demo", "--mixes", 3, "--workers", 1,
  )  # fmt: skip
  run(
    "stemgen_jax.train",
    "--config",
    "configs/demo.py",
    "--workdir",
    root / "model",
    f"--config.data.path={root / 'tokens'}",
    "--config.data.crop_frames=100",
    "--config.data.batch_size=12",
    "--config.model.dim=32",
    "--config.model.n_layers=2",
    "--config.model.n_heads=2",
    "--config.model.mlp_dim=64",
    "--config.model.unroll=1",
    "--config.optim.steps=4",
    "--config.optim.warmup_steps=1",
    "--config.eval_batches=0",
    "--config.sample.steps=3,2,1,1",
  )
  time_s = np.arange(int(5.03 * RATE_HZ)) / RATE_HZ
  stereo = 0.3 * np.stack([np.sin(440 * time_s), np.sin(660 * time_s)], axis=1)
  soundfile.write(root / "loop.wav", stereo.astype(np.float32), RATE_HZ)
  return root


def words_of(chain, out, **changes):
  flags = {
    "checkpoint": chain / "model",
    "context": chain / "loop.wav",
    "instrument": "bass",
    "out": out,
    "takes": 2,
    "seed": 1,
  } | changes
  return [w for k, v in flags.items() if v is not None for w in (f"--{k}", str(v))]


def test_a_stem_for_a_stereo_loop_at_its_own_rate(chain, tmp_path):
  sample.main([*words_of(chain, tmp_path / "a"), "--guidance", "context=3"])
  settings = json.loads((tmp_path / "a/settings.json").read_text())
  assert settings["guidance"] == {"context": 3.0, "instrument": 2.0}
  assert settings["conditions"]["instrument"]["value"] == "bass"
  context, _ = soundfile.read(chain / "loop.wav")
  for i, take in enumerate(settings["takes"]):
    stem, rate_hz = soundfile.read(tmp_path / f"a/take_{i:02d}.wav")
    mix, _ = soundfile.read(tmp_path / f"a/take_{i:02d}_mix.wav")
    assert rate_hz == RATE_HZ
    assert stem.shape == (len(context),)  # the codec is mono
    assert mix.shape == context.shape
    assert np.abs(stem).max() > 0
    gain = 10 ** (take["mix_gain_db"] / 20)
    np.testing.assert_allclose(mix, gain * (context + stem[:, None]), atol=1e-3)


def test_without_a_checkpoint_the_shipped_model_plays(chain, tmp_path):
  sample.main(words_of(chain, tmp_path / "a", checkpoint=None, takes=1))
  settings = json.loads((tmp_path / "a/settings.json").read_text())
  assert settings["checkpoint"] == "shipped"
  assert (tmp_path / "a/take_00.wav").is_file()


def test_the_commands_need_no_flag(chain, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  sample.main(["--checkpoint", str(chain / "model")])
  settings = json.loads(Path("takes/settings.json").read_text())
  assert settings["conditions"]["instrument"]["value"] == "bass"
  assert soundfile.info("takes/take_00.wav").duration == soundfile.info(EXAMPLE).duration
  layer.main(["--checkpoint", str(chain / "model")])
  assert len(list(Path("layers/stems").iterdir())) == 3
  assert run_cli(lambda: train.main(["--config", str(ROOT / "configs/slakh.py")])) == 2
  complaint = capsys.readouterr().err
  assert complaint.count("\n  python -m data_prep.") == 2
  assert "--codec codecs/32khz --out data --name slakh --corpus slakh --categories" in complaint
  assert not Path("runs").exists()


def test_an_exported_model_plays_as_its_run_does(chain, tmp_path):
  export.main(["--checkpoint", str(chain / "model"), "--out", str(tmp_path / "model")])
  for name, checkpoint in (("run", chain / "model"), ("exported", tmp_path / "model")):
    sample.main(words_of(chain, tmp_path / name, checkpoint=checkpoint, takes=1))
  a, b = (soundfile.read(tmp_path / f"{name}/take_00.wav")[0] for name in ("run", "exported"))
  assert a.shape == b.shape
  told = json.loads((tmp_path / "model/model.json").read_text())
  assert told["step"] == 4
  assert str(chain) not in json.dumps(told)


def read_tags(workdir):
  """Returns the kind of value of every tag in a run's TensorBoard files."""
  tags = {}
  for path in workdir.rglob("events.out.*"):
    content, at = path.read_bytes(), 0
    while at < len(content):  # length, its checksum, the event, its checksum
      (length,) = struct.unpack_from("<Q", content, at)
      event = event_pb2.Event.FromString(content[at + 12 : at + 12 + length])
      tags |= {value.tag: value.WhichOneof("value") for value in event.summary.value}
      at += 16 + length
  return tags


@pytest.mark.slow
def test_training_lets_one_hear_what_it_generates(chain, tmp_path):
  shutil.copytree(chain / "model", tmp_path / "model")
  for song in (chain / "music").glob("*/*/"):
    shutil.copytree(song, tmp_path / "music/train" / song.name)
  run(  # the same songs, all in one split, so that each has another one beside it
    "data_prep.tokenize", "--corpus", "slakh", "--root", tmp_path / "music", "--codec", DEMO_BUNDLE,
    "--out", tmp_path / "tokens", "--name", "demo", "--mixes", 3, "--workers", 1,
  )  # fmt: skip
  run(
    "stemgen_jax.train",
    "--config",
    "configs/demo.py",
    "--workdir",
    tmp_path / "model",
    f"--config.data.path={tmp_path / 'tokens'}",
    "--config.data.crop_frames=100",
    "--config.data.batch_size=12",
    "--config.model.dim=32",
    "--config.model.n_layers=2",
    "--config.model.n_heads=2",
    "--config.model.mlp_dim=64",
    "--config.model.unroll=1",
    "--config.optim.steps=5",
    "--config.optim.warmup_steps=1",
    "--config.eval_batches=1",
    "--config.data.eval_split=train",
    "--config.sample.steps=3,2,1,1",
    f"--config.data.codec={DEMO_BUNDLE}",
    "--config.train.audio_examples=1",
  )
  tags = read_tags(tmp_path / "model")
  for name in ("context", "target", "generated"):
    assert tags[f"example_0/{name}"] == "audio"
    assert tags[f"example_0/{name}/spectrogram"] == "image"
  assert tags["validation/loss"] == tags["listening/gain/mean"] == "simple_value"


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(chain, tmp_path):
  for name, seed in (("a", 1), ("b", 1), ("c", 2)):
    sample.main(words_of(chain, tmp_path / name, seed=seed))
  files = ("take_00.wav", "take_01_mix.wav", "settings.json")
  a, b, c = ([(tmp_path / n / f).read_bytes() for f in files] for n in "abc")
  assert a == b
  assert a[0] != c[0]


def test_a_song_can_start_from_silence(chain, tmp_path):
  sample.main(words_of(chain, tmp_path / "a", context=None, silence_s=2, takes=1))
  stem, rate_hz = soundfile.read(tmp_path / "a/take_00.wav")
  assert len(stem) == 2 * rate_hz


def test_a_stem_is_continued_and_a_variation_is_another(chain, tmp_path):
  sample.main(words_of(chain, tmp_path / "a", takes=1))
  stem, _ = soundfile.read(tmp_path / "a/take_00.wav")
  first = stem[: 2 * RATE_HZ]
  soundfile.write(tmp_path / "first.wav", first, RATE_HZ)
  sample.main(
    [*words_of(chain, tmp_path / "b", takes=1), "--stem", str(tmp_path / "first.wav"), "--continue"]
  )
  settings = json.loads((tmp_path / "b/settings.json").read_text())
  gain = 10 ** (settings["takes"][0]["gain_db"] / 20)
  longer, _ = soundfile.read(tmp_path / "b/take_00.wav")
  assert len(longer) == len(stem)
  kept = slice(0, len(first) - RATE_HZ // 50)
  np.testing.assert_allclose(longer[kept], gain * first[kept], atol=1e-4)
  sample.main(
    [*words_of(chain, tmp_path / "c"), "--stem", str(tmp_path / "a/take_00.wav"), "--vary", "0.4"]
  )
  takes = [soundfile.read(tmp_path / f"c/take_0{i}.wav")[0] for i in range(2)]
  assert (takes[0] != takes[1]).any()


def test_the_readmes_lines_run(chain, tmp_path, monkeypatch, capsys):
  text = (ROOT / "README.md").read_text()
  (block,) = [b for b in re.findall(r"```python\n(.*?)```", text, re.S) if "from_checkpoint" in b]
  block = block.replace("runs/demo/model", str(chain / "model"))
  block = block.replace("my_loop.wav", str(chain / "loop.wav"))
  monkeypatch.chdir(tmp_path)
  exec(compile(block, "README.md", "exec"), {})
  assert np.isfinite(float(capsys.readouterr().out))
  assert soundfile.info("bass.wav").duration == pytest.approx(5.03, abs=1e-3)


def test_a_batch_of_contexts_is_what_each_gives_alone(chain, tmp_path):
  lines = [
    {"context": "loop.wav", "name": "one", "instrument": "drums", "seed": 4},
    {"context": str(chain / "loop.wav"), "takes": 1, "guidance": {"context": 3}, "loop": True},
    {"silence_s": 1.5, "name": "none", "takes": 1},
  ]
  batch = chain / "contexts.jsonl"
  batch.write_text("".join(json.dumps(line) + "\n\n" for line in lines))
  sample.main(words_of(chain, tmp_path / "out", context=None, batch=batch))
  assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["0003", "none", "one"]
  assert len(list((tmp_path / "out/one").iterdir())) == 5
  assert soundfile.info(tmp_path / "out/none/take_00.wav").duration == pytest.approx(1.5)
  assert "seam" in json.loads((tmp_path / "out/0003/settings.json").read_text())["takes"][0]
  sample.main(words_of(chain, tmp_path / "alone", instrument="drums", seed=4))
  for name in ("take_00.wav", "take_01_mix.wav"):
    assert (tmp_path / "alone" / name).read_bytes() == (tmp_path / "out/one" / name).read_bytes()


@pytest.mark.parametrize(
  ("line", "complaint"),
  [
    ("{", "line 2 of .* must be JSON"),
    ("[]", "line 2 of .* must be an object"),
    ('{"context": "nowhere.wav"}', "line 2 of .*nowhere.wav"),
    ('{"context": "gs://b/a.wav"}', "line 2 of .*this machine; got gs://b/a.wav"),
    ('{"context": "loop.wav", "takse": 2}', "line 2 of .*takse"),
    ('{"context": "loop.wav", "takes": "two"}', "line 2 of .*kinds"),
    ('{"context": "loop.wav", "takes": 100000000}', "line 2 of .*takes must be at most 64"),
    ('{"silence_s": 1e9}', r"line 2 of .*silence_s must be .* at most 3600, an hour; got 1e\+09"),
    ('{"context": "loop.wav", "level": 1e9}', "line 2 of .*level must lie in"),
    ('{"context": "loop.wav", "guidance": 3}', "line 2 of .*an object of source: number.*got 3"),
    ('{"context": 5}', "line 2 of .*its context must be a string, the path of a file; got 5"),
    ('{"context": "loop.wav", "takes": 1, "takes": 2}', "line 2 of .*got 'takes' twice"),
    ('{"context": "loop.wav", "top_p": 2}', "line 2 of .*top_p"),
    ('{"context": "loop.wav", "instrument": "cake"}', "line 2 of .*cake"),
    ('{"context": "loop.wav", "name": "../a"}', "line 2 of .*without '/'"),
    ('{"context": "loop.wav", "name": "one"}', "line 2 of .*no other has"),
    ('{"instrument": "bass"}', "line 2 of .*exactly one of"),
    ('{"name": "caf\udce9"}', "line 2 of .*must be text in UTF-8"),
  ],
)
def test_a_bad_line_is_named_and_the_others_are_made(chain, tmp_path, capsys, line, complaint):
  batch = tmp_path / "bad.jsonl"
  good = json.dumps({"context": str(chain / "loop.wav"), "name": "one"})
  text = f"{good}\n{line.replace('loop.wav', str(chain / 'loop.wav'))}\n"
  batch.write_bytes(text.encode("utf-8", "surrogateescape"))
  words = words_of(chain, tmp_path / "out", context=None, batch=batch, takes=1)
  assert run_cli(lambda: sample.main(words)) == 3
  first, *_, last = capsys.readouterr().err.strip().splitlines()
  assert re.search(f"^left out: {complaint}", first)
  assert last == f"1 line of {batch} left out: mend them and run the same command."
  assert [path.name for path in (tmp_path / "out").iterdir()] == ["one"]
  assert (tmp_path / "out/one/settings.json").is_file()


def test_a_batch_without_a_good_line_writes_nothing(chain, tmp_path, capsys):
  batch = tmp_path / "bad.jsonl"
  words = words_of(chain, tmp_path / "out", context=None, batch=batch)
  for text, count in (("{\n", 1), ('{\n\n{"context": "a"}\n[]', 4)):
    batch.write_text(text)
    assert run_cli(lambda: sample.main(words)) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == count
    assert said[-1].startswith("error: ")
  assert [line.split(" of ")[0] for line in said[:-1]] == [f"left out: line {n}" for n in (1, 3, 4)]
  assert not (tmp_path / "out").exists()


def test_a_batch_names_files_in_utf_8_in_any_locale(chain, tmp_path):
  name = "caf\u00e9"
  shutil.copy(chain / "loop.wav", os.fsencode(tmp_path) + f"/{name}.wav".encode())
  line = {"context": f"{name}.wav", "name": name, "takes": 1}
  batch = tmp_path / "batch.jsonl"
  batch.write_text(json.dumps(line, ensure_ascii=False), encoding="utf-8")
  words = words_of(chain, tmp_path / "out", context=None, batch=batch)
  env = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "XLA_FLAGS": FAST_COMPILE}
  command = [sys.executable, "-m", "stemgen_jax.sample", *words]
  done = subprocess.run(command, capture_output=True, cwd=ROOT, env=env, check=False)
  assert done.returncode == 0, done.stderr
  folder = os.fsencode(tmp_path) + f"/out/{name}".encode()
  with open(folder + b"/settings.json", encoding="utf-8") as settings:
    assert json.load(settings)["context"] == f"{tmp_path}/{name}.wav"
  assert len(os.listdir(folder)) == 3


@pytest.fixture
def bad_files(tmp_path):
  files = {
    name: tmp_path / name for name in ("empty.wav", "text.wav", "nan.wav", "none.wav", "short.wav")
  }
  files["empty.wav"].touch()
  files["text.wav"].write_text("this is not audio")
  soundfile.write(files["nan.wav"], np.full(8000, np.nan, np.float32), 16_000, subtype="FLOAT")
  soundfile.write(files["none.wav"], np.zeros(0, np.float32), 16_000)
  soundfile.write(files["short.wav"], np.zeros(1, np.float32), 192_000)
  return tmp_path


@pytest.mark.parametrize(
  ("changes", "more", "complaint"),
  [
    ({"context": "missing.wav"}, [], "missing.wav"),
    ({"context": "empty.wav"}, [], "empty.wav"),
    ({"context": "text.wav"}, [], "text.wav"),
    ({"context": "nan.wav"}, [], "NaN"),
    ({"context": "none.wav"}, [], "at least one sample"),
    ({"instrument": "kazoo"}, [], "drums, bass"),
    ({"instrument": "bas"}, [], "Did you mean bass"),
    ({"checkpoint": "nowhere"}, [], "nowhere"),
    ({"codec": "nowhere"}, [], "nowhere"),
    ({"takes": 0}, [], "takes must be at least 1"),
    ({"takes": 100_000_000}, [], "takes must be at most 64"),
    ({"seed": -1}, [], "seed must lie in"),
    ({"steps": "1,2"}, [], "4 positive numbers"),
    ({"steps": "a"}, [], "--steps"),
    ({}, ["--guidance", "genre=2"], "genre"),
    ({}, ["--guidance", "context"], "NAME=VALUE"),
    ({}, ["--top_p", "0"], "top_p must lie in"),
    ({}, ["--w_s", "nan"], "w_s must be finite"),
    ({}, ["--guidance", "context=nan"], "guidance of 'context' must be finite"),
    ({}, ["--level", "loud"], "--level must be a number of LU, or none; got 'loud'"),
    ({}, ["--stem", "loop.wav", "--vary", "0.5", "--level", "-3"], "level must be left out"),
    ({"context": "."}, [], "a folder"),
    ({}, ["--devices", "99"], "devices must be"),
    ({}, ["--keep", "0:00-0:02"], "must be given with an existing stem"),
    ({}, ["--continue"], "--stem"),
    ({}, ["--stem", "loop.wav", "--continue"], "longer than the stem"),
    ({}, ["--stem", "loop.wav", "--keep", "now"], "FROM-TO"),
    ({}, ["--stem", "loop.wav", "--vary", "2"], "vary must lie in"),
    ({}, ["--guidance", "context=loud"], "NAME=NUMBER"),
    ({"context": "short.wav"}, [], "a sample or more"),
    ({}, ["--instrumnet", "bass"], "--instrumnet"),
    ({"context": None, "silence_s": -1}, [], "--silence_s"),
    ({"context": None, "silence_s": "nan"}, [], "--silence_s"),
    ({"context": None, "silence_s": 1e9}, [], "at most 3600, an hour; got 1e+09"),
    ({}, ["--level", "1e9"], "level must lie in [-40, 20] LU"),
  ],
)
def test_a_users_mistake_is_one_line_and_leaves_nothing(
  chain, bad_files, capsys, changes, more, complaint
):
  if str(changes.get("context", "")).endswith(".wav"):
    changes = changes | {"context": bad_files / changes["context"]}
  more = [str(chain / word) if word == "loop.wav" else word for word in more]
  words = words_of(chain, bad_files / "out", **changes) + more
  assert run_cli(lambda: sample.main(words)) == 2
  error = capsys.readouterr().err.strip().splitlines()[-1]
  assert error.startswith("error: ")
  assert complaint in error
  assert not (bad_files / "out").exists()


def test_takes_of_an_earlier_command_are_replaced(chain, tmp_path):
  out = tmp_path / "out"
  (tmp_path / "out").mkdir()
  (out / "mine.wav").touch()
  sample.main(words_of(chain, out, takes=2))
  sample.main(words_of(chain, out, takes=1, seed=2))
  found = sorted(path.name for path in out.iterdir())
  assert found == ["mine.wav", "settings.json", "take_00.wav", "take_00_mix.wav"]


@pytest.mark.parametrize("full", ["take_01.wav", "take_01_mix.wav", "settings.json"])
def test_takes_before_the_disk_was_full_are_whole(chain, tmp_path, capsys, monkeypatch, full):
  out, begun = tmp_path / "out", []
  sample.main(words_of(chain, out, takes=3, seed=5))
  sample.main(words_of(chain, tmp_path / "whole", takes=3))

  def fill(write):
    def write_some(path, *rest):
      begun.append(path.name)
      if path.name == full and "take_01.wav" in begun:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
      write(path, *rest)

    return write_some

  for name in ("write_audio", "write_blocks", "write_text"):
    monkeypatch.setattr(sample, name, fill(getattr(sample, name)))
  capsys.readouterr()
  assert run_cli(lambda: sample.main(words_of(chain, out, takes=3))) == 2
  line = capsys.readouterr().err.splitlines()[-1]
  assert line.startswith(f"error: the disk must have room for {out}/{full}; got No space left")
  files = ["take_00.wav", "take_00_mix.wav"]
  assert sorted(p.name for p in out.iterdir()) == ["settings.json", *files]
  for name in files:
    assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
  found, wanted = (
    json.loads((folder / "settings.json").read_text()) for folder in (out, tmp_path / "whole")
  )
  assert found == wanted | {"takes": wanted["takes"][:1]}
  assert found["takes"][0]["files"] == files


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_stem_is_there_before_it_is_measured_and_goes_where_that_is_broken_off(
  chain, tmp_path, monkeypatch, error
):
  there = []

  def describe(*_):
    there.extend(sorted(path.name for path in (tmp_path / "out").iterdir()))
    raise error

  monkeypatch.setattr(mixing, "describe", describe)
  with pytest.raises(error):
    sample.main(words_of(chain, tmp_path / "out", takes=2))
  assert there == ["take_00.wav", "take_00_mix.wav"]
  assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
  ("subtype", "channels", "peak"),
  [("PCM_16", 1, 1.0), ("PCM_24", 2, 1.0), ("FLOAT", 2, 4.0), ("FLOAT", 1, 0.1)],
)
def test_samples_that_are_kept_stay_as_they_are(chain, tmp_path, subtype, channels, peak):
  rng = np.random.default_rng(0)
  frames = soundfile.info(chain / "loop.wav").frames
  noise = np.clip(rng.normal(0, peak / 2, (frames, channels)), -peak, peak * (1 - 2**-15))
  soundfile.write(tmp_path / "stem.wav", noise, RATE_HZ, subtype=subtype)
  words = words_of(chain, tmp_path / "out", stem=tmp_path / "stem.wav", takes=1)
  sample.main([*words, "--keep", "0:00-0:01"])
  info = soundfile.info(tmp_path / "out/take_00.wav")
  assert (info.subtype, info.channels) == (subtype, channels)
  (old, _), (new, _) = (soundfile.read(tmp_path / name) for name in ("stem.wav", "out/take_00.wav"))
  old, new = (np.atleast_2d(x.T) for x in (old, new))
  np.testing.assert_array_equal(new[:, :RATE_HZ], old[:, :RATE_HZ])
  assert np.abs(new[:, 2 * RATE_HZ :]).max() <= 1.0
  mix, _ = soundfile.read(tmp_path / "out/take_00_mix.wav")
  assert np.abs(mix).max() < 1.0


def test_what_is_read_is_never_written_over(chain, tmp_path, capsys):
  out = tmp_path / "out"
  sample.main(words_of(chain, out, takes=2))
  (tmp_path / "batch.jsonl").write_text(
    f'{{"name": "out", "context": "{chain}/loop.wav"}}\n{{"context": "out/take_00.wav"}}\n'
  )
  before = {path.name: path.read_bytes() for path in out.iterdir()}
  mix, stem, batch = out / "take_00_mix.wav", out / "take_01.wav", tmp_path / "batch.jsonl"
  for words, flag in (
    (words_of(chain, out, context=mix, takes=1), "--context"),
    ([*words_of(chain, out, stem=stem, takes=1), "--vary", "0.5"], "--stem"),
    (words_of(chain, tmp_path, context=None, batch=batch, takes=1), "line 2"),
  ):
    assert run_cli(lambda words=words: sample.main(words)) == 2
    said = capsys.readouterr().err
    assert f"{flag} must not be a file that this command writes" in said or (
      flag == "line 2" and f"line 2 of {batch} must not read what line 1 writes" in said
    )
  assert before == {path.name: path.read_bytes() for path in out.iterdir()}
  sample.main(words_of(chain, tmp_path / "other", context=mix, takes=1))


def test_an_out_folder_that_is_a_file_is_refused(chain, tmp_path, capsys):
  (tmp_path / "out").write_text("mine")
  assert run_cli(lambda: sample.main(words_of(chain, tmp_path / "out"))) == 2
  assert "--out must be a folder" in capsys.readouterr().err
  assert (tmp_path / "out").read_text() == "mine"


def test_a_damaged_checkpoint_is_named(chain, tmp_path):
  shutil.copytree(chain / "model", tmp_path / "model")
  for song in (chain / "music").glob("*/*/"):
    shutil.copytree(song, tmp_path / "music/train" / song.name)
  step = tmp_path / "model/checkpoints/4"
  for file in (step / "average").rglob("d/*"):
    file.write_bytes(file.read_bytes()[:100])
  words = words_of(chain, tmp_path / "out", checkpoint=tmp_path / "model")
  command = [sys.executable, "-m", "stemgen_jax.sample", *words]  # Orbax's threads outlive it
  done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
  assert done.returncode == 2
  assert f"error: checkpoint must be whole; got {step.parent}" in done.stderr
  assert not (tmp_path / "out").exists()


def test_a_checkpoint_of_another_codec_is_refused(chain, tmp_path, capsys):
  other = tmp_path / "other"
  shutil.copytree(DEMO_BUNDLE, other)
  spec = json.loads((other / "codec.json").read_text())
  (other / "codec.json").write_text(json.dumps(spec | {"source": "another training"}))
  words = words_of(chain, tmp_path / "out", codec=other)
  assert run_cli(lambda: sample.main(words)) == 2
  assert "must be the one the checkpoint was trained on" in capsys.readouterr().err
  assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_demo_leaves_its_files_and_a_page_that_needs_no_other(tmp_path):
  run(
    "data_prep.run_demo",
    "--out",
    tmp_path / "demo",
    "--songs",
    20,
    "--config.optim.steps=6",
    "--config.optim.warmup_steps=1",
    "--config.eval_batches=1",
    "--config.sample.steps=3,2,1,1",
  )
  for name in ("context", "stem", "mix", "target"):
    assert soundfile.info(tmp_path / f"demo/{name}.wav").duration == pytest.approx(20, abs=0.01)
  page = (tmp_path / "demo/report.html").read_text()
  assert page.count("<audio") == page.count("data:audio/flac") == 14
  assert page.count("<img") == page.count("data:image/png") == 15
  assert "http:" not in page
  assert "https:" not in page
  assert len(page) < 8e6
  for heading in ("<h3>Full mix</h3>", "<h3>Bass</h3>", "<h3>Drums</h3>"):
    assert heading in page
  assert page.count("After, level 1 only</h4>") == page.count("After, all 4 levels</h4>") == 3
  assert list(json.loads((tmp_path / "demo/stages.json").read_text())) == [
    "render music",
    "tokenise",
    "train",
    "sample",
    "report",
  ]


def test_a_demo_of_too_few_songs_is_refused_before_it_begins(tmp_path):
  command = [sys.executable, "-m", "data_prep.run_demo", "--out", tmp_path / "demo", "--songs", "6"]
  done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
  assert done.returncode == 2
  assert done.stderr.startswith("error: --songs must be at least 20")
  assert not (tmp_path / "demo").exists()
