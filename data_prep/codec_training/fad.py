# SPDX-License-Identifier: Apache-2.0
"""What codecs do to the sound of a whole set of clips: FAD between before and after."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from data_prep.codec_training.clips import Clip
from data_prep.codecs.torch_codec import TorchCodec
from stemgen_jax.errors import UserError
from stemgen_jax.evaluate.distributions import embed
from stemgen_jax.evaluate.metrics.embeddings import Embedding, load_embedding
from stemgen_jax.evaluate.metrics.frechet import frechet_distance


def load_embeddings(specs: Iterable[str]) -> list[Embedding]:
  """Returns embeddings by what `load_embedding` takes, but for a codec's own.

  Raises:
    UserError: if there is no such embedding, or its files cannot be used.
  """
  specs = list(specs)
  if "encodec" in specs:
    raise UserError("--embedding must not be a codec's own latents here; got encodec. Try musicnn.")
  return [load_embedding(spec, None) for spec in specs]


def add_fad(
  rows: Sequence[dict],
  codecs: Mapping[str, TorchCodec],
  clips: Sequence[Clip],
  seconds: float,
  embeddings: Sequence[Embedding],
) -> None:
  """Gives the rows of codecs with all their levels "fad": by embedding, the distance and its n.

  Both sides come from the same clips, so that little of it is due to their number; it still falls
  with that number, and is to be compared at the same one alone.

  Args:
    rows: of `evaluate_codec`'s table.
    codecs: by their names there.
    clips: of all kinds.
    seconds: of each.
    embeddings: of FAD.
  """
  for row in rows:
    codec = codecs.get(row["codec"])
    if codec is None or row["levels"] < codec.spec.n_levels:
      continue
    spec, sides = codec.spec, {embedding.name: ([], []) for embedding in embeddings}
    for clip in clips:
      if clip.kind != row["kind"]:
        continue
      audio = clip.convert(spec.sample_rate, spec.channels, seconds)
      made = codec.decode(codec.encode(audio[None]), codec.scales(audio[None]))[0]
      for embedding in embeddings:
        before, after = sides[embedding.name]
        before.append(embed(embedding, audio, spec.sample_rate))
        after.append(embed(embedding, made, codec.decoded_rate_hz))
    row["fad"] = {}
    for name, (before, after) in sides.items():
      one, other = np.concatenate(before), np.concatenate(after)
      row["fad"][name] = {"distance": round(frechet_distance(one, other), 3), "n": len(one)}


def tell_fad(rows: Sequence[dict], kinds: Mapping[str, str]) -> list[str]:
  """Returns a sentence for each distance of the rows; `kinds` says what their kinds are called."""
  return [
    f"FAD-{name} between {kinds[row['kind']]} and what all levels of {row['codec']} make of them:"
    f" {found['distance']:.1f} ({found['n']} embeddings)."
    for row in rows
    for name, found in row.get("fad", {}).items()
  ]
