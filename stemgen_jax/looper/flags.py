# SPDX-License-Identifier: Apache-2.0
"""A take as the flags of `python -m stemgen_jax.sample` that give it again, byte for byte."""

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Model:
  """Which model a session uses, and what its takes are asked for beside their own flags.

  Attributes:
    checkpoint: for --checkpoint.
    codec: for --codec; None leaves it out.
    steps: for --steps; "" leaves it out.
    guided: whether --guidance context=... may be given.
  """

  checkpoint: str = "shipped"
  codec: Path | None = None
  steps: str = ""
  guided: bool = True


def build_words(
  model: Model,
  context: str,
  instrument: str,
  seed: int,
  guidance: float,
  stem: str | None = None,
  keep: Sequence[tuple[float, float]] = (),
  vary: float | None = None,
) -> tuple[str, ...]:
  """Returns the flags of a take, but for --out.

  Args:
    model: which model, with which steps.
    context: what it listens to, relative to the session's folder.
    instrument: that it is to be; "" for a model that knows none.
    seed: of all chance.
    guidance: how strongly the context steers.
    stem: an existing take, relative to the session's folder, of which something stays.
    keep: stretches of it that stay, in seconds.
    vary: share of it to write anew, from 0 to 1; None for all that is not kept.
  """
  words = [] if model.checkpoint == "shipped" else ["--checkpoint", model.checkpoint]
  words += [] if model.codec is None else ["--codec", str(model.codec)]
  words += ["--context", context, "--loop", "--seed", str(seed)]
  words += ["--instrument", instrument] if instrument else []
  words += ["--steps", model.steps] if model.steps else []
  words += ["--guidance", f"context={guidance:g}"] if model.guided else []
  words += ["--stem", stem] if stem else []
  for start_s, stop_s in keep:
    words += ["--keep", f"{start_s:.4f}-{stop_s:.4f}"]
  words += [] if vary is None else ["--vary", f"{vary:g}"]
  return tuple(words)


def show_command(words: Sequence[str], out: str = "again") -> str:
  """Returns the command line of a take's flags, to be typed in the session's folder."""
  return shlex.join(["python", "-m", "stemgen_jax.sample", *words, "--out", out])
