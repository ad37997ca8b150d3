# SPDX-License-Identifier: Apache-2.0
"""The pipeline: what an example may be, and that the stream is the same however it is read."""

import dataclasses
import logging
import types

import numpy as np
import pytest

from stemgen_jax.categories import ACTIVITY, ACTIVITY_VALUES
from stemgen_jax.config import DataConfig
from stemgen_jax.data import loader as data
from stemgen_jax.data import records
from stemgen_jax.data.clips import Clip, Metadata
from stemgen_jax.data.examples import choose_mix, choose_target, classify_activity, weigh_categories
from stemgen_jax.errors import UserError

STEMS, LEVELS, CROP, CELL = 4, 2, 20, 5
MEMBERS = np.array([[0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [1, 1, 0, 0]], bool)
METADATA = Metadata(
  codec_fingerprint="f" * 64,
  n_levels=LEVELS,
  n_codes=2**16 - 1,
  frame_rate_hz=10.0,
  sample_rate_hz=16000,
  channels=1,
  sources={"instrument": tuple("abcd")},
  level_frames=CELL,
  clip_s=60.0,
)


def make_clip(record: int, song: str, frames: int) -> Clip:
  """Codes tell where they are from: level 0 counts frames, level 1 is 100 record + row (+ 50)."""
  codes = np.zeros((STEMS + len(MEMBERS), frames, LEVELS), np.uint16)
  codes[..., 0] = np.arange(frames)
  codes[..., 1] = 100 * record + np.array([*range(STEMS), *range(50, 50 + len(MEMBERS))])[:, None]
  level_db = np.full((STEMS, -(-frames // CELL)), -20, np.float16)
  level_db[2] = -70  # stem 2 never sounds
  level_db[1, ::2] = -120  # stem 1 sounds in every other cell
  level_db[3, level_db.shape[1] // 2 :] = -80  # stem 3 rests in the second half
  return Clip(
    song=song,
    clip=0,
    start_frame=0,
    stem_codes=codes[:STEMS],
    stem_conditions=np.arange(STEMS, dtype=np.int32)[:, None],
    stem_level_db=level_db,
    mix_codes=codes[STEMS:],
    mix_gain_db=np.where(MEMBERS, 0, -np.inf).astype(np.float16),
    mix_lufs=np.where(MEMBERS.any(1), -16, -np.inf).astype(np.float16),
  )


FRAMES = [60, 20, 33, 47, 60, 25, 60, 19]  # the last is shorter than a crop
SONGS = ["a", "a", "b", "b", "c", "d", "e", "f"]
USABLE = len(FRAMES) - 1


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
  clips = [make_clip(i, song, n) for i, (song, n) in enumerate(zip(SONGS, FRAMES, strict=True))]
  root = tmp_path_factory.mktemp("data")
  records.write_dataset(root, "tiny", METADATA, {"train": [clips[:5], clips[5:]]})
  return records.Dataset.open(root)


def load(dataset, **options):
  own = {"crop_frames": CROP, "batch_size": 3}
  own |= {k: options.pop(k) for k in (*own, "silence_prob", "workers") if k in options}
  return data.make_loader(dataset, "train", DataConfig(**own), **{"seed": 1, **options})


def take(iterator, n):
  return [next(iterator) for _ in range(n)]


def assert_same(a: list[dict], b: list[dict]):
  assert len(a) == len(b)
  for x, y in zip(a, b, strict=True):
    assert x.keys() == y.keys()
    assert all(np.array_equal(x[k], y[k]) for k in x)


def join(batches):
  return {k: np.concatenate([b[k] for b in batches]) for k in batches[0]}


def test_examples(dataset):
  batches = take(load(dataset), 200)
  for name, shape in {"target": (3, CROP, LEVELS), "conditions": (3, 1), "clip": (3,)}.items():
    assert batches[0][name].shape == shape
    assert batches[0][name].dtype == np.int32
  examples = join(batches)
  assert examples["context"].shape == examples["target"].shape
  steps = np.diff(examples["target"][..., 0], axis=1)
  assert (steps == 1).all()  # a crop is in one piece, and its context is the same stretch
  assert np.array_equal(examples["target"][..., 0], examples["context"][..., 0])
  record, stem = np.divmod(examples["target"][:, 0, 1], 100)
  context_record, row = np.divmod(examples["context"][:, 0, 1], 100)
  row -= 50
  assert np.array_equal(record, examples["clip"])
  assert np.array_equal(record, context_record)
  assert np.array_equal(stem, examples["conditions"][:, 0])
  assert not MEMBERS[row, stem].any()  # the context never holds the target
  assert set(stem) == {0, 1, 3}  # stem 2 is below the gate
  assert set(zip(stem, row, strict=True)) == {(0, 0), (0, 2), (0, 3), (1, 0), (1, 1), (1, 3)} | {
    (3, 0),
    (3, 1),
    (3, 2),
    (3, 4),
  }
  assert 0.06 < (row == 0).mean() < 0.14
  starts = examples["target"][record == 0, 0, 0]
  assert starts.min() < 5
  assert starts.max() > 35
  quiet = (stem == 3) & (examples["target"][:, 0, 0] > np.array(FRAMES)[record] / 2 + CELL)
  assert not quiet.any()  # stem 3 rests there


def test_silence_prob(dataset):
  for prob, share in ((0.0, 0.0), (1.0, 1.0)):
    examples = join(take(load(dataset, silence_prob=prob), 40))
    assert (examples["context"][:, 0, 1] % 100 == 50).mean() == share


EVERY = np.ones(3)


def choose(level_db, weight, frames, crop=CROP, cell=CELL, gate_db=-50.0, seed=0):
  config = DataConfig(crop_frames=crop, silence_gate_db=gate_db)
  rng = np.random.default_rng(seed)
  level_db, weight = np.array(level_db, np.float32), np.array(weight, float)
  return choose_target(rng, level_db, weight, frames, cell, config)


def test_nothing_loud_takes_the_loudest_place():
  level_db = np.full((3, 20), -90, np.float32)
  level_db[1, 13] = -80
  for seed in range(5):
    assert choose(level_db, EVERY, 98, seed=seed) == (57, 1)
  level_db[1, 13], level_db[2, 0] = -90, -80
  assert choose(level_db, EVERY, 98) == (0, 2)
  level_db[2, 0], level_db[0, 19] = -90, -80
  assert choose(level_db, EVERY, 98) == (78, 0)


def choose_often(level_db, frames, crop_frames, gate_db):
  return {choose(level_db, [1, 1], frames, crop_frames, 5, gate_db, i)[1] for i in range(60)}


def test_stems_come_by_their_weight_and_by_how_much_they_sound():
  level_db = [[-20] * 4, [-90] * 4, [-20] * 4, [-20] * 4, [-20, -90, -90, -90]]
  found = [choose(level_db, [1, 1, 2, 0, 1], 20, 20, 5, seed=i)[1] for i in range(4000)]
  shares = np.bincount(found, minlength=5) / len(found)
  np.testing.assert_allclose(shares, np.array([4, 0, 8, 0, 1]) / 13, atol=0.03)


def test_windows_that_sound_are_preferred_and_a_rest_may_still_be_heard():
  level_db = [[-20] * 10 + [-90] * 29 + [-20]]  # 200 frames, a quarter of which sounds
  starts = np.array([choose(level_db, [1], 200, 50, 5, seed=i)[0] for i in range(2000)])
  cells = [slice(start // 5, -(-(start + 50) // 5)) for start in starts]
  shares = np.array([(np.array(level_db[0])[c] > -45).mean() for c in cells])
  evenly = np.array(
    [(np.array(level_db[0])[s // 5 : -(-(s + 50) // 5)] > -45).mean() for s in range(151)]
  )
  assert shares.mean() > 1.6 * evenly.mean()
  assert 0.1 < (shares < 0.35).mean() < 0.6


def test_rare_categories_come_more_often():
  weight = weigh_categories([(0, 0, 0, 0, 1), (0,) * 95])
  assert weight[1] / weight[0] == pytest.approx(99**0.5)
  unknown = weigh_categories([(0, -1), (0, 1)])
  assert len(unknown) == 3
  assert (weigh_categories([(-1, -1)]) > 0).all()


def test_a_window_is_as_busy_as_its_target(dataset):
  examples = join(take(load(dataset, sources=("instrument", ACTIVITY)), 100))
  stem, activity = examples["conditions"].T
  assert (activity[stem == 0] == ACTIVITY_VALUES.index("full")).all()
  assert set(activity[stem == 1]) <= {1, 2}  # every other cell
  for share, value in [(0, 0), (7, 1), (13, 2), (17, 2), (18, 3), (20, 3)]:
    level_db = np.array([-20.0] * share + [-90.0] * (20 - share))
    assert classify_activity(level_db, -45.0) == value


def test_a_quiet_clip_takes_no_stem_of_unknown_condition():
  for seed in range(9):
    assert choose([[-20] * 4, [-80] * 4], [0, 1], 20, 5, 5, seed=seed)[1] == 1


def test_gate_is_mean_power():
  burst, steady = [-120, -120, -30, -120], [-33] * 4  # the burst's mean is 6 dB less
  assert choose_often([burst, steady], 20, 20, -36.1) == {0, 1}
  assert choose_often([burst, steady], 20, 20, -35.9) == {1}


def test_cells_touched_in_part_count():
  assert choose_often([[-120, -120, -120, -20], [-50] * 4], 18, 18, -50.5) == {0, 1}
  assert choose_often([[-20, -120, -120, -120], [-50] * 4], 18, 18, -50.5) == {0, 1}


def test_choose_mix_falls_back():
  rng = np.random.default_rng(0)
  silence = np.zeros((2, 1), bool)
  first = np.array([True, False])
  assert choose_mix(rng, silence, np.array([True]), False, np.zeros(2, bool)) in (0, 1)
  full = np.ones((1, 2), bool)
  assert choose_mix(rng, full, first, True, np.ones(1, bool)) == 0
  sparse = np.array([[1, 0], [0, 1]], bool)
  assert choose_mix(rng, sparse, first, True, np.ones(2, bool)) == 1
  three = np.array([[0, 0], [0, 1], [0, 1]], bool)
  heard = np.array([False, False, True])
  assert {choose_mix(rng, three, first, False, heard) for _ in range(20)} == {2}


def test_a_context_that_rests_in_the_window_is_discarded(tmp_path):
  """Of two stems that never sound together, neither can be the other's context."""
  frames, cell = 80, METADATA.level_frames
  level_db = np.full((3, frames // cell), -120, np.float16)
  level_db[0, : level_db.shape[1] // 2] = level_db[1, level_db.shape[1] // 2 :] = -20
  level_db[2] = -20

  def clip(song, stems):
    members = np.concatenate([np.zeros((1, stems)), 1 - np.eye(stems), np.eye(stems)])
    codes = np.random.default_rng(0).integers(0, 9, (len(members), frames, METADATA.n_levels))
    return Clip(
      song=song, clip=0, start_frame=0, stem_codes=codes[1 : 1 + stems].astype(np.uint16),
      stem_conditions=np.arange(stems, dtype=np.int32)[:, None],
      stem_level_db=level_db[:stems],
      mix_codes=codes.astype(np.uint16),
      mix_gain_db=np.where(members, 0, -np.inf).astype(np.float16),
      mix_lufs=np.where(members.any(1), -20, -np.inf).astype(np.float16),
    )  # fmt: skip

  splits = {"train": [[clip("apart", 2), clip("together", 3)]]}
  dataset = records.Dataset.open(records.write_dataset(tmp_path, "rests", METADATA, splits))
  rows = take(load(dataset, crop_frames=frames // 4, batch_size=4, silence_prob=0.0), 20)
  found = [pair for row in rows for pair in zip(row["clip"], row["start_frame"], strict=True)]
  apart = [start for clip_index, start in found if clip_index == 0]
  assert 0 < len(apart) < len(found)
  middle, reach = frames // 2, frames // 4 + cell  # both touch a window around the middle
  assert all(middle - reach < start < middle + cell for start in apart)


def test_same_seed_same_stream(dataset):
  assert_same(take(load(dataset), 9), take(load(dataset), 9))
  for seed in (0, 2):
    a, b = join(take(load(dataset), 9)), join(take(load(dataset, seed=seed), 9))
    assert not np.array_equal(a["clip"], b["clip"])


def test_neighbouring_seeds_share_no_epoch(dataset):
  epochs = [
    tuple(join(take(load(dataset, seed=s, batch_size=1), 5 * USABLE))["clip"].reshape(5, -1)[e])
    for s in range(3)
    for e in range(5)
  ]
  assert len(set(epochs)) == len(epochs)


def test_every_epoch_visits_every_clip_once(dataset):
  seen = join(take(load(dataset), 2 * USABLE))["clip"][: 6 * USABLE].reshape(6, USABLE)
  assert (np.sort(seen) == np.arange(USABLE)).all()


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_together_read_the_single_stream(dataset, processes):
  whole = take(load(dataset, batch_size=2 * processes), 8)
  parts = [
    take(load(dataset, batch_size=2 * processes, share=p, shares=processes), 8)
    for p in range(processes)
  ]
  assert_same(whole, [join(step) for step in zip(*parts, strict=True)])


def test_state_continues_exactly(dataset):
  iterator = load(dataset)
  take(iterator, 3)
  state = iterator.get_state()
  rest = take(iterator, 6)
  assert_same(rest, take(load(dataset), 9)[3:])
  fresh = load(dataset)
  take(fresh, 1)
  fresh.set_state(state)
  assert_same(take(fresh, 6), rest)


def test_orbax_restores_the_iterator(dataset, tmp_path):
  import grain.python
  import orbax.checkpoint as ocp

  iterator = load(dataset)
  take(iterator, 3)
  with ocp.CheckpointManager(tmp_path) as manager:
    manager.save(3, args=ocp.args.Composite(data=grain.python.PyGrainCheckpointSave(iterator)))
    manager.wait_until_finished()
    rest = take(iterator, 4)
    fresh = load(dataset)
    restore = grain.python.PyGrainCheckpointRestore(fresh)
    manager.restore(3, args=ocp.args.Composite(data=restore))
  assert_same(take(fresh, 4), rest)


def test_finite_stream_uses_every_clip_and_ends_together(dataset):
  for processes, batches in ((1, 5), (2, 3)):
    rows = 3 * processes
    parts = [
      list(load(dataset, batch_size=rows, num_epochs=2, share=p, shares=processes))
      for p in range(processes)
    ]
    assert [len(part) for part in parts] == [batches] * processes  # ceil(2 * 7 / (3 processes))
    stream = np.concatenate([b["clip"] for step in zip(*parts, strict=True) for b in step])
    assert sorted(stream[: 2 * USABLE]) == sorted([*range(USABLE)] * 2)


def test_foreign_context(dataset):
  true = join(take(load(dataset, silence_prob=0.2), 100))
  foreign = join(take(load(dataset, silence_prob=0.2, foreign=True), 100))
  for name in ("target", "conditions", "clip"):
    assert np.array_equal(true[name], foreign[name])
  song = np.array(SONGS)
  clip, row = np.divmod(foreign["context"][:, 0, 1], 100)
  assert (song[clip] != song[foreign["clip"]]).all()
  assert set(clip) == set(range(USABLE))
  silent = true["context"][:, 0, 1] % 100 == 50
  assert np.array_equal(row == 50, silent)
  assert not MEMBERS[row - 50, foreign["conditions"][:, 0]].any()
  assert (np.diff(foreign["context"][..., 0], axis=1) == 1).all()
  starts = foreign["context"][clip == 4, 0, 0]
  assert starts.min() < 5
  assert starts.max() > 35


def test_short_clips_are_counted_and_refused(dataset, caplog):
  with caplog.at_level(logging.WARNING):
    load(dataset)
  assert "1 of 8 clips of split 'train' are shorter than 20 frames" in caplog.text
  with pytest.raises(UserError, match=r"crop_frames=61 .*got 8 clips, the longest 60"):
    load(dataset, crop_frames=61)
  with pytest.raises(UserError, match="split must be one of train"):
    data.make_loader(dataset, "test", DataConfig(crop_frames=1, batch_size=1), seed=0)


def test_foreign_needs_two_songs(tmp_path):
  records.write_dataset(tmp_path, "one", METADATA, {"train": [[make_clip(0, "a", 40)] * 2]})
  with pytest.raises(UserError, match="two songs or more"):
    load(records.Dataset.open(tmp_path), foreign=True)


def test_damage_reaches_the_reader_as_one_line(dataset, tmp_path):
  clips = [make_clip(i, "ab"[i], 40) for i in range(2)]
  directory = records.write_dataset(tmp_path, "tiny", METADATA, {"train": [clips]})
  path = directory / "tiny-train.array_record-00000-of-00001"
  path.write_bytes(path.read_bytes()[:100].ljust(path.stat().st_size, b"\0"))
  with pytest.raises(UserError, match=path.name):
    next(load(records.Dataset.open(tmp_path)))


@pytest.mark.slow
def test_workers_read_the_same_stream_and_share_its_state(dataset):
  whole = take(load(dataset), 9)
  iterator = load(dataset, workers=2)
  assert_same(take(iterator, 3), whole[:3])
  state = iterator.get_state()
  iterator.close()
  for workers in (0, 1):
    iterator = load(dataset, workers=workers)
    iterator.set_state(state)
    assert_same(take(iterator, 6), whole[3:])
    iterator.close()


def test_state_at_the_end_stays_at_the_end(dataset):
  iterator = load(dataset, num_epochs=1)
  assert len(list(iterator)) == 3
  fresh = load(dataset, num_epochs=1)
  fresh.set_state(iterator.get_state())
  assert list(fresh) == []


def write(tmp_path, clips, **metadata):
  metadata = dataclasses.replace(METADATA, **metadata)
  records.write_dataset(tmp_path, "made", metadata, {"train": [clips]})
  return records.Dataset.open(tmp_path)


def test_clips_without_a_stem_to_learn_from_are_left_out(tmp_path, caplog):
  clips = [make_clip(i, f"song {i}", 40) for i in range(4)]
  clips[1].stem_conditions[:] = -1  # nothing is known of any stem
  clips[2].stem_level_db[:] = -70
  clips[3].stem_conditions[0] = -1
  examples = join(take(load(write(tmp_path, clips)), 60))
  assert set(examples["clip"]) == {0, 3}
  assert (examples["conditions"] >= 0).all()
  assert 0 not in examples["conditions"][examples["clip"] == 3]
  assert (
    "2 of 4 clips of split 'train' have no stem of known conditions above -50 dB" in caplog.text
  )
  with pytest.raises(UserError, match=r"must hold clips of crop_frames=20 .*; got 2 clips"):
    load(write(tmp_path / "b", clips[1:3]))


def test_a_model_may_use_some_sources(tmp_path):
  clip = make_clip(0, "a", 40)
  clip.stem_conditions = np.stack([np.arange(4), np.full(4, 1)], 1).astype(np.int32)
  dataset = write(tmp_path, [clip], sources={"instrument": tuple("abcd"), "genre": ("x", "y")})
  both = join(take(load(dataset), 5))
  assert (both["conditions"][:, 1] == 1).all()
  for names, columns in ((("genre",), [1]), (("genre", "instrument"), [1, 0]), ((), [])):
    some = join(take(load(dataset, sources=names), 5))
    assert np.array_equal(some["conditions"], both["conditions"][:, columns])
    assert np.array_equal(some["target"], both["target"])
  with pytest.raises(UserError, match=r"sources must be among .*; got \['mood'\]"):
    load(dataset, sources=("mood",))


@pytest.mark.parametrize(("free_mb", "workers"), [(1024, 4), (64, 0), (None, 4)])
def test_workers_without_room_in_shared_memory_are_not_started(
  monkeypatch, caplog, free_mb, workers
):
  def statvfs(path):
    assert path == "/dev/shm"
    if free_mb is None:
      raise FileNotFoundError(path)
    return types.SimpleNamespace(f_bavail=free_mb, f_frsize=2**20)

  monkeypatch.setattr(data.os, "statvfs", statvfs)
  assert data.choose_workers(4, batch_bytes=10 * 2**20) == workers
  assert data.choose_workers(0, batch_bytes=2**40) == 0
  assert ("--shm-size" in caplog.text) == (workers == 0)
