# SPDX-License-Identifier: Apache-2.0
"""What a run measures on held-out songs: the training loss on fixed masks, and listening gain."""

import functools
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh

from stemgen_jax.config import Config
from stemgen_jax.data.records import Dataset
from stemgen_jax.model.network import Model
from stemgen_jax.model.sharding import everywhere, put_batch
from stemgen_jax.training.listening_gain import build_listening, read_batches
from stemgen_jax.training.metrics import name_bins
from stemgen_jax.training.step import PREDICT, Lesson
from stemgen_jax.types import Params


def build_validation(
  config: Config, model: Model, dataset: Dataset, mesh: Mesh, lesson: Lesson = PREDICT
) -> Callable[[Params], dict[str, float]]:
  """Returns a function of the parameters that gives named scalars, losses in nats a token.

  `validation/loss`, `validation/loss/level_q` and `validation/loss/mask_a-b` are the training loss
  with every source heard, in all, by asked level, and by mask rate in (a, b]; the masks are the
  same in every call. `validation/accuracy` is the share of hidden tokens of the asked levels whose
  likeliest code is the true one. `listening/...` is `build_listening`'s.

  Raises:
    UserError: if the split has no clip to use.
  """
  split, n_batches = config.data.eval_split, config.eval_batches
  listen = build_listening(config, model, dataset, mesh, split, n_batches)
  batches = read_batches(config, dataset, mesh, split, n_batches, foreign=False)
  keys = jax.random.split(jax.random.key(0), n_batches)
  measure = jax.jit(
    functools.partial(lesson.measure, config, model),
    out_shardings=everywhere(mesh),
  )

  def validate(params: Params) -> dict[str, float]:
    parts = [
      measure(params, put_batch(batch, mesh), key, *lesson.given)
      for batch, key in zip(batches, keys, strict=True)
    ]
    sums = jax.tree.map(lambda *x: np.sum(x, axis=0), *jax.device_get(parts))
    by_level = sums["level_nll"] / np.maximum(sums["level_count"], 1)
    scalars = {"validation/loss": float(sums["level_nll"].sum() / sums["level_count"].sum())}
    scalars["validation/accuracy"] = float(sums["bin_hits"].sum() / sums["bin_count"].sum())
    scalars |= {f"validation/loss/level_{q}": float(x) for q, x in enumerate(by_level, start=1)}
    return (
      scalars | name_bins("validation/loss", sums["bin_nll"], sums["bin_count"]) | listen(params)
    )

  return validate
