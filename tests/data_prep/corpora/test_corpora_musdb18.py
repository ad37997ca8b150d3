# SPDX-License-Identifier: Apache-2.0
"""MUSDB18's two forms: mp4 files of five streams, and HQ's folders of WAV files."""

import numpy as np
import pytest
from small_trees import tell, write_streams, write_tone

from data_prep.corpora import open_corpus
from data_prep.corpora.musdb18 import _VALIDATION
from data_prep.corpora.stem_audio import measure_stem, read_stem
from stemgen_jax.errors import UserError

# Names and layout: github.com/sigsep/sigsep-mus-db, musdb/configs/mus.yaml and musdb/__init__.py.
VALIDATION_SONG = "Johnny Lokke - Promises & Lies"
STEMS = ("mixture", "drums", "bass", "other", "vocals")


def write_hq_song(root, folder, name, stems=STEMS):
  for i, stem in enumerate(stems):
    write_tone(root / folder / name / f"{stem}.wav", 0.1 * (i + 1), channels=2)


def test_hq(tmp_path):
  write_hq_song(tmp_path, "train", "A - b")
  write_hq_song(tmp_path, "train", VALIDATION_SONG)
  write_hq_song(tmp_path, "train", "C", ("mixture", "bass", "other"))
  write_hq_song(tmp_path, "train", "D", ("mixture",))
  write_hq_song(tmp_path, "test", "AM Contra")
  (tmp_path / "test/._AM Contra").write_bytes(b"\0")
  (tmp_path / "train/A - b/._bass.wav").write_bytes(b"\0")
  corpus = open_corpus("musdb18", tmp_path)
  tracks = corpus.tracks()
  assert [(t.split, t.id) for t in tracks] == [
    ("train", "A - b"),
    ("train", "C"),
    ("validation", VALIDATION_SONG),
    ("test", "AM Contra"),
  ]
  assert [(s.name, s.category) for s in tracks[0].stems] == [
    ("drums", "drums"),
    ("bass", "bass"),
    ("other", None),
    ("vocals", "vocals"),
  ]
  samples, _ = read_stem(tracks[0].stems[3])
  assert np.allclose(samples, 0.5, atol=1e-3)
  missing = "no audio: has no file, left out"
  assert tell(corpus) == [
    ("train/C/drums", missing),
    ("train/C/vocals", missing),
    *((f"train/D/{stem}", missing) for stem in STEMS[1:]),
    ("train/D", "no stems: the song is left out"),
  ]


def test_streams(tmp_path):
  levels = [0.5, 0.1, 0.2, 0.3, 0.4]  # of the mixture, drums, bass, other, vocals
  write_streams(tmp_path / "train" / "A - b.c.stem.mp4", levels, seconds=0.3)
  write_streams(tmp_path / "train" / f"{VALIDATION_SONG}.stem.mp4", levels, seconds=0.3)
  write_streams(tmp_path / "test" / "A - b.c.stem.mp4", levels, seconds=0.3)
  (tmp_path / "train" / "._A - b.stem.mp4").write_bytes(b"\0")
  corpus = open_corpus("musdb18", tmp_path)
  tracks = corpus.tracks()
  assert [(t.split, t.id) for t in tracks] == [
    ("validation", VALIDATION_SONG),
    ("test", "A - b.c"),
  ]
  assert tell(corpus) == [
    ("train/A - b.c", "the same song twice: it is test/A - b.c too, left out here")
  ]
  for stem, level in zip(tracks[1].stems, levels[1:], strict=True):
    assert np.abs(read_stem(stem)[0][:, 2000:10000]).max() == pytest.approx(level, rel=0.05)
    assert measure_stem(stem)[1:] == (44100, 2)
  assert [stem.category for stem in tracks[1].stems] == ["drums", "bass", None, "vocals"]


def test_a_song_in_both_forms_is_read_from_its_folder(tmp_path):
  write_hq_song(tmp_path, "train", "A")
  (tmp_path / "train/A.stem.mp4").write_bytes(b"\0")
  corpus = open_corpus("musdb18", tmp_path)
  (track,) = corpus.tracks()
  assert {file.path.suffix for stem in track.stems for file in stem.files} == {".wav"}
  assert tell(corpus) == []


def test_validation_songs_and_bad_roots(tmp_path):
  assert len(open_corpus("musdb18", tmp_path)._validation) == 14
  assert _VALIDATION.read_text().count("\n- ") == 14
  with pytest.raises(UserError, match=r"musdb18 root must hold train and test folders of SONG.ste"):
    open_corpus("musdb18", tmp_path).tracks()
