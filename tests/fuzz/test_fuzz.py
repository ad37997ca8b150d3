# SPDX-License-Identifier: Apache-2.0
"""Mangled inputs: a right result, or one line that names the file; no traceback, nothing by half."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import strategies as st
from mangling import accidents, mangle, refusal, run, several, texts, try_all

from stemgen_jax.audio.files import measure_audio, measure_duration, read_audio, read_blocks
from stemgen_jax.codec import DEMO_BUNDLE
from stemgen_jax.codec.__main__ import main as play_codec
from stemgen_jax.codec.bundle import load_bundle
from stemgen_jax.config import Config
from stemgen_jax.data.records import Dataset
from stemgen_jax.sampling.request_files import plan_jobs
from stemgen_jax.shell.flags import build_parser, parse_config

ROOT = Path(__file__).parents[2]
RATE_HZ = 22_050
HOW_OFTEN = [pytest.param(1, id="some"), pytest.param(12, id="many", marks=pytest.mark.slow)]
often = pytest.mark.parametrize("often", HOW_OFTEN)
SOUNDS = {
  "pcm.wav": {"format": "WAV", "subtype": "PCM_16"},
  "pcm24.wav": {"format": "WAV", "subtype": "PCM_24"},
  "float.wav": {"format": "WAV", "subtype": "FLOAT"},
  "rf64.wav": {"format": "RF64", "subtype": "PCM_16"},
  "a.flac": {"format": "FLAC"},
  "a.ogg": {"format": "OGG", "subtype": "VORBIS"},
  "a.mp3": {"format": "MP3"},
  "a.aiff": {"format": "AIFF"},
}


def sing(seconds, seed):
  rng = np.random.default_rng(seed)
  time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
  tone = 0.3 * np.sin(2 * np.pi * 220 * time_s) + 0.05 * rng.normal(size=len(time_s))
  return np.stack([tone, 0.5 * tone], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
  folder = tmp_path_factory.mktemp("sounds")
  for i, (name, options) in enumerate(SOUNDS.items()):
    soundfile.write(folder / name, sing(0.4, i), RATE_HZ, **options)
  return {name: (folder / name).read_bytes() for name in SOUNDS}


@often
def test_sound_files(sounds, tmp_path, often):
  def check(drawn):
    name, what = drawn
    path = tmp_path / name
    path.write_bytes(mangle(sounds[name], what))
    found, line = refusal(lambda: read_audio(path), name)
    if line is not None:
      return
    samples, rate_hz = found
    assert np.isfinite(samples).all()
    blocks = np.concatenate(list(read_blocks(path, rate_hz, len(samples))), axis=1)
    np.testing.assert_array_equal(blocks, samples)
    if name != "a.mp3":  # whose ends hold less than its frames
      assert measure_duration(path) == pytest.approx(samples.shape[1] / rate_hz)
    assert measure_audio(path)[1:] == (rate_hz, len(samples))

  try_all(st.tuples(st.sampled_from(sorted(SOUNDS)), several), check, 40 * often)


@often
def test_sound_files_that_are_cut_or_joined(sounds, tmp_path, often):
  """Of what is not lossy no sample may be lost without a word."""
  exact = [name for name in SOUNDS if name not in ("a.ogg", "a.mp3")]
  whole = {}
  for name in exact:
    (tmp_path / name).write_bytes(sounds[name])
    whole[name] = read_audio(tmp_path / name)[0]

  def check(drawn):
    name, count, share = drawn
    path = tmp_path / name
    path.write_bytes(sounds[name] * count)
    np.testing.assert_array_equal(read_audio(path)[0], np.tile(whole[name], count))
    content = sounds[name]
    path.write_bytes(content[: int(share * len(content))])
    assert refusal(lambda: read_audio(path), name)[1]

  try_all(
    st.tuples(st.sampled_from(exact), st.integers(1, 3), st.floats(0, 0.999)), check, 15 * often
  )


@often
def test_the_codec_command(sounds, tmp_path, capsys, often):
  folder = tmp_path / "out"
  folder.mkdir()

  def check(drawn):
    name, what = drawn
    path, out = tmp_path / name, folder / "heard.wav"
    path.write_bytes(mangle(sounds[name], what))
    out.unlink(missing_ok=True)
    code, _ = run(lambda: play_codec([str(path), "--out", str(out)]), capsys, name)
    assert [p.name for p in folder.iterdir()] == (["heard.wav"] if code == 0 else [])
    if code == 0:
      assert soundfile.info(out).duration == pytest.approx(measure_duration(path), abs=0.2)

  try_all(st.tuples(st.sampled_from(sorted(SOUNDS)), several), check, 4 * often)


def read_dataset(path):
  """Returns all that a dataset holds, as it is read for training and checked by `inspect`."""
  dataset = Dataset.open(path)
  found = {}
  for split in dataset.shards:
    source = dataset.source(split)
    for i in range(len(source)):
      clip = source[i]
      found[split, i] = [clip.song, clip.stem_codes.tolist(), clip.mix_codes.tolist()]
      found[split, i] += [clip.mix_gain_db.tolist(), clip.stem_conditions.tolist()]
      found[split, i] += [source.songs[i], source.categories[i], float(source.target_db[i])]
  return dataset.metadata, dataset.mix_lufs, found


@often
def test_token_shards(tiny_dataset, tmp_path, often):
  files = sorted(p for p in tiny_dataset.rglob("*") if p.is_file())
  files = [p for p in files if p.name not in ("dataset_info.json", "features.json")]  # TFDS' own
  right = read_dataset(tiny_dataset)

  def check(drawn):
    file, what = drawn
    folder = tmp_path / "tokens"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(tiny_dataset, folder)
    (folder / file.name).write_bytes(mangle(file.read_bytes(), what))
    found, line = refusal(lambda: read_dataset(folder), file.name, str(folder))
    assert line or repr(found) == repr(right), "other tokens, and no word"

  try_all(st.tuples(st.sampled_from(files), several), check, 20 * often)


@often
def test_codec_bundles(tmp_path, often):
  right = load_bundle(DEMO_BUNDLE)

  def check(drawn):
    name, what = drawn
    folder = tmp_path / "bundle"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(DEMO_BUNDLE, folder)
    before = (folder / name).read_bytes()
    after = mangle(before, what)
    (folder / name).write_bytes(after)
    found, line = refusal(lambda: load_bundle(folder), name, str(folder))
    if line is None and after != before:  # who knows which one it should be can tell
      own, other = found.decoder, right.decoder
      assert (found.fingerprint, own and own.fingerprint) != (right.fingerprint, other.fingerprint)

  names = sorted(p.name for p in DEMO_BUNDLE.iterdir() if p.suffix in (".json", ".safetensors"))
  try_all(st.tuples(st.sampled_from(names), several), check, 12 * often)


@often
def test_lines_of_a_batch(stemgen, sounds, tmp_path, often):
  (tmp_path / "loop.wav").write_bytes(sounds["pcm.wav"])
  lines = [
    {"context": "loop.wav", "name": "a", "instrument": "bass", "takes": 2, "seed": 3},
    {"silence_s": 0.2, "activity": "busy", "loop": True, "guidance": {"context": 3}, "level": -3},
    {"context": "loop.wav", "stem": "loop.wav", "keep": ["0:00-0:00.2"], "steps": [2, 1, 1, 1]},
    {"context": "loop.wav", "stem": "loop.wav", "vary": 0.3, "top_p": 0.9, "preset": "fast"},
  ]
  whole = "".join(json.dumps(line) + "\n" for line in lines)
  batch = tmp_path / "batch.jsonl"

  def check(text):
    batch.write_text(text, encoding="utf-8", errors="surrogatepass")
    found, line = refusal(lambda: list(plan_jobs({}, batch, stemgen.plan)), "batch.jsonl")
    if line is None:
      assert all(planned.job.request.context.shape[1] for planned in found)

  try_all(texts(whole), check, 25 * often)


@often
def test_configs(tmp_path, often):
  path = tmp_path / "changed.py"
  whole = (ROOT / "configs/demo.py").read_text()
  flags = ["--config.optim.steps=5", "--config.model.dim=48", "--config.data.path=x/y",
           "--config.sample.steps=3,2,1,1", "--config.model.sources={}"]  # fmt: skip

  def check(drawn):
    kind, text, flag = drawn
    path.write_text(text if kind else whole, encoding="utf-8", errors="surrogatepass")

    def read():
      arguments = parse_config(
        build_parser(""), Config, ["--config", str(path), *([] if kind else [flag])]
      )
      arguments.config.validate()
      return arguments.config

    found, line = refusal(read, "changed.py", "config", flag.split("=")[0].removeprefix("--"))
    assert line or isinstance(found, Config)

  flag = st.sampled_from(flags).flatmap(texts).filter(lambda text: text.startswith("--config."))
  try_all(st.tuples(st.booleans(), texts(whole), flag), check, 20 * often)
