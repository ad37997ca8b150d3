# SPDX-License-Identifier: Apache-2.0
"""MoisesDB's layout: data.json of stems and tracks, grouped by stem and category."""

import json

import numpy as np
import pytest
from small_trees import tell, write_tone

from data_prep.corpora import open_corpus
from data_prep.corpora.layout import hash_split
from data_prep.corpora.stem_audio import read_stem
from stemgen_jax.errors import UserError


def write_song(root, uuid, genre="rock", **stems):
  """Writes a song as moisesdb/track.py (github.com/moises-ai/moises-db) reads it.

  Each stem is a list of (track type, value of the audio or None for no file).
  """
  content = {"song": "s", "artist": "a", "genre": genre, "stems": []}
  for stem, tracks in stems.items():
    entries = []
    for i, (kind, value) in enumerate(tracks):
      name = f"{stem}-{i}"
      entries.append({"id": name, "trackType": kind, "extension": "wav", "has_bleed": False})
      if value is not None:
        write_tone(root / uuid / stem / f"{name}.wav", value, seconds=0.1 * (i + 1))
    content["stems"].append({"id": stem, "stemName": stem, "tracks": entries})
  (root / uuid).mkdir(parents=True, exist_ok=True)
  (root / uuid / "data.json").write_text(json.dumps(content))


def test_songs(tmp_path):
  root = tmp_path / "moisesdb" / "moisesdb_v0.1"  # README.md
  write_song(
    root,
    "aaaa",
    genre="Singer/Songwriter",
    drums=[("kick_drum", 0.1), ("hi_hat", 0.2), ("snare drum", None)],
    bass=[("bass_guitar", 0.3), ("tuba (bass of brass)", 0.4)],
    other_keys=[
      ("organ,_electric_organ", 0.1),
      ("other sounds (hapischord, melotron etc)", 0.2),
      ("synth pad", 0.3),
    ],
    other=[("click track", 0.9)],
    guitar=[("something new", 0.1)],
  )
  write_song(root, "bbbb", genre=None, vocals=[("lead female singer", 0.1)])
  write_song(root, "cccc", other=[("click_track", 0.1)])
  (root / "._aaaa").mkdir()
  (root / "._aaaa" / "data.json").write_text("{}")
  corpus = open_corpus("moisesdb", tmp_path)
  tracks = {track.id: track for track in corpus.tracks()}
  assert list(corpus.sources) == ["instrument", "genre"]
  assert corpus.sources["genre"] == ("rock", "singer_songwriter")
  assert set(tracks) == {"aaaa", "bbbb"}
  assert tracks["aaaa"].conditions == {"genre": "singer_songwriter"}
  assert tracks["bbbb"].conditions == {}
  assert all(track.split == hash_split(track.id) for track in tracks.values())
  stems = {stem.name: stem for stem in tracks["aaaa"].stems}
  assert {name: (stem.category, len(stem.files)) for name, stem in stems.items()} == {
    "bass-bass": ("bass", 1),
    "bass-brass": ("brass", 1),
    "drums-drums": ("drums", 2),
    "guitar-guitar": ("guitar", 1),
    "other_keys-organ": ("organ", 1),
    "other_keys-synth_pad": ("synth_pad", 1),
    "other_keys-unknown": (None, 1),
  }
  samples, _ = read_stem(stems["drums-drums"])
  assert np.allclose(samples[0, [0, 799, 800, 1599]], [0.3, 0.3, 0.2, 0.2], atol=1e-3)
  place = "moisesdb/moisesdb_v0.1"
  assert tell(corpus) == [
    (f"{place}/aaaa/drums/drums-2.wav", "no audio: listed, but has no file, left out"),
    (
      f"{place}/aaaa/other_keys/other_keys-1.wav",
      "unknown instrument: other_keys / other sounds (hapischord, melotron etc), kept without a"
      " category",
    ),
    (f"{place}/aaaa/other/other-0.wav", "click track: left out"),
    (f"{place}/bbbb", "unknown genre: none is given"),
    (f"{place}/cccc/other/other-0.wav", "click track: left out"),
    (f"{place}/cccc", "no stems: the song is left out"),
  ]


@pytest.mark.parametrize("text", ["{", "[]", '{"stems": 3}', '{"stems": [3]}', "\udcff"])
def test_one_unreadable_song_is_not_the_end(tmp_path, text):
  write_song(tmp_path, "aaaa", vocals=[("lead male singer", 0.1)])
  write_song(tmp_path, "bbbb")
  (tmp_path / "bbbb/data.json").write_bytes(text.encode(errors="surrogateescape"))
  corpus = open_corpus("moisesdb", tmp_path)
  assert [track.id for track in corpus.tracks()] == ["aaaa"]
  ((where, what),) = tell(corpus)
  assert where == "bbbb"
  assert what.startswith("metadata cannot be read: data.json must")
  assert corpus.sources["genre"] == ("rock",)


def test_bad_roots_are_named(tmp_path):
  with pytest.raises(UserError, match="moisesdb root must hold folders of UUID"):
    open_corpus("moisesdb", tmp_path).tracks()


@pytest.mark.parametrize(
  ("field", "value"), [("tracks", 1), ("tracks", [None]), ("stemName", "/"), ("stemName", "a\0b")]
)
def test_a_song_whose_metadata_is_of_other_kinds_is_left_out(tmp_path, field, value):
  for uuid in ("aaaa", "bbbb"):
    write_song(tmp_path, uuid, bass=[("bass_guitar", 0.3)])
  content = json.loads((tmp_path / "aaaa/data.json").read_text())
  content["stems"][0][field] = value
  (tmp_path / "aaaa/data.json").write_text(json.dumps(content))
  corpus = open_corpus("moisesdb", tmp_path)
  assert [track.id for track in corpus.tracks()] == ["bbbb"]
  ((where, what),) = tell(corpus)
  assert where == "aaaa"
  assert "must list `tracks` whose names can be files'" in what
