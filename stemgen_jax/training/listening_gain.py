# SPDX-License-Identifier: Apache-2.0
"""Does the model listen? Held-out loss with the true context, another song's, and none.

The asked level is fully hidden, so everything said of it must come from the levels below, the
context and the conditions. Listening gain = loss(foreign) - loss(true), in nats a token.
"""

import dataclasses
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from stemgen_jax.config import Config
from stemgen_jax.data.loader import make_loader
from stemgen_jax.data.records import Dataset
from stemgen_jax.model.losses import token_nll
from stemgen_jax.model.network import Model
from stemgen_jax.model.sharding import batch_share, everywhere, put_batch
from stemgen_jax.training.step import spread_levels, take_level
from stemgen_jax.types import Array, Bool, Float, Params

CONTEXTS = ("true", "foreign", "none")


def build_listening(
  config: Config, model: Model, dataset: Dataset, mesh: Mesh, split: str, n_batches: int
) -> Callable[[Params], dict[str, float]]:
  """Returns a function of the parameters that gives the losses and gains as named scalars.

  `listening/CONTEXT/level_q` is in nats a token (q from 1), `listening/CONTEXT/mean` the mean over
  levels, `listening/gain/...` foreign minus true. Every call measures the same examples. A split of
  one song has no foreign contexts, and so no gain.
  """
  source, crop_frames = dataset.source(split), config.data.crop_frames
  long = [song for song, n in zip(source.songs, source.frames, strict=True) if n >= crop_frames]
  contexts = CONTEXTS if len(set(long)) > 1 else ("true", "none")
  batches = {
    name: read_batches(config, dataset, mesh, split, n_batches, name == "foreign")
    for name in contexts
    if name != "none"
  }
  measure = jax.jit(
    lambda params, batch, heard: level_nll(config, model, params, batch, heard),
    out_shardings=everywhere(mesh),
  )

  def listen(params: Params) -> dict[str, float]:
    scalars = {}
    for name in contexts:
      rows = [
        measure(params, put_batch(batch, mesh), jnp.bool_(name != "none"))
        for batch in batches["foreign" if name == "foreign" else "true"]
      ]
      scalars |= _name_levels(f"listening/{name}", np.mean(jax.device_get(rows), axis=0))
    levels = (*(f"level_{q + 1}" for q in range(config.model.n_levels)), "mean")
    for level in levels if "foreign" in contexts else ():
      gain = scalars[f"listening/foreign/{level}"] - scalars[f"listening/true/{level}"]
      scalars[f"listening/gain/{level}"] = gain
    return scalars

  return listen


def level_nll(
  config: Config,
  model: Model,
  params: Params,
  batch: dict[str, Array],
  heard: Bool[Array, ""],
) -> Float[Array, " Q"]:
  """Mean nats a token of each fully hidden level; `heard` False drops the context."""
  target, n_levels = batch["target"], config.model.n_levels
  every = tuple(range(n_levels))
  level = spread_levels(every, len(target))
  hidden = jnp.arange(n_levels)[None, None, :] >= level[:, None, None]
  keep = jnp.ones((len(target), 1 + batch["conditions"].shape[1]), bool).at[:, 0].set(heard)
  features = model.apply(
    params,
    jnp.where(hidden, config.model.n_codes, target),
    batch["context"],
    batch["conditions"],
    keep,
  )
  logits = model.read_asked(params, features, every)
  nll = jnp.mean(token_nll(logits, take_level(target, level)), axis=1)
  return jnp.mean(nll.reshape(-1, n_levels), axis=0)


def unigram_entropy(codes: Iterable[np.ndarray], n_codes: int) -> Float[np.ndarray, " Q"]:
  """-sum_v p_v log p_v in nats, of each level's codes: the loss of a model that knows only counts.

  Args:
    codes: arrays [..., Q].
    n_codes: V.
  """
  parts = [
    np.stack([np.bincount(row, minlength=n_codes) for row in part.reshape(-1, part.shape[-1]).T])
    for part in codes
  ]
  counts = np.sum(parts, axis=0)
  p = counts / counts.sum(axis=1, keepdims=True)
  return -np.sum(p * np.log(np.where(p > 0, p, 1)), axis=1)


def read_batches(
  config: Config, dataset: Dataset, mesh: Mesh, split: str, n_batches: int, foreign: bool
) -> list[dict[str, np.ndarray]]:
  """Returns this process's rows of the first batches of a split: the same in every run."""
  share, shares = batch_share(mesh)
  loader = make_loader(
    dataset,
    split,
    dataclasses.replace(config.data, silence_prob=0.0, workers=0),
    seed=0,
    share=share,
    shares=shares,
    sources=tuple(config.model.sources),
    foreign=foreign,
  )
  return [next(loader) for _ in range(n_batches)]


def _name_levels(prefix: str, values: np.ndarray) -> dict[str, float]:
  scalars = {f"{prefix}/level_{q}": float(value) for q, value in enumerate(values, start=1)}
  return scalars | {f"{prefix}/mean": float(np.mean(values))}
