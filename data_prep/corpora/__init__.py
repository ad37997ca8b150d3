# SPDX-License-Identifier: Apache-2.0
"""Corpora of multi-track music: which songs exist, in which split, and what each stem is.

Reads folders and metadata only; audio is opened by `stem_audio`. A reader notes what it left out,
or does not know, in `problems`, as "kind: detail"; whoever opened the corpus tells the user.
"""

import os
from pathlib import Path

from data_prep.corpora.category_map import CategoryMap
from data_prep.corpora.cocochorales import CocoChorales
from data_prep.corpora.folder import Folder
from data_prep.corpora.layout import list_folders
from data_prep.corpora.moisesdb import MoisesDB
from data_prep.corpora.musdb18 import Musdb18
from data_prep.corpora.slakh import Slakh
from data_prep.corpora.types import Corpus
from stemgen_jax.errors import UserError

AUTO = "auto"
CORPORA = {reader.name: reader for reader in (Slakh, Musdb18, MoisesDB, CocoChorales, Folder)}


def open_corpus(
  name: str, root: str | os.PathLike, categories: str | os.PathLike | None = None
) -> Corpus:
  """Returns a corpus.

  Args:
    name: one of CORPORA, or "auto" for the one that the root is laid out as.
    root: its folder.
    categories: a file like categories.yaml, which it replaces.

  Raises:
    UserError: if the name is unknown, the root missing or of no one layout, or the file wrong.
  """
  if name != AUTO and name not in CORPORA:
    choices = ", ".join([AUTO, *CORPORA])
    raise UserError(f"corpus must be one of {choices}; got corpus={name!r}. Pick one.")
  if not Path(root).is_dir():
    raise UserError(f"corpus root must be a folder; got root={root}. Check the path.")
  reader = CORPORA[recognise_corpus(root) if name == AUTO else name]
  return reader(root, CategoryMap.load(categories))


def recognise_corpus(root: str | os.PathLike) -> str:
  """Returns the name of the corpus that a folder is laid out as; `folder` is what no other is.

  Raises:
    UserError: if it is laid out as none, or as several, or is the folder above; the line lists what
      each expects.
  """
  found = [name for name, reader in CORPORA.items() if reader.recognises(Path(root))]
  found = [name for name in found if name != Folder.name] or found
  if found == [Folder.name]:
    _check_children(Path(root))
  if len(found) == 1:
    return found[0]
  layouts = "; ".join(f"{name}: {reader.layout}" for name, reader in CORPORA.items())
  raise UserError(
    f"corpus root must be laid out as one corpus ({layouts}); got root={root}, laid out as"
    f" {' and '.join(found) or 'none'}. Name it with --corpus, or give another folder."
  )


def _check_children(root: Path) -> None:
  """Raises a UserError if a folder in the root is a corpus whose stems would pass for songs."""
  for child in list_folders(root):
    for reader in (Slakh, Musdb18):  # the others look deeper themselves
      if reader.recognises(child):
        raise UserError(
          f"corpus root must be the corpus' own folder; got root={root}, which holds {child}, laid"
          f" out as {reader.name}. Give that folder."
        )
