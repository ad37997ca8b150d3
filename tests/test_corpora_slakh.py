# SPDX-License-Identifier: Apache-2.0
"""Slakh2100's layout and the traps of its copies, on small real trees."""

import shutil

import pytest
from small_corpus import edit_stems, write_song

from data_prep.corpora import open_corpus
from data_prep.corpora.slakh import Slakh, read_slakh_metadata
from stemgen_jax.errors import UserError


def test_slakh_traps(corpus, caplog):
  folder = corpus / "train" / "Track00000"
  edit_stems(folder, S01={"audio_rendered": False}, S09={"inst_class": "Bass", "program_num": 33})
  edit_stems(folder, S02={"inst_class": "Theremin", "program_num": None})
  path = folder / "metadata.yaml"
  path.write_text(f"audio_dir: Track00616/stems\n{path.read_text()}")
  path.write_bytes(b"\xff" + path.read_bytes())
  for lie in ("train/._Track00001", "train/Track00000/._metadata.yaml"):
    (corpus / lie).write_bytes(b"\0")
  shutil.copytree(corpus / "train", corpus / "omitted")
  tracks = Slakh(corpus).tracks()
  assert [(t.split, t.id) for t in tracks] == [("train", f"Track{i:05d}") for i in range(3)] + [
    ("validation", "Track00009")
  ]
  assert [(s.files[0].path.name, s.conditions) for s in tracks[0].stems] == [
    ("S00.flac", {"instrument": "drums"}),
    ("S02.flac", {}),
    ("S03.flac", {"instrument": "strings"}),
  ]
  assert "1 listed stems have no audio, the first is" in caplog.text
  assert "1 stems of unknown instrument 'Theremin' (program None)" in caplog.text


@pytest.mark.parametrize("stray", [b"", b"\0", b" ", b"\xff", b"x", b"\xef\xbb\xbf"])
def test_metadata_with_a_stray_byte(tmp_path, stray):
  path = tmp_path / "metadata.yaml"
  path.write_bytes(stray + b"UUID: a\nstems:\n  S00: {inst_class: Bass}\n")
  assert read_slakh_metadata(path)["stems"] == {"S00": {"inst_class": "Bass"}}


def test_bad_corpora_are_named(tmp_path):
  with pytest.raises(UserError, match="root must be a folder"):
    open_corpus("slakh", tmp_path / "nowhere")
  with pytest.raises(UserError, match="with no track"):
    open_corpus("slakh", tmp_path).tracks()
  folder = write_song(tmp_path, "train", "Track00000")
  path = folder / "metadata.yaml"
  for text in ("stems: [", "just words", "stems: 3", ""):
    path.write_text(text)
    with pytest.raises(UserError, match=f"must be YAML with `stems`; got {path}"):
      open_corpus("slakh", tmp_path).tracks()
  path.unlink()
  with pytest.raises(UserError, match=str(path)):
    open_corpus("slakh", tmp_path).tracks()
