# SPDX-License-Identifier: Apache-2.0
"""Categories: every GM program has one, what no table knows has none, and typos are helped."""

import pytest
import yaml

from configs.slakh import get_config
from data_prep.corpora.category_map import BUILT_IN, CategoryMap
from stemgen_jax.categories import CATEGORIES, SLAKH_CLASSES, category_index
from stemgen_jax.errors import UserError


@pytest.fixture(scope="module")
def table():
  return CategoryMap.load()


@pytest.mark.parametrize(
  ("program", "category"),
  [
    (0, "piano"),
    (7, "piano"),
    (8, "chromatic_percussion"),
    (19, "organ"),
    (30, "guitar"),
    (33, "bass"),
    (46, "strings"),
    (47, "percussion"),
    (48, "strings"),
    (53, "vocals"),
    (55, "other"),
    (61, "brass"),
    (65, "woodwind"),
    (79, "woodwind"),
    (80, "synth_lead"),
    (95, "synth_pad"),
    (103, "synth_pad"),
    (105, "guitar"),
    (108, "chromatic_percussion"),
    (110, "strings"),
    (118, "percussion"),
    (127, "other"),
    (128, None),
    (-1, None),
    (None, None),
  ],
)
def test_programs(table, program, category):
  assert table.of_program(program) == category
  assert table.of_program(program, is_drum=True) == "drums"


def test_every_program_and_category_is_reached(table):
  assert table.categories == CATEGORIES
  assert {table.of_program(i) for i in range(128)} | {"drums"} == set(CATEGORIES)


@pytest.mark.parametrize(
  ("corpus", "name", "category"),
  [
    ("slakh", "Strings (continued)", "strings"),
    ("slakh", "SYNTH-LEAD", "synth_lead"),
    ("slakh", "Ethnic", None),
    ("slakh", None, None),
    ("musdb18", "vocals", "vocals"),
    ("musdb18", "other", None),
    ("moisesdb", "a-tonal_percussion_(claps,_shakers,_congas,_cowbell_etc)", "percussion"),
    ("moisesdb", "pitched_percussion_(mallets,_glockenspiel,_...)", "chromatic_percussion"),
    ("moisesdb", "lead male singer", "vocals"),
    ("moisesdb", "other_keys", None),
    ("cocochorales", "viola", "strings"),
    ("nobody", "bass", None),
  ],
)
def test_names(table, corpus, name, category):
  assert table.of_name(corpus, name) == category


@pytest.mark.parametrize(
  ("text", "category"),
  [
    ("01_Bass_DI", "bass"),
    ("kick in", "drums"),
    ("Lead Vox 2", "vocals"),
    ("BassDrum", "drums"),  # the longest phrase
    ("Synth Bass", "bass"),
    ("EGtr L", "guitar"),
    ("el_pno", "piano"),
    ("El Piano", "piano"),
    ("OH_L", "drums"),
    ("Kick2", "drums"),
    ("B3", "organ"),
    ("Strings Pad", "synth_pad"),
    ("Drums & Bass", None),  # of two
    ("Track 7", None),
    ("bassoon", "woodwind"),  # whole words only
    ("", None),
  ],
)
def test_words(table, text, category):
  assert table.of_words(text) == category


def write(path, **content):
  path.write_text(yaml.safe_dump(content, sort_keys=False))
  return path


def test_a_file_of_ones_own_replaces_the_table(tmp_path):
  path = write(
    tmp_path / "own.yaml",
    categories=["rhythm", "tune"],
    programs={"drums": "rhythm", "0-126": "tune"},
    corpora={"slakh": {"Bass": "rhythm"}},
    words={"tune": "Piano, lead-synth"},
  )
  table = CategoryMap.load(path)
  assert table.categories == ("rhythm", "tune")
  assert (table.of_program(5), table.of_program(127)) == ("tune", None)
  assert table.of_program(None, is_drum=True) == "rhythm"
  assert table.of_name("slakh", "bass") == "rhythm"
  assert table.of_words("my Lead Synth") == "tune"
  assert table.of_words("Bass") is None
  assert CategoryMap.load(write(path)).of_program(0) is None


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ({"progams": {}}, "have no keys but categories, programs, corpora, words; got 'progams'"),
    ({"programs": {"0": "pianos"}}, r"use one of drums, bass.*; got 'programs: 0: pianos'"),
    ({"programs": {"0": "unknown"}}, "use one of drums"),
    ({"programs": {"0-8": "piano", "8": "organ"}}, "in order, each once; got 'programs: 8'"),
    ({"programs": {"8": "piano", "0": "organ"}}, "in order, each once; got 'programs: 0'"),
    ({"programs": {"9-8": "piano"}}, "got 'programs: 9-8'"),
    ({"programs": {"120-128": "other"}}, "from 0 to 127"),
    ({"programs": {"all": "other"}}, "as `12`, `8-15` or `drums`; got 'programs: all'"),
    ({"corpora": {"a": {"x y": "bass", "X-Y": "drums"}}}, "one category; got 'a: X-Y as bass and"),
    ({"corpora": {"a": ["bass"]}}, r"hold a mapping in `a`; got \['bass'\]"),
    ({"words": {"bass": "low", "drums": "low"}}, "one category; got 'words: low as bass and dr"),
    ({"words": {"lows": "low"}}, "got 'words: low: lows'"),
    ({"categories": ["a", "unknown"]}, "none `unknown`; got 'unknown'"),
    ({"categories": ["a", "a"]}, "each once.*; got 'a'"),
    ({"categories": ["A b"]}, "got 'A b'"),
    ({"categories": []}, r"got \[\]"),
    (["bass"], "be a mapping"),
  ],
)
def test_mistakes_are_named(tmp_path, content, message):
  path = tmp_path / "own.yaml"
  path.write_text(yaml.safe_dump(content, sort_keys=False))
  with pytest.raises(UserError, match=f"categories file {path} must .*{message}"):
    CategoryMap.load(path)


def test_files_that_cannot_be_read_are_named(tmp_path):
  with pytest.raises(UserError, match=rf"readable YAML; got {tmp_path}/none.yaml .*{BUILT_IN}"):
    CategoryMap.load(tmp_path / "none.yaml")
  (tmp_path / "bad.yaml").write_text("a: [")
  with pytest.raises(UserError, match=f"readable YAML; got {tmp_path}/bad.yaml"):
    CategoryMap.load(tmp_path / "bad.yaml")


def test_index():
  assert [category_index(name) for name in CATEGORIES] == list(range(len(CATEGORIES)))
  assert category_index(" Synth-Lead ") == category_index("synth lead") == 5
  assert category_index("rock", ("jazz", "rock"), "genre") == 1
  with pytest.raises(UserError, match=r"drums, bass.*got instrument='gitar'.*mean guitar\?"):
    category_index("gitar")
  with pytest.raises(UserError, match=r"genre must be one of jazz, rock; got genre='zzz'. Pick"):
    category_index("zzz", ("jazz", "rock"), "genre")
  with pytest.raises(UserError):
    category_index("unknown")


def test_slakhs_own_classes_are_those_of_the_papers_config():
  table = CategoryMap.load(BUILT_IN.with_name("slakh_classes.yaml"))
  assert table.categories == SLAKH_CLASSES
  assert len(set(SLAKH_CLASSES)) == 18
  found = [table.of_program(program) for program in range(128)]
  families = [name for name in SLAKH_CLASSES if name not in ("drums", "other")]
  assert list(dict.fromkeys(found)) == families  # one after the other, none left out
  assert [found.count(name) for name in families] == [8] * 14 + [7, 9]
  assert table.of_program(0, is_drum=True) == "drums"
  assert table.of_name("slakh", "Strings (continued)") == "strings_continued"
  assert get_config().model.sources == {"instrument": SLAKH_CLASSES}
