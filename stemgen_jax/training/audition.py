# SPDX-License-Identifier: Apache-2.0
"""Stems to hear while a run goes on: generated for held-out contexts, always the same ones."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import jax.numpy as jnp
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from stemgen_jax import codec as codecs
from stemgen_jax.config import Config
from stemgen_jax.data.records import Dataset
from stemgen_jax.model import sharding
from stemgen_jax.model.decode import options_of
from stemgen_jax.model.generate import build_generate, steering_of, take_keys
from stemgen_jax.model.network import Model
from stemgen_jax.training.listening_gain import read_batches
from stemgen_jax.training.metrics import Sound
from stemgen_jax.types import Params


def build_audition(
  config: Config, model: Model, dataset: Dataset, mesh: Mesh
) -> Callable[[Params], Iterator[Sound]]:
  """Returns a function of the parameters that yields named sounds.

  For each of `train.audio_examples` windows: `example_i/context`, `example_i/target`, both through
  the codec, and `example_i/generated`, sampled with the config's own settings and fixed seeds.

  Raises:
    UserError: if the codec bundle cannot be loaded.
  """
  codec = codecs.load(Path(config.data.codec))
  count = config.train.audio_examples
  (batch,) = read_batches(config, dataset, mesh, config.data.eval_split, 1, foreign=False)
  # As many rows as are heard, and as fill every device.
  shares = math.prod(mesh.shape[axis] for axis in sharding.BATCH[0])
  per = shares // sharding.batch_share(mesh)[1]
  batch = {name: rows[: -(-count // per) * per] for name, rows in batch.items()}
  count = min(count, len(batch["target"]))
  generate = build_generate(model, config.model.n_codes, mesh)
  rows = sharding.put_batch(batch, mesh)
  keys = take_keys(0, rows["target"].shape[0])
  hidden = jnp.zeros(rows["target"].shape, bool)

  def audition(params: Params) -> Iterator[Sound]:
    codes = generate(
      params,
      rows["context"],
      rows["conditions"],
      rows["target"],
      hidden,
      keys,
      options_of(config.sample),
      steering_of(config.sample, config.model),
    )
    for name, tokens in (
      ("context", batch["context"]),
      ("target", batch["target"]),
      ("generated", multihost_utils.process_allgather(codes, tiled=True)),
    ):
      for i, audio in enumerate(codec.decode(tokens[:count])):
        yield Sound(f"example_{i}/{name}", audio, codec.decoded_rate_hz)

  return audition
