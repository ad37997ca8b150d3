# SPDX-License-Identifier: Apache-2.0
"""Instrument categories as a musician names them, from General MIDI programs and Slakh's words.

An instrument that no table knows has no category (None): it is stored as unknown and reported,
never filed under `other`, which is for sounds known to be none of the rest.
"""

import difflib
from collections.abc import Sequence

from stemgen_jax.errors import UserError

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

# (first program, category), General MIDI programs counted from 0; a row holds until the next one.
GM_PROGRAMS = (
  (0, "piano"),
  (8, "chromatic_percussion"),
  (16, "organ"),
  (24, "guitar"),
  (32, "bass"),
  (40, "strings"),
  (47, "percussion"),  # timpani
  (48, "strings"),
  (52, "vocals"),  # choir aahs, voice oohs, synth voice
  (55, "other"),  # orchestra hit
  (56, "brass"),
  (64, "woodwind"),
  (80, "synth_lead"),
  (88, "synth_pad"),  # and the synth effects from 96 on, which are pads by use
  (104, "guitar"),  # sitar, banjo, shamisen, koto: plucked
  (108, "chromatic_percussion"),  # kalimba
  (109, "woodwind"),  # bag pipe
  (110, "strings"),  # fiddle
  (111, "woodwind"),  # shanai
  (112, "percussion"),
  (120, "other"),  # sound effects
)

# Slakh's `inst_class`, lower case. "Ethnic" mixes five families: only the program tells which.
SLAKH_CLASSES = {
  "drums": "drums",
  "bass": "bass",
  "guitar": "guitar",
  "piano": "piano",
  "organ": "organ",
  "synth lead": "synth_lead",
  "synth pad": "synth_pad",
  "synth effects": "synth_pad",
  "strings": "strings",
  "strings (continued)": "strings",
  "brass": "brass",
  "reed": "woodwind",
  "pipe": "woodwind",
  "chromatic percussion": "chromatic_percussion",
  "percussive": "percussion",
  "sound effects": "other",
}


def category_of_program(program: int, is_drum: bool = False) -> str | None:
  """Returns the category of a General MIDI program (0 to 127), or None outside that range."""
  if is_drum:
    return "drums"
  if not 0 <= program <= 127:
    return None
  return next(category for first, category in reversed(GM_PROGRAMS) if first <= program)


def category_of_slakh(
  inst_class: str | None, program: int | None = None, is_drum: bool = False
) -> str | None:
  """Returns the category of a Slakh stem, or None if neither its program nor its class is known.

  The program decides where there is one: it tells timpani from violins and a kalimba from a sitar,
  which `inst_class` does not.
  """
  if is_drum:
    return "drums"
  by_program = None if program is None else category_of_program(program)
  return by_program or SLAKH_CLASSES.get((inst_class or "").strip().lower())


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
