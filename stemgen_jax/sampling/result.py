# SPDX-License-Identifier: Apache-2.0
"""What a request comes to: the tokens of its takes as audio, placed, mixed and described."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

import stemgen_jax
from stemgen_jax.codec import Codec
from stemgen_jax.sampling import mixing, transcode
from stemgen_jax.sampling.job import Job

Audio = Float[np.ndarray, "takes _channels _samples"]  # stem and mix may differ in channels


@dataclasses.dataclass(frozen=True)
class Result:
  """Stems for one context, at its rate and of its length.

  Attributes:
    stems: the stem of each take, true peaks at -1 dBTP or below but for samples that are kept.
    mixes: each over the context, likewise.
    codes: the tokens of each.
    sample_rate: in Hz.
    metadata: settings, seed and measurements, of JSON types; "takes" has one entry a take.
  """

  stems: Audio
  mixes: Audio
  codes: Int[np.ndarray, "takes T Q"]
  sample_rate: int
  metadata: dict[str, Any]


def finish(
  job: Job,
  codec: Codec,
  heard: transcode.Heard,
  codes: Int[np.ndarray, "n T Q"],
  scores: Float[np.ndarray, " n"],
  about: Mapping[str, Any],
) -> Result:
  """Returns the stems that tokens are, over their context.

  Args:
    job: what was asked for.
    codec: decodes the tokens.
    heard: the context as it was encoded.
    codes: the tokens of each take.
    scores: the listening score of each take, in nats.
    about: what there is to tell of the model, of JSON types.
  """
  request, rate_hz = job.request, job.request.rate_hz
  context = mixing.Context.measure(request.context, rate_hz)
  stems, mixes, takes = [], [], []
  for own, score in zip(codes, scores, strict=True):
    stem = transcode.decode(codec, own, heard)
    if request.stem is not None:
      stem = mixing.splice(stem, request.stem, list(request.keep_s), rate_hz)
    stem, placed = mixing.place_stem(stem, context, request.level_lu, kept=request.stem is not None)
    mix, mixed = mixing.mix_stem(stem, context)
    told = {"context_gain_db": heard.gain_db, "listening_score_nats": float(score)}
    takes.append({**placed, **mixed, **told, **mixing.describe(stem, context, request.loop)})
    stems.append(stem)
    mixes.append(mix)
  metadata = {
    "stemgen_jax": stemgen_jax.__version__,
    "jax": jax.__version__,
    **about,
    "sample_rate_hz": rate_hz,
    "duration_s": request.context.shape[1] / rate_hz,
    **job.describe(),
    "takes": takes,
  }
  return Result(_stack(stems), _stack(mixes), codes, rate_hz, metadata)


def _stack(takes: list[np.ndarray]) -> Audio:
  """Returns all takes as one array; of one take without a copy, as it may be an hour long."""
  return takes[0][None] if len(takes) == 1 else np.stack(takes)
