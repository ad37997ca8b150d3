# SPDX-License-Identifier: Apache-2.0
"""Corpora of multi-track music: which songs exist, in which split, and what each stem is.

Reads folders and metadata only; audio is opened by `tokenize`.
"""

import os
from collections.abc import Callable
from pathlib import Path

from data_prep.corpora.slakh import Slakh
from data_prep.corpora.types import Corpus
from stemgen_jax.errors import UserError

CORPORA: dict[str, Callable[[str | os.PathLike], Corpus]] = {"slakh": Slakh}


def open_corpus(name: str, root: str | os.PathLike) -> Corpus:
  """Returns a corpus by its name; raises a UserError for an unknown name or a missing root."""
  if name not in CORPORA:
    raise UserError(f"corpus must be one of {', '.join(CORPORA)}; got corpus={name!r}.")
  if not Path(root).is_dir():
    raise UserError(f"corpus root must be a folder; got root={root}. Check the path.")
  return CORPORA[name](root)
