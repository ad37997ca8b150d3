# SPDX-License-Identifier: Apache-2.0
"""What instrument a name or a General MIDI program means, from a table that is data.

The table is `categories.yaml` beside this file, or one of the user's own, which replaces it whole.
"""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from stemgen_jax.categories import CATEGORIES
from stemgen_jax.errors import UserError

BUILT_IN = Path(__file__).with_name("categories.yaml")
SECTIONS = ("categories", "programs", "corpora", "words")
DRUMS = "drums"  # the key of the drum channel among the programs
_NAME = re.compile(r"[a-z0-9_]+")
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_]+|\d+")


class CategoryMap:
  """Maps a corpus' names, General MIDI programs and words of file names to categories.

  What it does not know is None. `categories` is the list that its answers are from.
  """

  def __init__(self, content: Mapping[str, Any], path: Path = BUILT_IN):
    """Checks a table's content; `path` is for the messages.

    Raises:
      UserError: if a key or a category is unknown, a name is given two categories, or programs
        overlap or are out of order; the line names the file and the entry.
    """
    self._path = path
    self._require(isinstance(content, dict), "be a mapping", content)
    for key in content:
      self._require(key in SECTIONS, f"have no keys but {', '.join(SECTIONS)}", key)
    self.categories = self._read_categories(content.get("categories", list(CATEGORIES)))
    self._drums, self._programs = self._read_programs(self._section(content, "programs"))
    self._names: dict[str, dict[str, str]] = {}
    for corpus in (corpora := self._section(content, "corpora")):
      names = self._section(corpora, corpus)
      pairs = [(str(name), category) for name, category in names.items()]
      self._names[corpus] = self._collect(pairs, corpus, normalise)
    words = self._section(content, "words")
    pairs = [(phrase, word) for word, text in words.items() for phrase in str(text).split(",")]
    phrases = self._collect(pairs, "words", lambda phrase: " ".join(split_words(phrase)))
    self._phrases = {tuple(phrase.split()): word for phrase, word in phrases.items()}
    self._longest = max(map(len, self._phrases), default=0)

  @classmethod
  def load(cls, path: str | os.PathLike | None = None) -> "CategoryMap":
    """Returns the table of a file, or the built-in one; a UserError if it cannot be read."""
    path = Path(path or BUILT_IN)
    try:
      content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
      raise UserError(
        f"categories file must be readable YAML; got {path} ({' '.join(str(error).split())})."
        f" See {BUILT_IN} for one."
      ) from error
    return cls(content, path)

  def of_name(self, corpus: str, name: str | None) -> str | None:
    """Returns the category of a corpus' own name for an instrument."""
    return self._names.get(corpus, {}).get(normalise(name or ""))

  def of_program(self, program: int | None, is_drum: bool = False) -> str | None:
    """Returns the category of a General MIDI program, 0 to 127, or of a drum track."""
    if is_drum:
      return self._drums
    if program is None:
      return None
    return next((name for low, high, name in self._programs if low <= program <= high), None)

  def of_words(self, text: str) -> str | None:
    """Returns the category that a file's name speaks of, None if of none or of two."""
    found, words = set(), split_words(text)
    while words:
      sizes = range(min(self._longest, len(words)), 0, -1)
      size = next((n for n in sizes if tuple(words[:n]) in self._phrases), 0)
      if size:
        found.add(self._phrases[tuple(words[:size])])
      del words[: size or 1]
    return found.pop() if len(found) == 1 else None

  def is_phrase(self, text: str) -> bool:
    """Returns whether a text is just one phrase of the table, as "Lead Vocals"."""
    return tuple(split_words(text)) in self._phrases

  def _read_categories(self, names: Any) -> tuple[str, ...]:
    rule = "list categories of lower-case letters, digits and _, each once, and none `unknown`"
    self._require(isinstance(names, list) and len(names) > 0, rule, names)
    for name in names:
      kept = isinstance(name, str) and _NAME.fullmatch(name) and name != "unknown"
      self._require(bool(kept) and names.count(name) == 1, rule, name)
    return tuple(names)

  def _read_programs(self, entries: dict) -> tuple[str | None, list[tuple[int, int, str]]]:
    """Returns the category of drum tracks, and rows (first, last, category) in order."""
    drums, rows = None, []
    for key, category in entries.items():
      where = f"programs: {key}"
      self._check_category(category, where)
      if key == DRUMS:
        drums = category
        continue
      match = _RANGE.fullmatch(str(key))
      self._require(match is not None, f"give programs as `12`, `8-15` or `{DRUMS}`", where)
      low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
      after = rows[-1][1] if rows else -1
      rule = "give programs from 0 to 127, in order, each once"
      self._require(after < low <= high <= 127, rule, where)
      rows.append((low, high, category))
    return drums, rows

  def _collect(
    self, pairs: list[tuple[str, Any]], section: str, normal: Callable[[str], str]
  ) -> dict[str, str]:
    """Returns normalised names with their categories."""
    names: dict[str, str] = {}
    for name, category in pairs:
      self._check_category(category, f"{section}: {name.strip()}")
      known = names.setdefault(normal(name), category)
      where = f"{section}: {name.strip()} as {known} and {category}"
      self._require(known == category, "give each name one category", where)
    return names

  def _section(self, content: Mapping[str, Any], key: str) -> dict:
    section = content.get(key) or {}
    self._require(isinstance(section, dict), f"hold a mapping in `{key}`", section)
    return section

  def _check_category(self, category: Any, where: str) -> None:
    rule = f"use one of {', '.join(self.categories)}"
    self._require(category in self.categories, rule, f"{where}: {category}")

  def _require(self, kept: bool, rule: str, entry: Any) -> None:
    if not kept:
      raise UserError(f"categories file {self._path} must {rule}; got {entry!r}. Mend that entry.")


def normalise(name: str) -> str:
  """Returns a name in lower snake case: "Synth Lead", "synth-lead" and "synth_lead" are one."""
  return re.sub(r"[\W_]+", "_", str(name).lower()).strip("_")


def split_words(text: str) -> list[str]:
  """Returns the words and numbers of a name in lower case: "01_BassDI2" is 01, bass, di, 2."""
  return [word.lower() for word in _WORD.findall(text)]
