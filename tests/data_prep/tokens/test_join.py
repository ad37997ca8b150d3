# SPDX-License-Identifier: Apache-2.0
"""Datasets joined into one: every clip of each, and what cannot be joined."""

import dataclasses

import pytest
from test_records import CLIPS, METADATA, assert_same

from data_prep import join
from stemgen_jax.data import records
from stemgen_jax.errors import UserError


def write(root, name, splits, **changes):
  metadata = dataclasses.replace(METADATA, **changes)
  return records.write_dataset(root, name, metadata, splits)


@pytest.fixture
def pair(tmp_path):
  return [
    write(tmp_path, "one", {"train": [CLIPS[:2], CLIPS[2:4]]}, settings={"seed": 1}),
    write(tmp_path, "two", {"train": [CLIPS[4:5]], "test": [CLIPS[5:]]}),
  ]


def test_joined_has_every_clip(pair, tmp_path, capsys):
  join.main([*map(str, pair), "--out", str(tmp_path / "new"), "--name", "both"])
  assert "train: 3 songs\ntest: 1 songs\n" in capsys.readouterr().out
  found = records.Dataset.open(tmp_path / "new")
  found.verify()
  assert found.metadata.settings == {"one": {"seed": 1}, "two": METADATA.settings}
  wanted = {
    "train": [*(("one", c) for c in CLIPS[:4]), ("two", CLIPS[4])],
    "test": [("two", c) for c in CLIPS[5:]],
  }
  for split, clips in wanted.items():
    source = found.source(split)
    assert len(source) == len(clips)
    for i, (name, clip) in enumerate(clips):
      assert_same(source[i], dataclasses.replace(clip, song=f"{name}/{clip.song}"))


def test_mistakes(pair, tmp_path):
  with pytest.raises(UserError, match="two or more of different names; got one, one"):
    join.join([pair[0], pair[0]], tmp_path / "new", "both")
  with pytest.raises(UserError, match="two or more"):
    join.join(pair[:1], tmp_path / "new", "both")
  other = write(tmp_path, "other", {"train": [CLIPS]}, codec_fingerprint="another")
  with pytest.raises(UserError, match=r"same codec_fingerprint; got another in .*other.*alike"):
    join.join([pair[0], other], tmp_path / "new", "both")
  assert not (tmp_path / "new").exists()
  with pytest.raises(UserError, match="must be new"):
    join.join(pair, tmp_path, "one")
