# SPDX-License-Identifier: Apache-2.0
"""Instrument categories as a musician names them, and finding one by a name typed by hand.

What corpora call them is data, in data_prep/corpora/categories.yaml. An instrument that no table
knows has no category: it is stored as unknown and reported, never filed under `other`, which is for
sounds known to be none of the rest.
"""

import difflib
from collections.abc import Sequence

from stemgen_jax.errors import UserError

ACTIVITY = "activity"  # a condition that no record stores: how much of a window its target sounds
ACTIVITY_VALUES = ("sparse", "half", "busy", "full")

CATEGORIES = (
  "drums",
  "bass",
  "guitar",
  "piano",
  "organ",
  "synth_lead",
  "synth_pad",
  "strings",
  "brass",
  "woodwind",
  "chromatic_percussion",
  "percussion",
  "vocals",
  "other",
)

SLAKH_CLASSES = (
  "drums",
  "piano",
  "chromatic_percussion",
  "organ",
  "guitar",
  "bass",
  "strings",
  "strings_continued",
  "brass",
  "reed",
  "pipe",
  "synth_lead",
  "synth_pad",
  "synth_effects",
  "ethnic",
  "percussive",
  "sound_effects",
  "other",
)
"""The 18 categories of the paper's model on Slakh, which the paper counts and does not name.

These are the 17 classes of Slakh's own table, and `other` for what that table does not list;
data_prep/corpora/slakh_classes.yaml says which General MIDI programs each one holds.
"""


def category_index(
  name: str, categories: Sequence[str] = CATEGORIES, source: str = "instrument"
) -> int:
  """Returns the index of a category by its name; case, spaces and hyphens are forgiven.

  Raises:
    UserError: if there is no such category; the line lists the choices and the closest ones.
  """
  wanted = "_".join(name.strip().lower().replace("-", " ").split())
  if wanted in categories:
    return list(categories).index(wanted)
  close = difflib.get_close_matches(wanted, categories)
  hint = f" Did you mean {' or '.join(close)}?" if close else ""
  raise UserError(
    f"{source} must be one of {', '.join(categories)}; got {source}={name!r}.{hint or ' Pick one.'}"
  )
