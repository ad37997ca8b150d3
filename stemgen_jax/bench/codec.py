# SPDX-License-Identifier: Apache-2.0
r"""Seconds of audio encoded and decoded a second, in JAX and in PyTorch.

Example:
  python -m stemgen_jax.bench codec --codec encodec_32khz runs/codec/bundle --seconds 10

Both take turns on the same audio (one signal, float32) with the same number of threads, so that a
drift of the machine meets both. PyTorch runs in a process of its own. The first call of each is
apart: it compiles. Speed does not depend on the weights, so the published architectures have
random ones.
"""

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Array, Float

from stemgen_jax import codec as codecs
from stemgen_jax.bench.table import Row, describe_machine
from stemgen_jax.bench.worker import TorchWorker
from stemgen_jax.codec.architecture import GROUP_NORM, CodecSpec, tensor_shapes
from stemgen_jax.codec.bundle import DEMO_BUNDLE, save_bundle
from stemgen_jax.errors import UserError

_LICENCE, _SOURCE = "none", "random weights"
PUBLISHED = {
  "encodec_24khz": CodecSpec(sample_rate=24_000, n_levels=32, licence=_LICENCE, source=_SOURCE),
  "encodec_32khz": CodecSpec(
    sample_rate=32_000,
    n_levels=4,
    n_codes=2048,
    ratios=(8, 5, 4, 4),
    n_filters=64,
    causal=False,
    true_skip=True,
    licence=_LICENCE,
    source=_SOURCE,
  ),
  "encodec_48khz": CodecSpec(
    sample_rate=48_000,
    channels=2,
    n_levels=16,
    causal=False,
    norm=GROUP_NORM,
    normalize=True,
    segment_s=1.0,
    licence=_LICENCE,
    source=_SOURCE,
  ),
}
CALLS = ("encode", "decode")
COLUMNS = {
  "codec": ("codec", ""),
  "call": ("call", ""),
  "library": ("library", ""),
  "version": ("version", ""),
  "audio_s_per_s": ("audio-s / s", ".1f"),
  "times_torch": ("x torch", ".2f"),
  "median_s": ("median s", ".3f"),
  "min_s": ("min s", ".3f"),
  "first_s": ("first call s", ".2f"),
  "note": ("", ""),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the subcommand's flags."""
  parser.add_argument(
    "--codec",
    nargs="+",
    metavar="CODEC",
    default=[*PUBLISHED, str(DEMO_BUNDLE)],
    help=f"{', '.join(PUBLISHED)} (random weights) or a bundle's folder; default: these and the"
    " demo's bundle",
  )
  parser.add_argument("--seconds", type=float, default=10.0, help="length of the audio")
  parser.add_argument("--repeats", type=int, default=5, help="timed calls of each")


def measure_all(arguments: argparse.Namespace) -> Iterator[Row]:
  """Yields two rows, JAX's and PyTorch's, for every codec and call.

  Raises:
    UserError: if a number breaks its rule or a bundle cannot be loaded.
  """
  if not 0 < arguments.seconds < float("inf") or arguments.repeats < 1:
    raise UserError(
      "--seconds must be above 0 and --repeats at least 1; got"
      f" --seconds {arguments.seconds} --repeats {arguments.repeats}. Change them."
    )
  for name in arguments.codec:
    print(f"measuring {name}", file=sys.stderr)
    with contextlib.ExitStack() as stack:
      bundle = Path(name)
      if name in PUBLISHED:
        bundle = Path(stack.enter_context(tempfile.TemporaryDirectory())) / name
        save_random(bundle, PUBLISHED[name])
      yield from measure(bundle, arguments.seconds, arguments.repeats)


def save_random(bundle: Path, spec: CodecSpec) -> None:
  """Writes a bundle of random weights under which every layer keeps its signal's size."""
  rng = np.random.default_rng(0)
  weights = {}
  for name, shape in tensor_shapes(spec).items():
    if "bias" in name:
      weights[name] = np.zeros(shape, np.float32)
    elif name.endswith(("weight_g", "norm.weight")):
      weights[name] = np.ones(shape, np.float32)
    else:
      fan_in = np.float32(np.prod(shape[1:]))
      weights[name] = rng.standard_normal(shape, np.float32) / np.sqrt(fan_in)
  save_bundle(bundle, spec, weights)


def measure(bundle: Path, seconds: float, repeats: int) -> list[Row]:
  """Returns the rows of one bundle.

  Raises:
    UserError: if the bundle cannot be loaded.
  """
  codec = codecs.load(bundle)
  samples = max(round(seconds * codec.spec.sample_rate), 1)
  audio = np.random.default_rng(0).standard_normal((1, codec.spec.channels, samples), np.float32)
  audio /= 10
  words = ["--codec", bundle, "--shape", *audio.shape]
  with TorchWorker(
    "data_prep.yardsticks.codec_timer", words, needs=["encodec"], start=audio.tobytes()
  ) as torch_timer:
    timers = (JaxTimer(codec, audio), torch_timer)
    times = {(call, timer): [] for call in CALLS for timer in timers}
    for _ in range(1 + repeats):
      for (call, timer), taken in times.items():
        taken.append(timer.time(call))
  shared = {"codec": bundle.name, "audio_s": samples / codec.spec.sample_rate, "batch": 1}
  shared |= {"dtype": "float32", "repeats": repeats, **describe_machine()}
  medians = {key: statistics.median(taken[1:]) for key, taken in times.items()}
  rows = []
  for (call, timer), (first, *taken) in times.items():
    row = shared | {"call": call, "library": timer.library, "version": timer.version}
    row["note"] = timer.note
    if not timer.note:
      median = medians[call, timer]
      row |= {"median_s": median, "min_s": min(taken), "first_s": first}
      row["audio_s_per_s"] = row["audio_s"] / median
      if not torch_timer.note:
        row["times_torch"] = medians[call, torch_timer] / median
    rows.append(row)
  return rows


class JaxTimer:
  """Times the package's own codec in this process."""

  library, version, note = "jax", jax.__version__, ""

  def __init__(self, codec: codecs.Codec, audio: Float[np.ndarray, "B channels samples"]):
    self._codec, self._audio = codec, audio
    self._codes: Array | None = None

  def time(self, call: str) -> float:
    """Returns the seconds of one `encode`, or of one `decode` of what it gave."""
    start = time.perf_counter()
    if call == "encode":
      self._codes = jax.block_until_ready(self._codec.encode(self._audio))
    elif self._codes is None:
      raise ValueError(f"encode must be timed before decode; got {call!r} first.")
    else:
      jax.block_until_ready(self._codec.decode(self._codes))
    return time.perf_counter() - start
