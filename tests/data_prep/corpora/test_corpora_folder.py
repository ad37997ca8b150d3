# SPDX-License-Identifier: Apache-2.0
"""Folders of one's own, read as songs."""

import errno
import os
from collections import Counter
from pathlib import Path

import pytest
from small_trees import tell, write_tone

from data_prep.corpora import open_corpus
from data_prep.corpora.layout import hash_split
from stemgen_jax.errors import UserError


def write_songs(root, **songs):
  for song, files in songs.items():
    for file in files.split(", "):
      write_tone(root / song / file)


def describe(track):
  return {s.name: (s.category, [f.path.name for f in s.files]) for s in track.stems}


def test_a_song(tmp_path):
  names = "01_Bass_DI.wav, Bass Amp.wav, kick in.flac, SN.wav, Lead Vox 2.wav, Thing.ogg, BGV.wav"
  write_songs(tmp_path, song=f"{names}, song.wav, Song Mixdown.wav, 2track.wav, notes.wav")
  (tmp_path / "song/notes.wav").rename(tmp_path / "song/notes.txt")
  for hidden in ("song/._kick in.flac", "song/.cache.wav", "__MACOSX/song/._kick.wav", ".a/b.wav"):
    (tmp_path / hidden).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / hidden).write_bytes(b"\0")
  corpus = open_corpus("folder", tmp_path)
  write_tone(tmp_path / "__MACOSX/song/bass.wav")
  (track,) = corpus.tracks()
  assert (track.id, track.split) == ("song", "train")
  assert describe(track) == {
    "BGV": ("vocals", ["BGV.wav"]),
    "Lead Vox 2": ("vocals", ["Lead Vox 2.wav"]),
    "Thing": (None, ["Thing.ogg"]),
    "bass": ("bass", ["01_Bass_DI.wav", "Bass Amp.wav"]),
    "drums": ("drums", ["SN.wav", "kick in.flac"]),
  }
  mix = "a mix of all, by its name: left out"
  assert tell(corpus) == [
    ("song/2track.wav", mix),
    ("song/Song Mixdown.wav", mix),
    ("song/Thing.ogg", "unknown instrument: 'Thing', kept without a category"),
    ("song/song.wav", mix),
  ]


def test_links_to_nothing_and_folders_that_cannot_be_read_are_named(tmp_path, monkeypatch):
  write_songs(tmp_path, song="bass.wav, piano.wav", other="bass.wav, drums.wav", shut="bass.wav")
  (tmp_path / "song/drums.wav").symlink_to(tmp_path / "gone.wav")
  (tmp_path / "round").symlink_to(tmp_path / "round")
  listdir, scandir = os.listdir, os.scandir

  def refuse(call, path):
    if Path(path).name == "shut":
      raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
    return call(path)

  monkeypatch.setattr(os, "listdir", lambda path: refuse(listdir, path))
  monkeypatch.setattr(os, "scandir", lambda path: refuse(scandir, path))
  corpus = open_corpus("folder", tmp_path)
  assert {track.id for track in corpus.tracks()} == {"song", "other"}
  assert sorted(tell(corpus)) == [
    ("round", f"dangling link: it leads to {tmp_path / 'round'}, left out"),
    ("shut", "cannot be read: Permission denied, left out"),
    ("song/drums.wav", f"dangling link: it leads to {tmp_path / 'gone.wav'}, left out"),
  ]


def test_a_song_of_any_bytes_is_text_in_a_dataset(tmp_path):
  write_songs(tmp_path, song="bass.wav")
  os.rename(tmp_path / "song", os.fsencode(tmp_path) + b"/na\xefve")
  (track,) = open_corpus("folder", tmp_path).tracks()
  assert track.id == "na\\xefve"
  assert track.stems[0].files[0].path.is_file()
  assert hash_split(os.fsdecode(b"na\xefve")) in ("train", "validation", "test")


def test_the_title_is_no_instrument(tmp_path):
  write_songs(
    tmp_path,
    **{
      "Brass Monkey": "Brass Monkey - Lead.wav, Brass Monkey - Drums.wav, Brass Monkey.wav",
      "b": "Horn Song kick.wav, Horn Song gtr.wav, Horn Song Mix.wav",
      "Piano": "piano.wav, Piano - mix.wav",
      "c": "Bass DI.wav, Bass Amp.wav",  # here the shared word is the instrument
    },
  )
  tracks = {track.id: describe(track) for track in open_corpus("folder", tmp_path).tracks()}
  assert {name: value[0] for name, value in tracks["Brass Monkey"].items()} == {
    "Brass Monkey - Drums": "drums",
    "Brass Monkey - Lead": None,
  }
  assert {name: value[0] for name, value in tracks["b"].items()} == {
    "Horn Song gtr": "guitar",
    "Horn Song kick": "drums",
  }
  assert tracks["c"] == {"bass": ("bass", ["Bass Amp.wav", "Bass DI.wav"])}
  assert {name: value[0] for name, value in tracks["Piano"].items()} == {"piano": "piano"}


def test_splits_by_folders(tmp_path):
  write_songs(
    tmp_path,
    **{
      "train/x/a": "bass.wav",
      "train/b": "bass.wav, mix.wav",
      "Valid/c": "bass.wav",
      "test/d": "bass.wav",
      "test/b": "bass.wav",
      "elsewhere/e": "bass.wav",
      "test/f": "mix.wav",
    },
  )
  corpus = open_corpus("folder", tmp_path)
  assert [(t.split, t.id) for t in corpus.tracks()] == [
    ("train", "x__a"),
    ("validation", "c"),
    ("test", "b"),
    ("test", "d"),
  ]
  assert [where for where, _ in tell(corpus)] == [
    "elsewhere/e",
    "test/f/mix.wav",
    "test/f",
    "train/b/mix.wav",
    "train/b",
  ]
  assert tell(corpus)[-1][1] == "the same song twice: it is test/b too, left out here"


def test_splits_by_a_hash(tmp_path):
  held_out = {i: split for i in range(40) if (split := hash_split(str(i))) != "train"}
  assert held_out == {
    6: "test",
    11: "validation",
    21: "validation",
    27: "validation",
    37: "validation",
    38: "validation",
    39: "validation",
  }  # on every machine, for good
  for i in range(20):
    assert hash_split(f"{i} e\u0301") == hash_split(f"{i} \u00e9")  # as macOS and others store it
  splits = Counter(hash_split(f"{i:04d}") for i in range(10_000))
  assert 7_850 < splits["train"] < 8_150
  assert 900 < splits["validation"] < 1_100
  assert 900 < splits["test"] < 1_100
  names = [name for name in map(str, range(60)) if hash_split(name) != "train"][:3]
  write_songs(tmp_path, **dict.fromkeys(names, "bass.wav"))
  tracks = open_corpus("folder", tmp_path).tracks()
  assert [t.id for t in tracks if t.split == "train"] == [min(names)]
  before = {t.id: t.split for t in tracks}
  write_songs(tmp_path, zz="bass.wav")
  after = {t.id: t.split for t in open_corpus("folder", tmp_path).tracks()}
  assert all(after[name] == before[name] for name in names if name != min(names))


def test_doubles_links_and_a_root_that_is_the_song(tmp_path):
  root = tmp_path / "my song"
  write_songs(root, **{".": "gtr.wav, gtr.flac"})
  os.symlink(root, root / "loop")
  corpus = open_corpus("folder", root)
  (track,) = corpus.tracks()
  assert track.id == "my song"
  assert describe(track) == {"gtr": ("guitar", ["gtr.wav"])}
  assert tell(corpus) == [("gtr.flac", "the same stem twice: it is gtr.wav too, left out")]


def test_folders_of_instruments_are_told(tmp_path):
  write_songs(tmp_path, **{"song/Bass": "di.wav, amp.wav", "song/Lead Vox": "a.wav, b.wav"})
  corpus = open_corpus("folder", tmp_path)
  corpus.tracks()
  assert tell(corpus)[-1] == (
    "song",
    "folders of instruments: Bass, Lead Vox are read as songs, put a song's files in one folder",
  )


def test_nothing_to_use(tmp_path):
  write_songs(tmp_path, song="mix.wav")
  with pytest.raises(
    UserError, match=r"folder root must hold folders of audio.*song/mix.wav: a mi"
  ):
    open_corpus("folder", tmp_path).tracks()


def test_a_song_that_is_called_as_a_split_is_a_song(tmp_path):
  write_songs(tmp_path, Test="bass.wav, drums.wav", other="bass.wav, piano.wav", val="keys.wav")
  assert sorted(track.id for track in open_corpus("folder", tmp_path).tracks()) == [
    "Test", "other", "val"
  ]  # fmt: skip
  write_songs(tmp_path / "train", song="bass.wav")  # now there are splits
  tracks = open_corpus("folder", tmp_path).tracks()
  assert ("song", "train") in [(track.id, track.split) for track in tracks]
