# SPDX-License-Identifier: Apache-2.0
"""Slakh2100's layout and the traps of its copies, on small real trees."""

import shutil

import pytest
from small_trees import edit_metadata, edit_stems, tell
from small_trees import write_slakh_song as write_song

from data_prep.corpora import open_corpus, recognise_corpus
from data_prep.corpora.layout import hash_split
from data_prep.corpora.slakh import read_slakh_metadata
from stemgen_jax.errors import UserError


@pytest.fixture
def corpus(tmp_path):
  for i in range(3):
    write_song(tmp_path / "music", "train", f"Track{i:05d}")
  write_song(tmp_path / "music", "validation", "Track00009")
  return tmp_path / "music"


def test_slakh_traps(corpus):
  folder = corpus / "train" / "Track00000"
  edit_stems(folder, S01={"audio_rendered": False}, S09={"inst_class": "Bass", "program_num": 33})
  edit_stems(folder, S02={"inst_class": "Theremin", "program_num": None})
  path = folder / "metadata.yaml"
  # github.com/ethman/slakh-utils/issues/25
  path.write_text(f"audio_dir: Track00616/stems\n{path.read_text()}")
  path.write_bytes(b"\xff" + path.read_bytes())
  for lie in ("train/._Track00001", "train/Track00000/._metadata.yaml", "train/notes.txt"):
    (corpus / lie).write_bytes(b"\0")
  shutil.copytree(corpus / "train", corpus / "omitted")
  slakh = open_corpus("slakh", corpus)
  for _ in range(2):  # a second call notes its problems anew
    tracks = slakh.tracks()
  assert [(t.split, t.id) for t in tracks] == [("train", f"Track{i:05d}") for i in range(3)] + [
    ("validation", "Track00009")
  ]
  assert [(s.name, s.files[0].path.name, s.conditions) for s in tracks[0].stems] == [
    ("S00", "S00.flac", {"instrument": "drums"}),
    ("S02", "S02.flac", {}),
    ("S03", "S03.flac", {"instrument": "strings"}),
  ]
  assert tell(slakh) == [
    (
      "train/Track00000/stems/S02",
      "unknown instrument: 'Theremin' (program None), kept without a category",
    ),
    ("train/Track00000/stems/S09", "no audio: listed, but has no file, left out"),
  ]


@pytest.mark.parametrize(
  ("entry", "category"),
  [
    ({"inst_class": "Percussive", "program_num": 47}, "percussion"),
    ({"inst_class": "Strings", "program_num": 47}, "percussion"),  # the finer word
    ({"inst_class": "Ethnic", "program_num": 104}, "guitar"),
    ({"inst_class": "Ethnic"}, None),
    ({"inst_class": None}, None),
    ({"inst_class": "Drums", "program_num": 128, "is_drum": True}, "drums"),
    ({"inst_class": "Drums", "program_num": 128}, "drums"),
  ],
)
def test_categories(tmp_path, entry, category):
  folder = write_song(tmp_path, "train", "Track00000", stems=[("Piano", 0)])
  edit_metadata(folder, stems={"S00": entry})
  (track,) = open_corpus("slakh", tmp_path).tracks()
  assert track.categories == (category,)


def test_a_table_of_ones_own(corpus, tmp_path):
  path = tmp_path / "own.yaml"
  path.write_text("categories: [low, high]\nprograms: {32-39: low, 48: high}")
  slakh = open_corpus("slakh", corpus, path)
  assert slakh.sources == {"instrument": ("low", "high")}
  assert slakh.tracks()[0].categories == (None, "low", None, "high")


@pytest.mark.parametrize("stray", [b"", b"\0", b" ", b"\xff", b"x", b"\xef\xbb\xbf"])
def test_metadata_with_a_stray_byte(tmp_path, stray):
  path = tmp_path / "metadata.yaml"
  path.write_bytes(stray + b"UUID: a\nstems:\n  S00: {inst_class: Bass}\n")
  assert read_slakh_metadata(path)["stems"] == {"S00": {"inst_class": "Bass"}}


@pytest.mark.parametrize("text", ["stems: [", "just words", "stems: 3", "", None])
def test_one_unreadable_song_is_not_the_end(corpus, text):
  path = corpus / "train/Track00001/metadata.yaml"
  path.write_text(text) if text is not None else path.unlink()
  slakh = open_corpus("slakh", corpus)
  assert [t.id for t in slakh.tracks()] == ["Track00000", "Track00002", "Track00009"]
  ((where, what),) = tell(slakh)
  assert where == "train/Track00001"
  assert what.startswith("metadata cannot be read: track ")
  assert str(path) in what


def test_song_without_stems(corpus):
  shutil.rmtree(corpus / "train/Track00001/stems")
  slakh = open_corpus("slakh", corpus)
  assert len(slakh.tracks()) == 3
  assert tell(slakh)[-1] == ("train/Track00001", "no stems: the song is left out")


def test_copies_of_a_song_in_later_splits_win(tmp_path):
  song = "0123456789abcdef" * 2  # of the MIDI file: slakh-utils, README
  for split, name in (("train", 1), ("train", 2), ("validation", 3), ("test", 4), ("train", 5)):
    folder = write_song(tmp_path, split, f"Track{name:05d}")
    edit_metadata(folder, UUID=song if name < 5 else "x")
  write_song(tmp_path, "validation", "Track00005")  # UUID x too, which is no MD5
  slakh = open_corpus("slakh", tmp_path)
  assert [(t.split, t.id) for t in slakh.tracks()] == [
    ("validation", "Track00005"),
    ("test", "Track00004"),
  ]
  kind = "the same song twice: it is"
  assert tell(slakh) == [
    ("validation/Track00003", f"{kind} test/Track00004 too, left out here"),
    ("train/Track00001", f"{kind} test/Track00004 too, left out here"),
    ("train/Track00002", f"{kind} test/Track00004 too, left out here"),
    ("train/Track00005", f"{kind} validation/Track00005 too, left out here"),
  ]


def test_two_songs_of_one_midi_file_in_a_split_stay(tmp_path):
  for i in range(2):
    edit_metadata(write_song(tmp_path, "train", f"Track{i:05d}"), UUID="a" * 32)
  assert len(open_corpus("slakh", tmp_path).tracks()) == 2


def test_known_bad_stems(tmp_path):
  # Track00385 S00 is on the list: greenbech/slakh-pytorch-dataset, problem_stems.json
  folder = write_song(tmp_path, "train", "Track00385")
  slakh = open_corpus("slakh", tmp_path)
  assert len(slakh.tracks()[0].stems) == 4  # another corpus may use the same names
  edit_metadata(folder, lmd_midi_dir="lmd_matched/a/b.mid")
  assert [stem.name for stem in slakh.tracks()[0].stems] == ["S01", "S02", "S03"]
  assert tell(slakh) == [
    (
      "train/Track00385/stems/S00",
      "known bad stem: no-audio (slakh_bad_stems.yaml), left out",
    )
  ]


def test_the_original_split_is_told(tmp_path):
  # 1500, 375 and 225 songs: slakh-utils, README
  first = 0
  for split, count in (("train", 1500), ("validation", 375), ("test", 225)):
    for i in range(first, first + count):
      (tmp_path / split / f"Track{i:05d}").mkdir(parents=True)
    first += count
  for split in ("train", "validation", "test"):
    shutil.rmtree(next((tmp_path / split).iterdir()))
    write_song(tmp_path, split, f"Track9{split}")
  slakh = open_corpus("slakh", tmp_path)
  slakh.tracks()
  assert tell(slakh)[-1][1].startswith("original split: songs leak")
  (tmp_path / "omitted").mkdir()
  slakh.tracks()
  assert not tell(slakh)[-1][1].startswith("original")


def test_bad_roots_are_named(tmp_path):
  with pytest.raises(UserError, match="root must be a folder"):
    open_corpus("slakh", tmp_path / "nowhere")
  with pytest.raises(UserError, match=r"train, validation and test folders.*with no track that"):
    open_corpus("slakh", tmp_path).tracks()
  with pytest.raises(UserError, match=r"corpus must be one of auto, slakh.*; got corpus='slack'"):
    open_corpus("slack", tmp_path)
  folder = write_song(tmp_path, "train", "Track00000")
  (folder / "metadata.yaml").unlink()
  with pytest.raises(UserError, match=f"no track that can be used, as train/Track00000:.*{folder}"):
    open_corpus("slakh", tmp_path).tracks()


def test_a_corpus_without_folders_of_splits_is_slakh_too(tmp_path):
  """As BabySlakh is: twenty songs side by side."""
  for i in range(1, 21):
    write_song(tmp_path, "", f"Track{i:05d}")
  assert recognise_corpus(tmp_path) == "slakh"
  tracks = open_corpus("auto", tmp_path).tracks()
  assert len(tracks) == 20
  assert {track.id: track.split for track in tracks} == {
    f"Track{i:05d}": hash_split(f"Track{i:05d}") for i in range(1, 21)
  }
  assert {"train"} < {track.split for track in tracks}
