# SPDX-License-Identifier: Apache-2.0
"""A request in the model's terms: its settings, and which tokens of a stem are given."""

import dataclasses
from typing import Any

import numpy as np

from stemgen_jax.codec import Codec
from stemgen_jax.config import Config, SampleConfig
from stemgen_jax.sampling import transcode
from stemgen_jax.sampling.request import Request, check, resolve_conditions, resolve_settings
from stemgen_jax.types import Bool, Int

SPAN_S = 0.5  # of a variation that is written anew in one piece: about a beat


@dataclasses.dataclass(frozen=True)
class Job:
  """A request that has been checked, with the settings it comes to."""

  request: Request
  settings: SampleConfig
  values: dict[str, int]

  @classmethod
  def plan(cls, request: Request, config: Config, codec: Codec) -> "Job":
    """Returns the job a request comes to.

    Raises:
      UserError: if it breaks a rule, or the model or the codec cannot do it.
    """
    check(request)
    transcode.check(codec, request.context, request.rate_hz, request.loop)
    settings = resolve_settings(request.settings, config)
    names = ("context", *config.model.sources)
    guidance = {n: float(settings.guidance[n]) for n in names if n in settings.guidance}
    settings = dataclasses.replace(settings, guidance=guidance)
    values = resolve_conditions(request.conditions, settings.assumed, config.model)
    return cls(request, settings, values)

  @property
  def indices(self) -> Int[np.ndarray, " C"]:
    """The value of each categorical source; -1 where it is unknown."""
    return np.array(list(self.values.values()), np.int32)

  @property
  def kind(self) -> tuple:
    """What requests must share to share a batch."""
    request = self.request
    return request.context.shape[1], request.rate_hz, request.loop, repr(self.settings)

  def rows(
    self, codec: Codec, heard: transcode.Heard
  ) -> tuple[Int[np.ndarray, "n T Q"], Bool[np.ndarray, "n T Q"]]:
    """Returns the tokens given to each take, and which of them are to be kept."""
    request, (frames, levels) = self.request, heard.codes.shape
    given = np.zeros((request.takes, frames, levels), np.int32)
    known = np.zeros(given.shape, bool)
    if request.stem is None:
      return given, known
    length = min(request.stem.shape[1], request.context.shape[1])
    room = request.context.shape[1] - length
    stem = np.pad(request.stem[:, :length], ((0, 0), (0, room)))
    own = transcode.encode(codec, stem, request.rate_hz, request.loop, heard.gain_db)
    given[:] = own.codes
    edges = transcode.first_frames(codec, heard)
    start, stop = edges[:-1], np.minimum(edges[1:], request.context.shape[1])
    kept = np.zeros(frames, bool)
    for a, b in request.keep_s:
      kept |= (start >= a * request.rate_hz - 1) & (stop <= min(b * request.rate_hz, length) + 1)
    known[:] = kept[None, :, None]
    if request.vary:
      free = np.flatnonzero(~kept & (stop <= length + 1))
      span = round(SPAN_S * codec.spec.frame_rate_hz)
      for take, row in enumerate(known):
        rng = np.random.default_rng([request.seed, take])
        row[free] = True
        row[draw_spans(rng, free, round(request.vary * len(free)), span)] = False
    return given, known

  def describe(self) -> dict[str, Any]:
    """Returns what was asked for, of JSON types."""
    request = self.request
    named = {**self.settings.assumed, **request.conditions}
    conditions = {
      name: {"value": named.get(name), "index": index} for name, index in self.values.items()
    }
    return {
      "seed": request.seed,
      **dataclasses.asdict(self.settings),
      "conditions": conditions,
      "level_lu": request.level_lu,
      "keep_s": [list(stretch) for stretch in request.keep_s],
      "vary": request.vary,
      "loop": request.loop,
    }


def draw_spans(
  rng: np.random.Generator, free: Int[np.ndarray, " n"], count: int, span: int
) -> Int[np.ndarray, " count"]:
  """Returns `count` of the free frames: whole runs of `span` of them, the last one cut to fit.

  Lone frames would each be filled in between their neighbours, and hardly a note would change.
  """
  block = (np.arange(len(free)) + rng.integers(span)) // span
  turn = rng.permutation(len(free) // span + 2)[block]
  return free[np.argsort(turn, stable=True)[:count]]
