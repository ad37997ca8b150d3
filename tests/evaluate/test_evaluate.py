# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json
import math

import numpy as np
import pytest

from stemgen_jax.bench import random_shards
from stemgen_jax.errors import UserError, run_cli
from stemgen_jax.evaluate import __main__ as evaluate
from stemgen_jax.evaluate import classifier, examples, floors, measures
from stemgen_jax.evaluate.distributions import find_telling, measure_adherence, measure_quality
from stemgen_jax.evaluate.listening_test import opinions
from stemgen_jax.evaluate.metrics.category import train_classifier
from stemgen_jax.sampling.stemgen import StemGen

RATE_HZ = 16_000


@pytest.fixture
def run(stemgen, tmp_path, monkeypatch):
  """A function that runs the command on random codes and returns its report."""
  like_the_demo = dataclasses.replace(
    random_shards.METADATA, n_codes=1024, codec_fingerprint=stemgen.codec.fingerprint
  )
  monkeypatch.setattr(random_shards, "METADATA", like_the_demo)
  data = random_shards.write_random(tmp_path, 8, song_s=3.0, stems=3, mixes=3)
  monkeypatch.setattr(StemGen, "from_checkpoint", lambda *_: stemgen)
  monkeypatch.setattr(evaluate, "TRAINING_WINDOWS", 4)
  for module in (classifier, examples):  # one batch size compiles, not two
    monkeypatch.setattr(module, "AT_ONCE", 4)

  def call(out="report", **changes):
    flags = {
      "data": data,
      "split": "train",
      "examples": 4,
      "out": tmp_path / out,
    } | changes
    evaluate.main([word for key, value in flags.items() for word in (f"--{key}", str(value))])
    return json.loads((tmp_path / out / "report.json").read_text())

  return call


def test_report_resumes_and_repeats(run, tmp_path, monkeypatch, capsys):
  first = run()
  names = [row["name"] for row in first["metrics"]]
  assert names == [metric.name for metric in measures.METRICS]
  assert len(first["gain"]) == 4
  assert {row["set"] for row in first["distances"]["encodec"]["rows"]} == set(examples.SETS)
  page = (tmp_path / "report/index.html").read_text()
  for file in ("context", "true", "model", "other", "shifted"):
    assert f'src="examples/0000/{file}.wav"' in page
    assert (tmp_path / f"report/examples/0002/{file}.wav").is_file()
  listed = json.loads((tmp_path / "report/examples.json").read_text())
  assert set(listed[0]["sets"]) == set(examples.SETS)

  (tmp_path / "report/examples/0002/codes.npz").unlink()  # as if stopped there
  lines = (tmp_path / "report/measures.jsonl").read_text().splitlines()
  of_old = lines[1].replace('"fit"', '"MIRDD"')
  (tmp_path / "report/measures.jsonl").write_text(f"{lines[0]}\n{of_old}\n")
  (tmp_path / "report/distances_encodec.json").unlink()
  measured = []
  measure = measures.measure
  monkeypatch.setattr(
    measures, "measure", lambda m, e, c: measured.append(e.id) or measure(m, e, c)
  )
  assert run() == first
  assert measured == ["0001", "0002", "0003"]
  capsys.readouterr()
  assert run_cli(lambda: run(seed=5)) == 2
  assert "made with other seed" in capsys.readouterr().err
  for count in (0, 1):
    assert run_cli(lambda count=count: run(examples=count)) == 2
    assert f"at least 2; got {count}" in capsys.readouterr().err
  assert run_cli(lambda: run(out="new", split="dev")) == 2
  assert "dev" in capsys.readouterr().err
  assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["plan.json"]
  assert run_cli(lambda: run(out="new", seed=-1)) == 2
  assert "seed must lie in [0, 2^32); got -1" in capsys.readouterr().err
  assert run_cli(lambda: run(out="new", cocola="a.onnx")) == 2
  assert "MODEL.onnx,MATRIX" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other"])
def test_damaged_codes_are_one_line_that_says_what_to_remove(tmp_path, capsys, damage):
  codes = {name: np.arange(4000, dtype=np.uint16).reshape(-1, 4) for name in examples.CODED}
  example = examples.Example("0000", "a", "bass", (0,), tmp_path)
  path = tmp_path / "codes.npz"
  np.savez_compressed(path, **codes)
  assert {name: found.shape for name, found in example.codes().items()} == dict.fromkeys(
    examples.CODED, (1000, 4)
  )
  content = bytearray(path.read_bytes())
  if damage == "cut":
    content = content[: len(content) // 2]
  elif damage == "flipped":
    content[100] ^= 255
  elif damage == "empty":
    content = b""
  path.write_bytes(content)
  if damage == "other":
    np.savez(path, context=np.zeros(3))
  assert run_cli(lambda: example.codes() and None) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith(f"error: {path} must hold the codes of a window")
  assert line.endswith("Remove it, and the same command makes it anew.")


def test_the_papers_protocol_compares_populations(run, tmp_path, capsys):
  results = run("paper", protocol="paper", examples=3)
  found = results["protocol"]
  assert results["n"] == 3
  assert set(found["mirdd"]) == {"model", "other"}
  for figures in found["mirdd"].values():
    assert figures["MIRDD"]["mean"] >= 0
    assert set(figures) == set(found["floor"])
  assert found["fad"]["encodec"]["model"]["mean"] > 0
  assert set(found["beat_f"]) == {"true", "model", "other"}
  table = capsys.readouterr().out
  assert "| MIRDD ↓ |" in table
  assert "beats a bar" in table
  lines = (tmp_path / "paper/mixes.jsonl").read_text().splitlines()
  assert len(lines) == 3
  (tmp_path / "paper/mixes.jsonl").write_text("\n".join(lines[:2]) + "\n")
  assert run("paper", protocol="paper", examples=3) == results


def test_floors_are_what_they_say():
  rows = {"song": np.array(["a", "a", "b"]), "conditions": np.array([[0], [0], [1]])}
  pool = {
    "song": np.array(["a", "b", "b", "c"]),
    "conditions": np.array([[0], [1], [0], [0]]),
    "target": np.arange(4)[:, None, None],
  }
  assert floors.find_others(rows, pool).ravel().tolist() == [2, 3, 0]  # no other song has 1
  codes = np.stack([np.full((50, 3), 1), np.full((50, 3), 2)]) * [1, 10, 100]
  chance = floors.draw_chance(codes, (4, 60, 3), np.random.default_rng(0))
  assert chance.shape == (4, 60, 3)
  for level, scale in enumerate((1, 10, 100)):
    assert set(np.unique(chance[..., level])) == {scale, 2 * scale}

  clicks = np.zeros((1, 8 * RATE_HZ), np.float32)
  clicks[:, :: RATE_HZ // 2] = 1.0  # 120 a minute
  shifted = floors.shift_half_beat(clicks, np.zeros_like(clicks), RATE_HZ)
  turned = np.flatnonzero(shifted[0]) % (RATE_HZ // 2)
  np.testing.assert_allclose(turned, RATE_HZ // 4, atol=0.03 * RATE_HZ)
  silence = np.zeros((1, RATE_HZ), np.float32)
  assert not floors.shift_half_beat(silence, silence, RATE_HZ).any()


def record(song, true, floor, model):
  names = [metric.name for metric in measures.METRICS]
  sets = {"true": true, "other": floor, "shifted": floor, "chance": floor, "model": model}
  return {
    "id": "0",
    "song": song,
    "category": "bass",
    "sets": {name: dict.fromkeys(names, value) for name, value in sets.items()},
    "gain": [0.5, 0.25],
  }


def test_a_metric_tells_only_where_floor_and_ceiling_part():
  records = [record(str(i), 0.2, 0.6, 0.3) for i in range(6)] + [record("6", None, 0.6, None)]
  rows = {row["name"]: row for row in measures.summarise(records)}
  assert rows["fit"]["tells"]  # smaller is better, and true stems have less
  assert not rows["beat_f"]["tells"]  # larger would be better
  assert rows["fit"]["way"] == {
    "mean": pytest.approx(0.75),
    "low": pytest.approx(0.75),
    "high": pytest.approx(0.75),
    "n": 6,
  }
  assert rows["fit"]["sets"]["other"]["n"] == 7
  assert rows["fit"]["separation"]["mean"] == pytest.approx(0.4)
  mixed = [record(str(i), 0.2 + 0.4 * (i % 2), 0.4, 0.3) for i in range(8)]
  assert not {row["name"]: row for row in measures.summarise(mixed)}["fit"]["tells"]
  assert measures.summarise_gain(records)[0]["mean"] == 0.5


def test_distances_to_real_music_order_the_sets():
  rng = np.random.default_rng(0)
  near = [rng.normal(size=(5, 4)) for _ in range(12)]
  far = [rng.normal(2.0, 1.0, size=(5, 4)) for _ in range(12)]
  songs = np.array([str(i // 2) for i in range(12)])
  sets = {"true": near, "model": far, "other": far, "shifted": near, "chance": far}
  rows = {r["set"]: r for r in measure_quality(sets, rng.normal(size=(300, 4)), songs)}
  assert rows["true"]["FAD"]["mean"] < 1 < rows["model"]["FAD"]["mean"]
  for row in rows.values():
    for figure in (row["FAD"], row["KAD"]):
      assert figure["low"] < figure["mean"] < figure["high"]
  assert rows["true"]["KAD"]["mean"] < rows["model"]["KAD"]["mean"]
  found = measure_adherence(sets, songs)
  adherence = {r["set"]: r["APA"]["mean"] for r in found}
  assert adherence["true"] > 0.8
  assert adherence["model"] < 0.2
  both = [{**rows[row["set"]], **row} for row in found]
  assert find_telling(both) == {"FAD": True, "KAD": True, "APA": True}
  upside_down = [
    {**row, "set": {"true": "chance", "chance": "true"}.get(row["set"], row["set"])} for row in both
  ]
  assert not find_telling(upside_down)["FAD"]


def test_without_data_the_songs_of_the_package_are_judged(stemgen, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)  # where the model's own data are not
  dataset = evaluate.open_data(None, stemgen)
  assert {split: len(dataset.source(split).songs) for split in dataset.shards} == {
    "train": 10, "test": 10
  }  # fmt: skip
  other = dataclasses.replace(stemgen.codec, fingerprint="0" * 64)
  monkeypatch.setattr(stemgen, "codec", other)
  with pytest.raises(UserError, match="--data must be given"):
    evaluate.open_data(None, stemgen)


def test_adherence_needs_two_songs_in_halves():
  parts = [np.ones((1, 4)), np.zeros((3, 4))]
  found = measure_adherence({"true": parts, "other": parts}, np.array(["a", "b"]))
  assert [row["APA"]["mean"] for row in found] == [None, None]


def test_few_songs_are_not_judged():
  records = [record(str(i), 0.2, 0.6, 0.3) for i in range(4)]
  (row, *_) = measures.summarise(records)
  assert row["few"]
  assert not row["tells"]
  assert row["way"]["mean"] is None


def test_the_classifier_tells_categories_apart():
  rng = np.random.default_rng(0)
  labels = ["bass", "drums"] * 20
  features = rng.normal(size=(40, 6)) + 3.0 * (np.array(labels) == "bass")[:, None]
  classifier = train_classifier(features, labels)
  assert (classifier.predict(features) == labels).mean() > 0.9


def test_listen_prints_what_was_rated(tmp_path, capsys):
  words = ["listen", str(tmp_path), "--results"]
  assert run_cli(lambda: evaluate.main(words)) == 2
  assert "REPORT must hold ratings" in capsys.readouterr().err
  for rater, true, model in (("anna", 5, 2), ("ben", 4, 1)):
    opinions.add_rating(tmp_path, rater, "0000", "song", "true", true)
    opinions.add_rating(tmp_path, rater, "0000", "song", "model", model)
  assert run_cli(lambda: evaluate.main(words)) == 0
  rows = capsys.readouterr().out.splitlines()[2:]
  assert [row.split("|")[1:3] for row in rows] == [
    [" the song's own stem ", " 4.50 "],
    [" the model's ", " 1.50 "],
  ]


def test_stems_without_pitch_count_where_the_true_one_has_it():
  high, none = {"harmony": 0.7}, {"harmony": math.nan}
  assert measures.find_pitched(high, high) == 1.0
  assert measures.find_pitched(none, high) == 0.0
  assert math.isnan(measures.find_pitched(high, none))
