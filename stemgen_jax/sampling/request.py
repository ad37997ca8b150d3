# SPDX-License-Identifier: Apache-2.0
"""What a stem is asked for, checked before anything is computed."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from stemgen_jax.audio.files import Samples
from stemgen_jax.categories import category_index
from stemgen_jax.config import Config, ModelConfig, SampleConfig
from stemgen_jax.errors import UserError, find_broken

MOST_TAKES = 64  # of one request: all are held in memory
LEVELS_LU = (-40.0, 20.0)  # over the context: from hardly heard to hardly anything else


def _take_quarter(config: Config) -> SampleConfig:
  steps = tuple(-(-n // 4) for n in config.sample.steps)
  return dataclasses.replace(config.sample, steps=steps)


def _take_papers(config: Config) -> SampleConfig:
  """Source: StemGen (PAPER.md) section 3, the settings of its best results."""
  model = config.model
  guided = [name for name in ("context", "instrument") if name in ("context", *model.sources)]
  steps = (128, 64, 32, 32, *[32] * model.n_levels)[: model.n_levels]
  return SampleConfig(
    steps=steps,
    guidance=dict.fromkeys(guided, 3.0),
    guided_levels=model.n_levels,
    assumed=config.sample.assumed,
  )


def _take_naive(config: Config) -> SampleConfig:
  """The paper's comparison: no guidance, and an order of decoding without the causal bias."""
  return dataclasses.replace(_take_papers(config), w_s=0.0, guidance={}, guidance_mode="joint")


# By name: what becomes of a model's own settings, before those of a request take their place.
PRESETS: dict[str, Callable[[Config], SampleConfig]] = {
  "fast": _take_quarter,
  "paper": _take_papers,
  "naive": _take_naive,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
  """Stems asked for one context.

  Attributes:
    context: the music to listen to; silence to start from nothing.
    rate_hz: of the context, of the stem given, and of all that comes back.
    conditions: value of each categorical source by name; a source left out is unknown.
    takes: how many stems, at most MOST_TAKES.
    seed: of all chance, in [0, 2^32).
    stem: an existing stem to keep parts of, or to vary; it starts with the context.
    keep_s: stretches (from, to) of the stem that stay.
    vary: share of the other frames to write anew; 0 for all.
    loop: the end is followed by the start.
    level_lu: loudness over the context's, in LEVELS_LU; None leaves the stem as loud as the model
      meant it, as it must be where one is given.
    settings: of `config.SampleConfig`, in the place of the model's own; "preset" names several.
  """

  context: Samples
  rate_hz: int
  conditions: Mapping[str, str] = dataclasses.field(default_factory=dict)
  takes: int = 1
  seed: int = 0
  stem: Samples | None = None
  keep_s: Sequence[tuple[float, float]] = ()
  vary: float = 0.0
  loop: bool = False
  level_lu: float | None = None
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def check(request: Request) -> None:
  """Raises a UserError that lists every rule the request breaks."""
  stem, given = request.stem, request.stem is not None
  for name, kind, word in (
    ("takes", Integral, "a whole number"),
    ("seed", Integral, "a whole number"),
    ("vary", Real, "a number"),
    ("loop", bool, "true or false"),
  ):
    value = getattr(request, name)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
      raise UserError(f"{name} must be {word}; got {value!r}.")
  length_s = request.context.shape[1] / request.rate_hz if request.rate_hz > 0 else 0.0
  rules = [
    (request.rate_hz > 0, "sample_rate must be positive", request.rate_hz),
    (request.context.shape[1] > 0, "context must hold at least one sample", 0),
    (request.takes >= 1, "takes must be at least 1", request.takes),
    (
      request.takes <= MOST_TAKES,
      f"takes must be at most {MOST_TAKES} (for more, run again with another seed)",
      request.takes,
    ),
    (0 <= request.seed < 2**32, "seed must lie in [0, 2^32)", request.seed),
    (0 <= request.vary <= 1, "vary must lie in [0, 1]", request.vary),
    (
      request.level_lu is None or LEVELS_LU[0] <= request.level_lu <= LEVELS_LU[1],
      f"level must lie in [{LEVELS_LU[0]:g}, {LEVELS_LU[1]:g}] LU, or be none",
      request.level_lu,
    ),
    (
      given or not (request.keep_s or request.vary),
      "keep, continue and vary must be given with an existing stem",
      "none",
    ),
    (
      not given or bool(request.keep_s or request.vary),
      "stem must be given with what becomes of it: keep, continue or vary",
      "none of them",
    ),
    (stem is None or stem.shape[1] > 0, "stem must hold at least one sample", 0),
    (
      not given or request.level_lu is None,
      "level must be left out with a stem, which keeps its own",
      request.level_lu,
    ),
    *(
      (
        0 <= a < b and a < length_s,
        f"keep must be from an earlier to a later time, inside the context's {length_s:.2f} s",
        f"{a:g} s to {b:g} s",
      )
      for a, b in request.keep_s
    ),
  ]
  if broken := find_broken(rules):
    raise UserError(". ".join(broken) + ".")


def resolve_settings(settings: Mapping[str, Any], config: Config) -> SampleConfig:
  """Returns the model's own settings with a request's in their place.

  Raises:
    UserError: if a setting is unknown or breaks a rule.
  """
  settings = dict(settings)
  preset = settings.pop("preset", None)
  if preset is not None and not (isinstance(preset, str) and preset in PRESETS):
    raise UserError(f"preset must be one of {sorted(PRESETS)}; got {preset!r}.")
  names = [f.name for f in dataclasses.fields(SampleConfig) if f.name != "assumed"]
  if unknown := sorted(set(settings) - set(names)):
    raise UserError(f"settings must be among {names}; got {unknown}. Check the spelling.")
  own = PRESETS[preset](config) if preset else config.sample
  try:
    if "guidance" in settings and settings.get("guidance_mode", own.guidance_mode) == "joint":
      raise UserError(
        f"guidance must be left out where guidance_mode is joint, one branch that hears all; got"
        f" {dict(settings['guidance'])}. Give another --guidance_mode."
      )
    chosen = {name: _convert(getattr(own, name), value) for name, value in settings.items()}
    chosen["guidance"] = {**own.guidance, **chosen.get("guidance", {})}
    resolved = dataclasses.replace(own, **chosen)
    rules = resolved.rules(config.model)
  except (TypeError, ValueError, OverflowError) as error:
    raise UserError(
      f"settings must be of the kinds that --help tells; got {settings} ({error})."
    ) from error
  if broken := find_broken(rules):
    raise UserError(". ".join(broken) + ". See --help.")
  return resolved


def resolve_conditions(
  conditions: Mapping[str, str], assumed: Mapping[str, str], model: ModelConfig
) -> dict[str, int]:
  """Returns the index of each source's value, `assumed` where it is left out; -1 if unknown.

  Raises:
    UserError: if a source or a value is not one of the model's.
  """
  if unknown := sorted(set(conditions) - set(model.sources)):
    raise UserError(
      f"conditions must name sources of this model, {list(model.sources)}; got {unknown}."
    )
  conditions = {**assumed, **conditions}
  return {
    name: category_index(conditions[name], values, name) if name in conditions else -1
    for name, values in model.sources.items()
  }


def _convert(own: Any, value: Any) -> Any:
  """Returns a setting as a number, words or numbers of the kind of the model's own."""
  if isinstance(own, tuple):
    return tuple(map(_whole, value.split(",") if isinstance(value, str) else value))
  if isinstance(own, dict):
    return {name: float(scale) for name, scale in dict(value).items()}
  if isinstance(value, bool):
    raise ValueError(f"{value} is no number")
  if isinstance(own, int):
    return _whole(value)
  return value if isinstance(own, str) else type(own)(value)


def _whole(value: Any) -> int:
  """Returns a whole number; raises a ValueError where it has a fraction."""
  if int(value) != (float(value) if isinstance(value, str) else value):
    raise ValueError(f"{value} is no whole number")
  return int(value)
