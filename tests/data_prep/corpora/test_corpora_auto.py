# SPDX-License-Identifier: Apache-2.0
"""A corpus is recognised by its layout, and read in the same order whatever the file system's."""

from pathlib import Path

import pytest
from small_trees import write_slakh_song, write_tone
from test_corpora_cocochorales import write_song as write_coco_song
from test_corpora_moisesdb import write_song as write_moises_song
from test_corpora_musdb18 import write_hq_song

from data_prep.corpora import CORPORA, open_corpus, recognise_corpus
from stemgen_jax.errors import UserError


def write_slakh(root):
  write_slakh_song(root, "train", "Track00001")
  write_slakh_song(root, "train", "Track00002")
  write_slakh_song(root, "test", "Track00003")


def write_musdb(root):
  write_hq_song(root, "train", "b")
  write_hq_song(root, "train", "a")


def write_moises(root):
  for name in "ba":
    write_moises_song(root, name, vocals=[("lead male singer", 0.1)], bass=[("bass_guitar", 0.1)])


def write_coco(root):
  for number in (2, 1):
    write_coco_song(root / f"string_track{number:06d}", violin=40, cello=42)


def write_folder(root):
  for name in ("b/kick", "b/gtr", "a/c/vox", "a/c/bass"):
    write_tone(root / f"{name}.wav")


LAYOUTS = {
  "slakh": write_slakh,
  "musdb18": write_musdb,
  "moisesdb": write_moises,
  "cocochorales": write_coco,
  "folder": write_folder,
}


@pytest.mark.parametrize("name", CORPORA)
def test_layouts_are_recognised(tmp_path, name):
  LAYOUTS[name](tmp_path)
  assert recognise_corpus(tmp_path) == name
  corpus = open_corpus("auto", tmp_path)
  assert corpus.name == name
  assert len(corpus.tracks()) > 1


@pytest.mark.parametrize("name", CORPORA)
def test_order_is_not_the_file_systems(tmp_path, monkeypatch, name):
  LAYOUTS[name](tmp_path)
  tracks = open_corpus(name, tmp_path).tracks()
  listed = Path.iterdir
  monkeypatch.setattr(Path, "iterdir", lambda self: iter(sorted(listed(self), reverse=True)))
  assert open_corpus(name, tmp_path).tracks() == tracks
  keys = [(("train", "validation", "test").index(t.split), t.id) for t in tracks]
  assert keys == sorted(keys)


def test_several_layouts_or_none_are_told(tmp_path):
  with pytest.raises(UserError, match=r"as one corpus \(slakh: train.*; folder: .*out as none\."):
    open_corpus("auto", tmp_path)
  (tmp_path / "notes.txt").write_text("no music")
  with pytest.raises(UserError, match="out as none"):
    recognise_corpus(tmp_path)
  write_slakh(tmp_path)
  write_musdb(tmp_path)
  with pytest.raises(UserError, match=r"laid out as slakh and musdb18. Name it with --corpus"):
    recognise_corpus(tmp_path)


@pytest.mark.parametrize("name", CORPORA)
def test_the_folder_above(tmp_path, name):
  root = tmp_path / "data" / "release"
  LAYOUTS[name](root)
  if name in ("slakh", "musdb18"):
    with pytest.raises(UserError, match=f"holds {root}, laid out as {name}. Give that folder."):
      recognise_corpus(root.parent)
  else:
    assert recognise_corpus(root.parent) == name
