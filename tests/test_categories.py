# SPDX-License-Identifier: Apache-2.0
"""Categories: every GM program has one, what no table knows has none, and typos are helped."""

import pytest

from stemgen_jax.categories import (
  CATEGORIES,
  GM_PROGRAMS,
  SLAKH_CLASSES,
  category_index,
  category_of_program,
  category_of_slakh,
)
from stemgen_jax.errors import UserError


def test_tables_name_only_categories():
  assert {name for _, name in GM_PROGRAMS} | set(SLAKH_CLASSES.values()) <= set(CATEGORIES)
  assert [first for first, _ in GM_PROGRAMS] == sorted({first for first, _ in GM_PROGRAMS})
  assert "unknown" not in CATEGORIES
  assert len(set(CATEGORIES)) == len(CATEGORIES)


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
  ],
)
def test_programs(program, category):
  assert category_of_program(program) == category
  assert category_of_program(program, is_drum=True) == "drums"


def test_slakh_words():
  assert category_of_slakh("Strings (continued)") == "strings"
  assert category_of_slakh("Percussive", 47) == "percussion"
  assert category_of_slakh("Strings", 47) == "percussion"  # the program is the finer word
  assert category_of_slakh("Ethnic", 104) == "guitar"
  assert category_of_slakh("Ethnic") is None
  assert category_of_slakh("Theremin") is None
  assert category_of_slakh(None) is None
  assert category_of_slakh("Drums", 128, True) == "drums"
  assert category_of_slakh("Drums", 128) == "drums"


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
