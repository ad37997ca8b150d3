# SPDX-License-Identifier: Apache-2.0
"""What a request comes to: the tokens of its takes as audio, placed, mixed and described."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
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
    about: settings and seed, of JSON types.
    placed: how each take was laid over the context, of JSON types.
    measure: gives what else there is to tell of each take, of JSON types.
  """

  stems: Audio
  context: Samples
  codes: Int[np.ndarray, "takes T Q"]
  sample_rate: int
  about: dict[str, Any]
  placed: list[dict[str, Any]]
  measure: Callable[[], list[dict[str, Any]]]

  @functools.cached_property
  def metadata(self) -> dict[str, Any]:
    """Settings, seed and measurements, of JSON types; "takes" has one entry a take.

    It is measured when it is first asked for, so that stems can be heard before.
    """
    takes = zip(self.placed, self.measure(), strict=True)
    return {**self.about, "takes": [{**placed, **measured} for placed, measured in takes]}

  @property
  def mixes(self) -> Audio:
    """Each stem over the context, true peaks likewise; made anew each time it is asked for."""
    return np.stack(
      [np.concatenate(list(self.mix_blocks(i)), axis=1) for i in range(len(self.stems))]
    )

  def mix_blocks(self, take: int) -> Iterator[Samples]:
    """Yields a take's stem over the context, some seconds at a time: music may last an hour."""
    gain_db = self.placed[take]["mix_gain_db"]
    return mixing.mix_blocks(self.stems[take], self.context, self.sample_rate, gain_db)


def finish(
  job: Job,
  codec: Codec,
  heard: transcode.Heard,
  codes: Int[np.ndarray, "n T Q"],
  score: Callable[[], Float[np.ndarray, " n"]],
  about: Mapping[str, Any],
) -> Result:
  """Returns the stems that tokens are, over their context.

  Args:
    job: what was asked for.
    codec: decodes the tokens.
    heard: the context as it was encoded.
    codes: the tokens of each take.
    score: gives the listening score of each take, in nats.
    about: what there is to tell of the model, of JSON types.
  """
  request, rate_hz = job.request, job.request.rate_hz
  context = mixing.Context.measure(request.context, rate_hz)
  stems, takes = np.zeros((len(codes), 0, 0), np.float32), []
  for i, own in enumerate(codes):
    stem = transcode.decode(codec, own, heard)
    if request.stem is not None:
      stem = mixing.splice(stem, request.stem, list(request.keep_s), rate_hz)
    stem, placed = mixing.place_stem(stem, context, request.level_lu, kept=request.stem is not None)
    takes.append({**placed, **mixing.mix_stem(stem, context), "context_gain_db": heard.gain_db})
    if i == 0:  # of one take without a copy, as it may be an hour long
      stems = stem[None] if len(codes) == 1 else np.empty((len(codes), *stem.shape), np.float32)
    stems[i] = stem

  def measure() -> list[dict[str, Any]]:
    return [
      {"listening_score_nats": float(nats), **mixing.describe(stems[i], context, request.loop)}
      for i, nats in enumerate(score())
    ]

  settings = {
    "stemgen_jax": stemgen_jax.__version__,
    "jax": jax.__version__,
    **about,
    "sample_rate_hz": rate_hz,
    "duration_s": request.context.shape[1] / rate_hz,
    **job.describe(),
  }
  return Result(stems, request.context, codes, rate_hz, settings, takes, measure)
