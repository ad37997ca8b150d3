# SPDX-License-Identifier: Apache-2.0
"""Verification: what is wrong with a dataset is named, whatever it is, and by training too."""

import json

import numpy as np
import pytest
from small_corpus import run

from data_prep import inspect
from data_prep.checks.shards import inspect_dataset
from stemgen_jax.bench.random_shards import METADATA
from stemgen_jax.codec.bundle import DEMO_BUNDLE
from stemgen_jax.config import DataConfig
from stemgen_jax.data import records
from stemgen_jax.data.clips import Clip
from stemgen_jax.data.loader import make_loader
from stemgen_jax.errors import UserError

FRAMES, STEMS = 300, 3
MEMBERS = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 1], [1, 0, 1]], bool)


def make_clip(seed, song, clip=0, **change):
  """A clip without a fault, and other codes for each seed."""
  rng = np.random.default_rng(seed)
  stems = rng.integers(1, METADATA.n_codes, (STEMS, FRAMES, 4), np.uint16)
  mixes = rng.integers(1, METADATA.n_codes, (len(MEMBERS), FRAMES, 4), np.uint16)
  mixes[0], mixes[1] = 0, stems[0]
  fields = {
    "song": song,
    "clip": clip,
    "start_frame": clip * FRAMES,
    "stem_codes": stems,
    "stem_conditions": np.arange(STEMS, dtype=np.int32)[:, None],
    "stem_level_db": np.full((STEMS, FRAMES // METADATA.level_frames), -20, np.float16),
    "mix_codes": mixes,
    "mix_gain_db": np.where(MEMBERS, 0, -np.inf).astype(np.float16),
    "mix_lufs": np.where(MEMBERS.any(1), -16, -np.inf).astype(np.float16),
  }
  return Clip(**fields | change)


def write(root, train, test=(), name="made"):
  splits = {"train": [train[:2], train[2:]] if len(train) > 2 else [train]}
  return records.write_dataset(root, name, METADATA, splits | ({"test": [test]} if test else {}))


def look(path, **options):
  """Returns the exit code and the report."""
  out = path.parent / "report.json"
  code = inspect_dataset(path, json_path=out, page=path.parent / "page.html", **options)
  return code, json.loads(out.read_text())


GOOD = [make_clip(i, f"song {i // 2}", i % 2) for i in range(6)]


def test_a_good_dataset(tmp_path, capsys):
  path = write(tmp_path, GOOD, [make_clip(9, "other")])
  code, report = look(path)
  assert code == 0
  assert report["problems"] == report["leaks"] == report["damage"] == []
  assert report["splits"]["train"] == {"songs": 3, "clips": 6, "hours": 0.01, "stems": 18}
  assert report["category_hours"]["drums"] == {
    "train": pytest.approx(0.01),
    "test": pytest.approx(1 / 600),
  }
  assert report["mix_sizes"] == {"0": 7, "1": 7, "2": 14}
  assert sum(report["levels"]["bass"]) == 7 * FRAMES / METADATA.level_frames
  assert report["activity"]["bass"] == [0] * 9 + [7]
  assert [row["used"] > 0.9 for row in report["code_use"]] == [True] * 4
  assert sum(report["code_counts"][0]) == 7 * STEMS * FRAMES
  page = (tmp_path / "made" / "page.html").read_text()
  assert "nothing was found to be wrong" in page
  assert page.count("data:image/png") == 5
  assert "drums" in capsys.readouterr().out


def test_every_flipped_byte_is_found(tmp_path):
  path = write(tmp_path, GOOD)
  shard = path / "made-train.array_record-00001-of-00002"
  whole = shard.read_bytes()
  for place in np.random.default_rng(0).integers(0, len(whole), 12):
    spoilt = bytearray(whole)
    spoilt[place] ^= 0x10
    shard.write_bytes(spoilt)
    with pytest.raises(UserError, match=rf"got 1 damaged of 2 .*: {shard.name}"):
      look(path)


@pytest.mark.parametrize("place", [0.05, 0.2, 0.4])
def test_training_names_a_damaged_shard_too(tmp_path, place):
  path = write(tmp_path, GOOD)
  shard = path / "made-train.array_record-00001-of-00002"
  spoilt = bytearray(shard.read_bytes())
  spoilt[int(place * len(spoilt))] ^= 0x10
  shard.write_bytes(spoilt)
  loader = make_loader(
    records.Dataset.open(path),
    "train",
    DataConfig(crop_frames=FRAMES, batch_size=8),
    seed=0,
    num_epochs=50,
  )
  with pytest.raises(UserError, match=shard.name):
    list(loader)


def test_all_damaged_shards_are_listed(tmp_path, capsys):
  path = write(tmp_path, GOOD, [make_clip(9, "other")])
  cut, gone = (path / f"made-train.array_record-0000{i}-of-00002" for i in range(2))
  cut.write_bytes(cut.read_bytes()[:-100])
  gone.unlink()
  with pytest.raises(UserError, match=rf"got 2 damaged of 3 .*: {cut.name}, {gone.name}"):
    look(path)
  said = capsys.readouterr().out
  assert f"{cut.name}: " in said
  assert "were written" in said
  assert f"{gone.name}: the file is missing" in said
  assert "2 of 3 shards are damaged" in (tmp_path / "made" / "page.html").read_text()
  with pytest.raises(UserError, match=cut.name):
    records.Dataset.open(path)  # as training opens it


def test_a_manifest_that_lists_other_clips(tmp_path):
  path = write(tmp_path, GOOD)
  text = (path / "stemgen.json").read_text()
  text = text.replace("content_sha256", "of_what_it_was").replace('"song 2"', '"song 7"')
  (path / "stemgen.json").write_text(text)
  with pytest.raises(UserError, match="got 1 damaged of 2"):
    look(path)


def test_other_schema_or_codec(tmp_path):
  path = write(tmp_path, GOOD)
  with pytest.raises(UserError, match=r"codec must be the one that made the shards; got .*demo_bu"):
    look(path, codec=DEMO_BUNDLE)
  text = (path / "stemgen.json").read_text()
  (path / "stemgen.json").write_text(text.replace('"schema_version": 3', '"schema_version": 1'))
  with pytest.raises(UserError, match="schema version 3; got 1"):
    look(path)


def changed(field, row, value):
  array = getattr(GOOD[4], field).copy()
  array[row] = value
  return {field: array}


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (changed("mix_gain_db", 3, GOOD[4].mix_gain_db[2]), "two mixes sum the same stems"),
    (changed("mix_gain_db", 0, 0.0), "no mix is silence"),
    (changed("mix_gain_db", (slice(1, None), 2), 0.0), "every mix that sounds holds stem 2"),
    (changed("mix_gain_db", (2, 1), -70.0), "gains from -70 to 0 dB"),
    (changed("mix_codes", 1, 5), "mix 1 is one stem, but its codes are not the stem's"),
    (changed("mix_codes", 0, 5), "mix 0 is silence, but its codes differ"),
    (changed("stem_level_db", (1, 2), 30.0), "a cell of 30 dB above full scale"),
    (changed("stem_level_db", 2, -100.0), "stem 2 is below -80 dB throughout"),
    (changed("stem_level_db", slice(None), -70.0), "no stem of known conditions reaches -50 dB"),
    (changed("stem_conditions", slice(None), -1), "no stem of any known condition reaches"),
    ({"start_frame": 5, "clip": 1}, "clips: numbered [1, 1], from frames [5, 300]"),
    (changed("stem_codes", slice(None), 7), "the commonest at 17%"),
  ],
)
def test_faults_of_a_clip_are_named(tmp_path, change, message):
  spoilt = make_clip(4, "song 2", **change)
  code, report = look(write(tmp_path, [*GOOD[:4], spoilt, GOOD[5]]))
  assert code == 0
  if "commonest" in message:  # one clip of six is no collapse yet
    assert report["code_use"][0]["commonest"] == pytest.approx(1 / 6, abs=0.01)
    return
  assert any(message in problem["what"] for problem in report["problems"]), report["problems"]


def test_a_collapsed_codebook(tmp_path):
  clip = make_clip(0, "song")
  clip.stem_codes[..., 2] = 5
  clip.mix_codes[1] = clip.stem_codes[0]
  _, report = look(write(tmp_path, [clip]))
  (problem,) = report["problems"]
  assert problem["where"] == "level 3"
  assert "the commonest at 100%" in problem["what"]


def test_a_song_of_two_splits(tmp_path):
  path = write(tmp_path, GOOD, [make_clip(9, "song 1")])
  code, report = look(path)
  assert code == 3
  assert report["leaks"] == [
    {"where": "song 1", "what": "leak: a song of this name is in train and test"}
  ]


def test_a_song_under_another_name(tmp_path):
  leaked = make_clip(2, "hidden")
  code, report = look(write(tmp_path, GOOD, [leaked, make_clip(9, "other")]))
  assert code == 3
  assert report["leaks"] == [
    {"where": "train/song 1", "what": "leak: shares 100% of its rare codes with test/hidden"}
  ]


def test_the_command(corpus, tmp_path, capsys):
  directory = run(corpus, tmp_path)
  assert inspect.main([str(tmp_path), "--json", str(tmp_path / "a.json")]) == 0
  assert (directory.parent / "inspect.html").is_file()
  assert "commonest" in capsys.readouterr().out


def test_a_report_is_never_written_over_what_is_inspected(tmp_path, corpus):
  dataset = records.Dataset.open(write(tmp_path, [make_clip(0, "a"), make_clip(1, "b")]))
  shard = next(dataset.path.glob("*.array_record*"))
  for flags in (["--page", shard], ["--json", dataset.path / "stemgen.json"]):
    before = {path: path.read_bytes() for path in dataset.path.iterdir()}
    with pytest.raises(UserError, match="must not be a file that this command writes"):
      inspect.main([str(dataset.path), *map(str, flags)])
    assert {path: path.read_bytes() for path in dataset.path.iterdir()} == before
  song = next(path for path in sorted(corpus.rglob("metadata.yaml")))
  table = tmp_path / "categories.yaml"
  table.write_text("words:\n  bass: [bass]\n")
  for written in (song, table):
    before = written.read_bytes()
    with pytest.raises(UserError, match="must not be a file that this command writes"):
      inspect.main([str(corpus), "--categories", str(table), "--json", str(written)])
    assert written.read_bytes() == before
