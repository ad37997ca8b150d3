# SPDX-License-Identifier: Apache-2.0
"""What a request comes to: the tokens of its takes as audio, placed, mixed and described."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

import stemgen_jax
from stemgen_jax.audio.files import Samples
from stemgen_jax.codec import Codec
from stemgen_jax.sampling import mixing, transcode
from stemgen_jax.sampling.job import Job

Audio = Float[np.ndarray, "takes _channels _samples"]  # stem and mix may differ in channels


@dataclasses.dataclass(frozen=True)
class Result:
  """Stems for one context, at its rate and of its length.

  Attributes:
    stems: the stem of each take, true peaks at -1 dBTP or below but for samples that are kept.
    context: the music that they were written for.
    codes: the tokens of each.
    sample_rate: in Hz.
    metadata: settings, seed and measurements, of JSON types; "takes" has one entry a take.
  """

  stems: Audio
  context: Samples
  codes: Int[np.ndarray, "takes T Q"]
  sample_rate: int
  metadata: dict[str, Any]

  @property
  def mixes(self) -> Audio:
    """Each stem over the context, true peaks likewise; made anew each time it is asked for."""
    return np.stack(
      [np.concatenate(list(self.mix_blocks(i)), axis=1) for i in range(len(self.stems))]
    )

  def mix_blocks(self, take: int) -> Iterator[Samples]:
    """Yields a take's stem over the context, some seconds at a time: music may last an hour."""
    gain_db = self.metadata["takes"][take]["mix_gain_db"]
    return mixing.mix_blocks(self.stems[take], self.context, self.sample_rate, gain_db)


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
  stems, takes = np.zeros((len(codes), 0, 0), np.float32), []
  for i, (own, score) in enumerate(zip(codes, scores, strict=True)):
    stem = transcode.decode(codec, own, heard)
    if request.stem is not None:
      stem = mixing.splice(stem, request.stem, list(request.keep_s), rate_hz)
    stem, placed = mixing.place_stem(stem, context, request.level_lu, kept=request.stem is not None)
    mixed = mixing.mix_stem(stem, context)
    told = {"context_gain_db": heard.gain_db, "listening_score_nats": float(score)}
    takes.append({**placed, **mixed, **told, **mixing.describe(stem, context, request.loop)})
    if i == 0:  # of one take without a copy, as it may be an hour long
      stems = stem[None] if len(codes) == 1 else np.empty((len(codes), *stem.shape), np.float32)
    stems[i] = stem
  metadata = {
    "stemgen_jax": stemgen_jax.__version__,
    "jax": jax.__version__,
    **about,
    "sample_rate_hz": rate_hz,
    "duration_s": request.context.shape[1] / rate_hz,
    **job.describe(),
    "takes": takes,
  }
  return Result(stems, request.context, codes, rate_hz, metadata)
