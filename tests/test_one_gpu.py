# SPDX-License-Identifier: Apache-2.0
"""launch/one_gpu.sh: what it would run, how it goes on, and the whole of it on a miniature."""

import hashlib
import importlib
import os
import signal
import subprocess
import sys
import tarfile
import time

import pytest
from conftest import FAST_COMPILE
from file_server import HubServer, serving
from launching import ROOT, dry_run, environment, install, launch

STAGES = ("check", "codec", "extract", "tokenize", "inspect", "train", "evaluate", "tables")
FAKE_PYTHON = """#!/usr/bin/env bash
# Notes what it was called for; plays the module of $ACTOR as $PLAY says.
echo "${JAX_PLATFORMS:-}" "$@" >> "$RECORD/calls"
[[ "$2" == "${ACTOR:-nobody}" ]] || exit 0
if [[ "$PLAY" != wait ]]; then exit "$PLAY"; fi
trap 'touch "$RECORD/saved"; exit 0' TERM
touch "$RECORD/ready"
for _ in {1..600}; do sleep 0.05; done
"""


@pytest.fixture
def pack(tmp_path):
  """A function that makes an archive, whose songs lie in a folder of some name."""

  def make(top):
    song = tmp_path / "songs" / top / "train/Track00001"
    song.mkdir(parents=True)
    (song / "metadata.yaml").write_text("stems: {}")
    archive = tmp_path / "some archive.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
      tar.add(tmp_path / "songs", arcname="./")
    return archive

  return make


@pytest.fixture
def go(tmp_path, pack):
  """A function that runs the script with a stand-in for Python, and returns what that was asked."""
  install(tmp_path, "python", FAKE_PYTHON)
  archive = pack("a folder")

  def run(*words, **variables):
    (tmp_path / "calls").unlink(missing_ok=True)
    given = ("--out", tmp_path / "out", "--archive", archive, "--free_gb", "0", *words)
    done = launch(tmp_path, "one_gpu", *map(str, given), **variables)
    calls = tmp_path / "calls"
    lines = calls.read_text().split("\n") if calls.exists() else []
    asked = [line.split(" -m ")[1].split()[0] for line in lines if " -m " in line]
    return done, [module.rpartition(".")[2] for module in asked]

  return run


def module_call(words):
  """The module that a command runs, and its flags; None for other commands."""
  if "-m" not in words:
    return None
  return words[words.index("-m") + 1], words[words.index("-m") + 2 :]


class ParsedError(Exception):
  """What stands in the place of a command's work raises it: the command line was understood."""


WORKERS = {  # what each command calls once it has read its flags
  "data_prep.fetch": "fetch",
  "data_prep.convert_codec": "convert_codec",
  "data_prep.tokenize": "open_corpus",
  "data_prep.inspect": "Path",
  "stemgen_jax.train": "train",
  "stemgen_jax.evaluate.__main__": "evaluate",
  "stemgen_jax.sweep": "sweep",
}


@pytest.mark.torch
@pytest.mark.parametrize("more", [(), ("--device", "cpu", "--fetch", "--md5=any", "--url", "http://a/b",
                                       "--codec_from", "a/b", "--licence", "CC BY 4.0",
                                       "--config.optim.steps=3")])  # fmt: skip
def test_every_command_is_understood_by_its_module(tmp_path, monkeypatch, more):
  def parsed(*words, **named):
    raise ParsedError

  calls = [module_call(words) for words in dry_run(tmp_path, "one_gpu", *more)]
  understood = set()
  for module, flags in filter(None, calls):
    name = f"{module}.__main__" if module == "stemgen_jax.evaluate" else module
    code = importlib.import_module(name)
    with monkeypatch.context() as patch:
      patch.setattr(code, WORKERS[name], parsed)
      with pytest.raises(ParsedError):
        code.main(flags)
    understood.add(name)
  assert understood == set(WORKERS)


MORE = {"TOKENIZE_FLAGS": "--workers 4", "EVALUATE_FLAGS": "--embedding vggish=V"}


def test_flags_and_environment_are_the_same_and_reach_the_commands(tmp_path):
  flags = ("--out=my run", "--categories", "a table", "--mixes", "3", "--config.seed=1")
  words = dry_run(tmp_path, "one_gpu", *flags, DEVICE="cpu", **MORE)
  same = {"OUT": "my run", "MIXES": "3", "CATEGORIES": "a table", **MORE}
  assert words == dry_run(tmp_path, "one_gpu", "--device", "cpu", "--config.seed=1", **same)
  text = [" ".join(command) for command in words]
  (tokenize,) = [line for line in text if "data_prep.tokenize" in line]
  assert tokenize.startswith("env JAX_PLATFORMS=cpu python -m")
  assert "--codec my run/codec" in tokenize
  assert "--categories a table" in tokenize
  assert tokenize.endswith("--mixes 3 --backend torch --device cpu --workers 4")
  (evaluate,) = [line for line in text if "stemgen_jax.evaluate" in line]
  assert evaluate.endswith("--out my run/report --embedding vggish=V")
  (train,) = [line for line in text if "stemgen_jax.train" in line]
  assert train.endswith("--config.data.path=my run/tokens/slakh --config.seed=1")
  given = dry_run(tmp_path, "one_gpu", "--music", "there", "--codec", "a bundle")
  modules = [call[0].rpartition(".")[2] for call in map(module_call, given) if call]
  assert modules == ["tokenize", "inspect", "train", "evaluate", *["sweep"] * 3]
  assert all("a bundle" in words for words in given[1:3])


def test_every_stage_is_done_once_and_said_to_be(go, tmp_path):
  done, asked = go()
  assert done.returncode == 0, done.stderr
  assert asked == [
    "fetch",
    "convert_codec",
    "tokenize",
    "inspect",
    "train",
    "evaluate",
    *["sweep"] * 3,
  ]
  assert [line[:-1] for line in done.stdout.splitlines() if line[:-1] in STAGES] == [*STAGES]
  assert (tmp_path / "out/music/train/Track00001/metadata.yaml").is_file()
  assert not (tmp_path / "out/.music.partial").exists()
  done, asked = go()
  assert asked == []
  assert [line.partition(":")[0] for line in done.stdout.splitlines()] == [*STAGES]
  assert all("finished before; remove" in line for line in done.stdout.splitlines())
  done, asked = go("--stage", "train")
  assert asked == []
  (tmp_path / "out/stamps/train").unlink()
  assert go("--stage", "train")[1] == ["train"]
  assert go()[1] == ["evaluate", *["sweep"] * 3]  # of the model that is new
  assert go("--mixes", "2")[1] == ["tokenize", "inspect", "train", "evaluate", *["sweep"] * 3]


def test_a_stage_that_fails_ends_it_and_is_done_again(go):
  done, asked = go(ACTOR="data_prep.inspect", PLAY="2")
  assert done.returncode == 2
  assert asked[-1] == "inspect"
  done, asked = go()
  assert done.returncode == 0
  assert asked[:2] == ["inspect", "train"]


def test_songs_that_are_left_out_are_a_warning(go):
  done, asked = go(ACTOR="data_prep.tokenize", PLAY="3")
  assert done.returncode == 0, done.stderr
  assert "warning: songs were left out" in done.stderr
  assert asked[-1] == "sweep"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_command_and_no_later_stage_begins(go, tmp_path, number):
  go("--stage", "check")
  process = subprocess.Popen(
    [ROOT / "launch/one_gpu.sh", "--out", tmp_path / "out", "--stage", "train"],
    cwd=ROOT,
    stdout=subprocess.DEVNULL,
    env=environment(tmp_path, ACTOR="stemgen_jax.train", PLAY="wait"),
  )
  deadline = time.monotonic() + 30
  while not (tmp_path / "ready").exists():
    assert time.monotonic() < deadline
    time.sleep(0.05)
  process.send_signal(number)
  assert process.wait(timeout=30) == 143
  assert (tmp_path / "saved").exists()
  assert not (tmp_path / "out/stamps/train").exists()


@pytest.mark.parametrize(
  ("words", "complaint"),
  [
    (["--stage", "fly"], "stage must be one of check codec"),
    (["--device", "tpu"], "device must be cuda or cpu; got device=tpu"),
    (["--mixes", "many"], "mixes must be a positive integer"),
    (["--free_gb", "all"], "free_gb must be a whole number"),
    (["--flag"], "flags must be known; got --flag"),
    (["word"], "flags must be known; got word"),
    (["--out"], "--out must have a value"),
    (["--free_gb", "999999999"], "999999999 GB must be free in"),
    (["--archive", "nowhere.tar.gz"], "got archive=nowhere.tar.gz, which is missing. Give --fetch"),
    (["--python"], "flags must be known; got --python"),
  ],
)
def test_what_is_wrong_is_one_line(go, words, complaint):
  done, asked = go(*words)
  assert done.returncode == 2
  (line,) = done.stderr.splitlines()
  assert line.startswith("error: ")
  assert complaint in line
  assert asked == []


def test_an_archive_of_something_else_is_one_line(go, tmp_path):
  with tarfile.open(tmp_path / "other.tar", "w") as tar:
    tar.add(ROOT / "launch", arcname="launch")
  done, _ = go("--archive", str(tmp_path / "other.tar"))
  assert done.returncode == 2
  assert "must hold a folder train; got" in done.stderr
  assert not (tmp_path / "out/music").exists()


SIZES = {  # the published 32 kHz codec's layout and rates, with few channels and codes
  "hidden_size": 16,
  "codebook_dim": 16,
  "num_filters": 2,
  "codebook_size": 64,
  "upsampling_ratios": [8, 5, 4, 4],
  "target_bandwidths": [1.2],
}
SMALL_MODEL = [
  f"--config.{name}={value}"
  for name, value in {
    "model.n_codes": 64,
    "model.dim": 32,
    "model.n_layers": 2,
    "model.n_heads": 2,
    "model.mlp_dim": 64,
    "model.compute_dtype": "float32",
    "data.crop_frames": 100,
    "data.batch_size": 8,
    "optim.warmup_steps": 1,
    "optim.hold_steps": 0,
    "eval_batches": 1,
    "eval_every_steps": 2,
    "checkpoint_every_steps": 2,
    "sample.steps": "2,1,1,1",
  }.items()
]


@pytest.fixture(scope="module")
def miniature(tmp_path_factory):
  """A folder with an archive of rendered songs, and the files of a small published codec.

  Validation needs two songs that are held out, which one in ten of fifteen are.
  """
  pytest.importorskip("torch", reason="published codecs are PyTorch's")
  pytest.importorskip("tinysoundfont", reason="music is rendered with it")
  from published_codecs import huggingface

  from data_prep import demo

  root = tmp_path_factory.mktemp("miniature")
  demo.main(["--out", str(root / "songs"), "--songs", "15", "--seconds", "10", "--jobs", "1"])
  with tarfile.open(root / "songs.tar.gz", "w:gz") as tar:
    tar.add(root / "songs", arcname="any name")
  huggingface(root / "codec", "32khz", SIZES)
  (root / "codec/README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
  return root


@pytest.mark.slow
@pytest.mark.torch
def test_from_an_archive_and_a_name_to_the_tables(miniature, tmp_path):
  archive = (miniature / "songs.tar.gz").read_bytes()
  codec = {path.name: path.read_bytes() for path in (miniature / "codec").iterdir()}

  def run(*words):
    given = {
      "out": tmp_path / "out",
      "codec_from": "someone/encodec_32khz",
      "device": "cpu",
      "mixes": 3,
      "examples": 3,
      "md5": hashlib.md5(archive, usedforsecurity=False).hexdigest(),
      "url": f"{hub.url}/songs.tar.gz",
      "free_gb": 1,
    }
    flags = [str(word) for name, value in given.items() for word in (f"--{name}", value)]
    env = os.environ | {
      "PYTHON": sys.executable,
      "HF_ENDPOINT": hub.url,
      "HF_HOME": str(tmp_path / "home"),
      "XLA_FLAGS": FAST_COMPILE,
    }
    done = subprocess.run(
      [ROOT / "launch/one_gpu.sh", *flags, *SMALL_MODEL, *words],
      env=env,
      capture_output=True,
      text=True,
      cwd=ROOT,
      check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr

  with serving(HubServer("someone/encodec_32khz", codec)) as hub:
    hub.files["/songs.tar.gz"] = archive
    hub.breaks = 1
    run("--fetch", "--stage", "check")
    run("--fetch", "--stage", "codec")
  run("--config.optim.steps=2", "--stage", "extract")
  for stage in ("tokenize", "inspect", "train"):
    run("--config.optim.steps=2", "--stage", stage)
  said = run("--config.optim.steps=4")
  for stage in ("check", "codec", "extract", "tokenize", "inspect"):
    assert f"{stage}: finished before" in said
  assert "resuming" in said
  assert (tmp_path / "out/report/table.md").is_file()
  for number, rows in ((1, 10), (2, 4), (3, 2)):
    written = (tmp_path / f"out/table{number}/rows.jsonl").read_text().splitlines()
    assert len(written) == rows + 2  # and those of the true and of other songs' stems
