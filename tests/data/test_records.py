# SPDX-License-Identifier: Apache-2.0
"""Token shards: what is written is read back, by us and by TFDS, and damage is named."""

import copy
import dataclasses
import json
import pickle
import resource
import subprocess
import sys

import numpy as np
import pytest

from stemgen_jax.data import records, shards
from stemgen_jax.data.clips import Clip, Metadata, deserialize_row, join_rows, serialize_row
from stemgen_jax.errors import UserError, run_cli
from stemgen_jax.shell.folders import appearing

METADATA = Metadata(
  codec_fingerprint="f" * 64,
  n_levels=4,
  n_codes=64,
  frame_rate_hz=25.0,
  sample_rate_hz=16000,
  channels=1,
  sources={"instrument": ("drums", "bass"), "genre": ("rock",)},
  level_frames=10,
  clip_s=60.0,
)


def make_clip(song="a", clip=0, stems=3, mixes=4, frames=45, seed=0) -> Clip:
  rng = np.random.default_rng(seed)
  return Clip(
    song=song,
    clip=clip,
    start_frame=clip * frames,
    stem_codes=rng.integers(0, 64, (stems, frames, 4)).astype(np.uint16),
    stem_conditions=np.tile(np.array([1, -1], np.int32), (stems, 1)),
    stem_level_db=rng.uniform(-60, -10, (stems, -(-frames // 10))).astype(np.float16),
    mix_codes=rng.integers(0, 64, (mixes, frames, 4)).astype(np.uint16),
    mix_gain_db=np.where(rng.random((mixes, stems)) < 0.5, -1.5, -np.inf).astype(np.float16),
    mix_lufs=np.linspace(-20, -14, mixes).astype(np.float16),
  )


def spoil(clip: Clip, **change) -> Clip:
  """A changed copy, past the shape checks that tests put on the constructor."""
  clip = copy.copy(clip)
  vars(clip).update(change)
  return clip


def assert_same(a: Clip, b: Clip):
  for field in dataclasses.fields(Clip):
    x, y = getattr(a, field.name), getattr(b, field.name)
    assert type(x) is type(y)
    assert np.array_equal(x, y)
    if isinstance(x, np.ndarray):
      assert x.dtype == y.dtype


SHARD = "tiny-train.array_record-00001-of-00002"
CLIPS = [make_clip(song, clip, seed=clip) for song in "abé" for clip in range(2)]


@pytest.fixture
def dataset_dir(tmp_path):
  return records.write_dataset(
    tmp_path, "tiny", METADATA, {"train": [CLIPS[:3], iter(CLIPS[3:5])], "test": [CLIPS[5:]]}
  )


def test_written_is_read(dataset_dir, tmp_path):
  assert dataset_dir == tmp_path / "tiny" / "3.0.0"
  for path in (dataset_dir, dataset_dir.parent, tmp_path):
    dataset = records.Dataset.open(path)
    assert dataset.path == dataset_dir
    assert dataset.metadata == METADATA
  source = dataset.source("train")
  assert len(source) == 5
  assert source.songs == ("a", "a", "b", "b", "é")
  assert source.frames.tolist() == [45] * 5
  assert source.stems.tolist() == [3] * 5
  assert source.mixes.tolist() == [4] * 5
  assert source.target_db.tolist() == [-120] * 5  # no stem of which all conditions are known
  for i in (4, 0, 2, 3, 1):
    assert_same(source[i], CLIPS[i])
  assert_same(pickle.loads(pickle.dumps(source))[-1], CLIPS[4])
  assert [clip.song for clip in source] == list("aabbé")
  dataset.verify()


def test_one_record_a_chunk(dataset_dir):
  from array_record.python.array_record_module import ArrayRecordReader

  reader = ArrayRecordReader(str(dataset_dir / SHARD))
  assert "group_size:1," in reader.writer_options_string()  # else each read unpacks its neighbours
  reader.close()


def test_tfds_opens_it(dataset_dir):
  import tensorflow_datasets as tfds

  data = tfds.builder_from_directory(str(dataset_dir)).as_data_source()
  assert {split: len(source) for split, source in data.items()} == {"train": 35, "test": 7}
  for row, codes in enumerate((*CLIPS[3].stem_codes, *CLIPS[3].mix_codes)):
    record = data["train"][3 * 7 + row]
    assert record["song"].decode() == "b"
    assert (record["clip"], record["row"], record["start_frame"]) == (1, row, 45)
    assert np.array_equal(record["codes"], codes)
    for field in ("stem_conditions", "stem_level_db", "mix_gain_db"):
      assert np.array_equal(record[field], getattr(CLIPS[3], field))
      assert record[field].dtype == getattr(CLIPS[3], field).dtype


def test_no_tensorflow():
  code = "import sys, stemgen_jax.data.records; sys.exit('tensorflow' in sys.modules)"
  assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 3), (7, 3, 61)])
def test_small_and_odd_shapes(shape, tmp_path):
  stems, mixes, frames = shape
  clip = make_clip(stems=stems, mixes=mixes, frames=frames)
  rows = [deserialize_row(serialize_row(row, METADATA), METADATA) for row in clip.rows()]
  assert_same(join_rows(rows), clip)
  import tensorflow_datasets as tfds

  folder = records.write_dataset(tmp_path, "tiny", METADATA, {"train": [[clip]]})
  source = tfds.builder_from_directory(str(folder)).as_data_source("train")
  assert np.array_equal(source[0]["codes"], clip.stem_codes[0])
  assert np.array_equal(source[0]["mix_gain_db"], clip.mix_gain_db)


def test_rows_out_of_order_are_refused():
  rows = list(CLIPS[0].rows())
  for wrong in (
    rows[:-1],
    [rows[1], rows[0], *rows[2:]],
    [*rows[:-1], *list(CLIPS[2].rows())[-1:]],
  ):
    with pytest.raises(UserError, match=r"must have its 7 rows in order.*song 'a'"):
      join_rows(wrong)


def test_a_row_costs_its_own_bytes_alone(dataset_dir):
  clip = CLIPS[0]
  sizes = [len(serialize_row(row, METADATA)) for row in clip.rows()]
  assert max(sizes) < clip.stem_codes[0].nbytes + 400


def test_what_may_be_a_target():
  clip = make_clip()
  assert not clip.targets.any()
  clip.stem_conditions[1] = (0, 0)
  clip.stem_level_db[:] = -50
  clip.stem_level_db[0, 0], clip.stem_level_db[1, 2] = -10, -20
  assert clip.targets.tolist() == [False, True, False]
  assert clip.target_db == -20


def test_same_bytes_in_another_process():
  code = (
    "import hashlib, sys; sys.path.insert(0, 'tests/data')\n"
    "from test_records import *\n"
    "row = next(make_clip().rows())\n"
    "print(hashlib.sha256(serialize_row(row, METADATA)).hexdigest())"
  )
  runs = {subprocess.check_output([sys.executable, "-c", code]) for _ in range(3)}
  assert len(runs) == 1


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"stem_codes": CLIPS[0].stem_codes.astype(np.int32)}, "stem_codes of clip 0 of song 'a' must"),
    ({"mix_codes": CLIPS[0].mix_codes[:, :9]}, "mix_codes .* must be uint16"),
    ({"mix_codes": CLIPS[0].mix_codes + np.uint16(60)}, "mix_codes .* below 64"),
    ({"stem_level_db": CLIPS[0].stem_level_db[:, 1:]}, "stem_level_db"),
    ({"stem_conditions": np.full((3, 2), 2, np.int32)}, r"must index \['instrument', 'genre'\]"),
    ({"mix_codes": CLIPS[0].mix_codes[:0], "mix_gain_db": CLIPS[0].mix_gain_db[:0]}, "and a mix"),
    ({"mix_gain_db": CLIPS[0].mix_gain_db * np.float16(np.nan)}, "mix_gain_db .* must be dB"),
    ({"stem_level_db": CLIPS[0].stem_level_db - np.float16(200)}, "at least -120"),
  ],
)
def test_wrong_clip_is_refused(change, message, tmp_path):
  with pytest.raises(UserError, match=message):
    shards.write_shard(tmp_path / "a", [spoil(CLIPS[0], **change)], METADATA)


@pytest.fixture
def small_disk():
  """No file grows beyond 4 kB: what a full disk is to one that writes."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))
  yield
  resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_names_the_file(tmp_path, small_disk, capsys):
  def fill(path):
    with appearing(path) as partial:
      partial.write_bytes(bytes(100_000))

  def fill_shard(path):
    with appearing(path) as partial:
      shards.write_shard(partial, [make_clip(frames=4000)], METADATA)

  for write, name in ((fill, "weights"), (fill_shard, "part.array_record")):
    assert run_cli(lambda write=write, name=name: write(tmp_path / name)) == 2
    said = capsys.readouterr().err
    assert f"the disk must have room for {tmp_path / name}; got File too large. Free" in said
  assert not list(tmp_path.iterdir())


def test_failed_write_leaves_no_dataset(tmp_path):
  bad = spoil(CLIPS[0], mix_codes=CLIPS[0].mix_codes[:, :9])
  with pytest.raises(UserError):
    records.write_dataset(tmp_path, "tiny", METADATA, {"train": [[CLIPS[1], bad]]})
  with pytest.raises(UserError, match="must hold one dataset"):
    records.Dataset.open(tmp_path)
  records.write_dataset(tmp_path, "tiny", METADATA, {"train": [[CLIPS[1]]]})
  assert len(records.Dataset.open(tmp_path).source("train")) == 1


def test_existing_dataset_and_bad_name_are_refused(dataset_dir, tmp_path):
  with pytest.raises(UserError, match="must be new"):
    records.write_dataset(tmp_path, "tiny", METADATA, {"train": [CLIPS]})
  with pytest.raises(UserError, match="name must match"):
    records.write_dataset(tmp_path, "Big Data", METADATA, {"train": [CLIPS]})
  records.write_dataset(tmp_path, "other", METADATA, {"train": [CLIPS]})
  with pytest.raises(UserError, match=r"must hold one dataset.*with 2"):
    records.Dataset.open(tmp_path)


def test_truncated_shard_is_named(dataset_dir):
  path = dataset_dir / SHARD
  path.write_bytes(path.read_bytes()[:-100])
  with pytest.raises(UserError, match=f"{SHARD}.*bytes"):
    records.Dataset.open(dataset_dir)


def test_missing_shard_is_named(dataset_dir):
  (dataset_dir / SHARD).unlink()
  with pytest.raises(UserError, match=f"{SHARD}.*missing"):
    records.Dataset.open(dataset_dir)


def test_damaged_shard_is_named(dataset_dir):
  path = dataset_dir / SHARD
  data = bytearray(path.read_bytes())
  data[300] ^= 0x55
  path.write_bytes(data)
  dataset = records.Dataset.open(dataset_dir)
  assert_same(dataset.source("train")[0], CLIPS[0])
  with pytest.raises(UserError, match=f"{SHARD}.*cannot be read"):
    dataset.source("train")[3]
  with pytest.raises(UserError, match=f"{SHARD}.*SHA-256"):
    dataset.verify()


def test_truncated_shard_of_the_right_size_is_named(dataset_dir):
  path = dataset_dir / SHARD  # ArrayRecord alone answers such a file with empty records
  path.write_bytes(path.read_bytes()[:1000].ljust(path.stat().st_size, b"\0"))
  with pytest.raises(UserError, match=SHARD):
    records.Dataset.open(dataset_dir).source("train")[3]


def test_swapped_shards_are_named(dataset_dir):
  first = dataset_dir / SHARD.replace("00001-of", "00000-of")
  (dataset_dir / SHARD).write_bytes(first.read_bytes())
  with pytest.raises(UserError, match=f"{SHARD}.*not the one"):
    records.Dataset.open(dataset_dir).source("train")[3]


def test_unknown_split(dataset_dir):
  with pytest.raises(UserError, match=r"split must be one of train, test; got split='valid'"):
    records.Dataset.open(dataset_dir).source("valid")


@pytest.mark.parametrize(
  ("edit", "message"),
  [
    (lambda c: c | {"schema_version": 9}, "schema version 3; got 9"),
    (lambda c: {k: v for k, v in c.items() if k != "n_codes"}, "must be whole"),
    (lambda c: c | {"splits": {"train": [{}]}}, "must be whole"),
    (lambda c: {}, "must be whole"),
    (lambda c: [], "must be whole"),
  ],
)
def test_foreign_metadata(dataset_dir, edit, message):
  path = dataset_dir / "stemgen.json"
  path.write_text(json.dumps(edit(json.loads(path.read_text()))))
  with pytest.raises(UserError, match=message) as error:
    records.Dataset.open(dataset_dir)
  assert str(path) in str(error.value)


def test_metadata_cut_short(dataset_dir):
  path = dataset_dir / "stemgen.json"
  path.write_text(path.read_text()[:100])
  with pytest.raises(UserError, match="must be whole"):
    records.Dataset.open(dataset_dir)


def test_missing_folder(tmp_path):
  with pytest.raises(UserError, match=r"must hold one dataset.*none"):
    records.Dataset.open(tmp_path / "nowhere")
