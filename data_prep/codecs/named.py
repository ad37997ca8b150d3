# SPDX-License-Identifier: Apache-2.0
"""A published codec by the name of its Hugging Face repository: which of its files are fetched."""

from pathlib import Path

from data_prep.codecs.transformers_format import CONFIG, WEIGHTS
from stemgen_jax.errors import UserError
from stemgen_jax.shell import hub

CARD = "README.md"  # it may tell the licence
# Repositories often hold the same weights several times: the first that is there is taken.
CHOICES = (
  ("model.safetensors", "model.safetensors.index.json", "model-*.safetensors"),
  ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*.bin"),
  ("compression_state_dict.bin", "*.th"),
)


def fetch_codec(name: str, flag: str = "--from") -> tuple[hub.Snapshot, Path]:
  """Returns a repository as it was fetched, and the file of weights in it, or their index.

  Args:
    name: OWNER/NAME or OWNER/NAME@REVISION.
    flag: that names it, for messages.

  Raises:
    UserError: if it cannot be fetched, or holds no weights or several codecs.
  """
  for files in CHOICES:
    snapshot = hub.fetch(name, (CONFIG, CARD, *files), flag)
    whole = {path.name: path for pattern in files for path in snapshot.folder.glob(pattern)}
    parts = [path for file, path in whole.items() if file in WEIGHTS] or list(whole.values())
    if len(parts) > 1:
      raise UserError(
        f"{flag} must hold one codec; got {len(parts)} in {name} ({', '.join(sorted(whole))})."
        " Download the file that is meant, and give that."
      )
    if parts:
      return snapshot, parts[0]
  raise UserError(
    f"{flag} must name a model with weights; got {name}, which holds none of"
    f" {', '.join(file for files in CHOICES for file in files)}. Choose another."
  )
