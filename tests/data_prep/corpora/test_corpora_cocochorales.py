# SPDX-License-Identifier: Apache-2.0
"""CocoChorales' layout, wherever its archives were unpacked."""

import pytest
import yaml
from small_trees import tell, write_tone

from data_prep.corpora import open_corpus
from stemgen_jax.errors import UserError


def write_song(folder, **voices):
  """Writes a track as data_format.md (github.com/lukewys/chamber-ensemble-generator) has it."""
  for i, name in enumerate(voices):
    write_tone(folder / "stems_audio" / f"{i}_{name}.wav", rate=16000)
  write_tone(folder / "mix.wav", rate=16000)
  metadata = {
    "ensemble": folder.name.split("_")[0],
    "instrument_name": dict(enumerate(voices)),
    "midi_program_number": dict(enumerate(voices.values())),
  }
  (folder / "metadata.yaml").write_text(yaml.safe_dump(metadata))


def test_songs(tmp_path):
  write_song(
    tmp_path / "main_dataset/train/1/brass_track000001", trumpet=56, horn=60, trombone=57, tuba=58
  )
  write_song(tmp_path / "train/random_track192000", violin=40, saxophone=65, bassoon=70)
  write_song(tmp_path / "string_track192001", viola=41, cello=42)
  write_song(tmp_path / "woodwind_track216001", flute=None, kazoo=None, whistle=78, recorder="x")
  write_song(tmp_path / "woodwind_track240001", flute=73)
  write_song(tmp_path / "string_track000007", violin=40, cello=42)
  write_tone(tmp_path / "string_track192001/stems_audio/._0_viola.wav")
  (tmp_path / "random_track000002").mkdir()
  (tmp_path / "string_track000007/metadata.yaml").write_text("a: [")  # not needed
  (tmp_path / "string_track000007/stems_audio/0_violin.wav").unlink()
  (tmp_path / "train/random_track192000/stems_audio/2_bassoon.wav").unlink()
  corpus = open_corpus("cocochorales", tmp_path)
  tracks = corpus.tracks()
  assert [(t.split, t.id, t.categories) for t in tracks] == [
    ("train", "brass_track000001", ("brass",) * 4),
    ("train", "random_track192000", ("strings", "woodwind")),
    ("train", "string_track000007", ("strings",)),
    ("validation", "string_track192001", ("strings", "strings")),
    ("test", "woodwind_track216001", ("woodwind", None, "woodwind", None)),
  ]
  assert [stem.name for stem in tracks[3].stems] == ["0_viola", "1_cello"]
  voices = "of 4 voices have no file"
  unknown = "unknown instrument: {}, kept without a category"
  place = "woodwind_track216001/stems_audio"
  assert tell(corpus) == [
    ("string_track000007", f"no audio: 3 {voices}"),
    ("string_track192001", f"no audio: 2 {voices}"),
    ("train/random_track192000", f"no audio: 2 {voices}"),
    (f"{place}/1_kazoo.wav", unknown.format("kazoo")),
    (f"{place}/3_recorder.wav", unknown.format("recorder")),
    ("woodwind_track240001", "unknown split: its number is above 240000, left out"),
  ]


def test_bad_roots_are_named(tmp_path):
  with pytest.raises(UserError, match=r"cocochorales root must hold folders of \{string,brass"):
    open_corpus("cocochorales", tmp_path).tracks()
