# SPDX-License-Identifier: Apache-2.0
"""Mangled inputs: a right result, or one line that names the file, and nothing left by half."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile
from hypothesis import strategies as st
from mangling import (
  mangle,
  places_of,
  put,
  refusal,
  run,
  several,
  texts,
  try_all,
  values,
)
from small_corpus import write_song

from data_prep.corpora import open_corpus
from stemgen_jax.audio.files import measure_audio, measure_duration, read_audio, read_blocks
from stemgen_jax.codec import DEMO_BUNDLE
from stemgen_jax.codec.__main__ import main as play_codec
from stemgen_jax.codec.bundle import load_bundle
from stemgen_jax.config import Config, MeshConfig
from stemgen_jax.data.records import Dataset
from stemgen_jax.model.sharding import build_mesh
from stemgen_jax.sampling.request_files import PARTS, SETTINGS, plan_jobs
from stemgen_jax.shell.flags import build_parser, parse_config
from stemgen_jax.shell.folders import make_folder
from stemgen_jax.train import train
from stemgen_jax.training.model_bundle import SHIPPED, load_model, save_model
from stemgen_jax.training.weights import load_average

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
  "a.au": {"format": "AU"},
  "a.caf": {"format": "CAF", "subtype": "PCM_16"},
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
def test_manifests_that_say_something_else(tiny_dataset, tmp_path, often):
  """As another program may write them: whole, and wrong."""
  folder = tmp_path / "tokens"
  shutil.copytree(tiny_dataset, folder)
  content = json.loads((folder / "stemgen.json").read_text())
  del content["content_sha256"]

  def check(drawn):
    place, value = drawn
    (folder / "stemgen.json").write_text(json.dumps(put(content, place, value)))
    refusal(lambda: read_dataset(folder), str(folder), "record must be a row")

  places = st.sampled_from(sorted(places_of(content), key=str))
  try_all(st.tuples(places, values), check, 25 * often)


@often
def test_checkpoints(tiny_config, tmp_path, capsys, often):
  config = tiny_config()
  config.optim.steps, config.eval_batches = 4, 0
  train(config, tmp_path / "run")
  mesh = build_mesh(MeshConfig(), jax.devices()[:1])

  def read(folder):
    _, params, meta = load_average(folder, mesh)
    return meta["step"], jax.tree.map(lambda x: np.asarray(x).tolist(), params)

  wanted = dict([read(tmp_path / "run")])
  shutil.copytree(tmp_path / "run", tmp_path / "before")
  shutil.rmtree(tmp_path / "before/checkpoints/4")
  wanted |= [read(tmp_path / "before")]
  files = sorted(p for p in (tmp_path / "run/checkpoints").rglob("*") if p.is_file())

  def check(drawn):
    file, what = drawn
    folder = tmp_path / "copy"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(tmp_path / "run", folder)
    name = file.relative_to(tmp_path / "run")
    (folder / name).write_bytes(mangle(file.read_bytes(), what))
    capsys.readouterr()
    found, line = refusal(lambda: read(folder), str(folder))
    if line is None:
      step, params = found
      assert params == wanted[step], "other weights, and no word"
      assert step == 4 or "is damaged" in capsys.readouterr().err

  try_all(st.tuples(st.sampled_from(files), several), check, 3 * often)


@often
def test_published_models(tmp_path, often):
  whole = tmp_path / "whole"
  config, params, meta = load_model(SHIPPED, mesh := build_mesh(MeshConfig(), jax.devices()[:1]))
  save_model(whole, config, jax.device_get(params), {k: meta[k] for k in ("dataset", "step")})
  right = load_model(whole, mesh)

  def check(drawn):
    name, what = drawn
    folder = tmp_path / "model"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    (folder / name).write_bytes(mangle((whole / name).read_bytes(), what))
    found, line = refusal(lambda: load_model(folder, mesh), str(folder))
    assert line or (found[0], found[2]) == (right[0], right[2]), "another model, and no word"

  try_all(
    st.tuples(st.sampled_from(["model.json", "weights.safetensors"]), several), check, 4 * often
  )


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

  def check(drawn):
    text, number, name, value = drawn
    if value is not ...:
      changed = [dict(line) for line in lines]
      changed[number][name] = value
      text = "".join(json.dumps(line) + "\n" for line in changed)
    batch.write_text(text, encoding="utf-8", errors="surrogatepass")
    found, line = refusal(lambda: list(plan_jobs({}, batch, stemgen.plan)), "batch.jsonl")
    if line is None:
      assert all(planned.job.request.context.shape[1] for planned in found)
      for planned in found:
        make_folder(tmp_path / "out" / planned.name, "--out")
      shutil.rmtree(tmp_path / "out", ignore_errors=True)

  names = st.sampled_from(["name", *PARTS, *SETTINGS])
  value = st.one_of(values, values, st.just(...))
  try_all(st.tuples(texts(whole), st.integers(0, 3), names, value), check, 40 * often)


@often
def test_metadata_of_corpora(tmp_path, often):
  slakh, moises = tmp_path / "slakh", tmp_path / "moisesdb"
  for i in range(2):
    write_song(slakh, "train", f"Track{i:05d}", seconds=0.2)
  about = {"genre": "pop", "stems": [
    {"stemName": "bass", "tracks": [{"id": "a", "trackType": "bass guitar", "extension": "wav"}]},
    {"stemName": "drums", "tracks": [{"id": "b", "trackType": "full-acoustic drumkit"}]},
  ]}  # fmt: skip
  for song in ("one", "two"):
    for stem, name in (("bass", "a"), ("drums", "b")):
      (moises / song / stem).mkdir(parents=True)
      soundfile.write(moises / song / stem / f"{name}.wav", sing(0.2, 0), RATE_HZ)
    (moises / song / "data.json").write_text(json.dumps(about))
  metadata = slakh / "train/Track00000/metadata.yaml"
  text = metadata.read_text()
  table = (ROOT / "data_prep/corpora/categories.yaml").read_text()
  places = sorted(places_of(about), key=str)

  def check(drawn):
    kind, other, own_table, place, value = drawn
    encoding = {"encoding": "utf-8", "errors": "surrogatepass"}
    categories = None
    if kind == "slakh":
      metadata.write_text(other, **encoding)
    elif kind == "moisesdb":
      content = json.dumps(put(about, place, value)) if value is not ... else other
      (moises / "one/data.json").write_text(content, **encoding)
    else:
      categories = tmp_path / "categories.yaml"
      categories.write_text(own_table, **encoding)
    root = moises if kind == "moisesdb" else slakh

    def look():
      corpus = open_corpus(root.name, root, categories)
      return corpus, corpus.tracks()

    found, line = refusal(look, str(root), "categories.yaml")
    if line is None:
      corpus, tracks = found
      told = " ".join(f"{problem.where} {problem.what}" for problem in corpus.problems)
      assert len(tracks) == 2 or "Track00000" in told or "one" in told

  drawn = st.tuples(
    st.sampled_from(["slakh", "moisesdb", "categories"]),
    texts(text), texts(table), st.sampled_from(places), st.one_of(values, st.just(...)),
  )  # fmt: skip
  try_all(drawn, check, 25 * often)


@pytest.mark.slow
def test_commands_as_they_are_typed(sounds, tmp_path):
  """Each in a process of its own: what Python itself prints is seen too."""

  def check(drawn):
    name, what = drawn
    song = tmp_path / "songs/one"
    song.mkdir(parents=True, exist_ok=True)
    for path in song.iterdir():
      path.unlink()
    (song / f"piano{Path(name).suffix}").write_bytes(sounds[name])
    mangled = song / f"bass{Path(name).suffix}"
    mangled.write_bytes(mangle(sounds[name], what))
    words = {
      "stemgen_jax.codec": [mangled, "--out", tmp_path / "heard.wav"],
      "data_prep.inspect": [tmp_path / "songs"],
    }
    for module, rest in words.items():
      done = subprocess.run(
        [sys.executable, "-m", module, *map(str, rest)],
        cwd=ROOT, capture_output=True, text=True, check=False,
      )  # fmt: skip
      assert done.returncode in (0, 2, 3), done.stderr
      assert "Traceback" not in done.stderr
      if done.returncode:
        assert mangled.name in done.stderr + done.stdout
    assert not list(tmp_path.rglob("*.partial*"))

  try_all(st.tuples(st.sampled_from(sorted(SOUNDS)), several), check, 5)


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
