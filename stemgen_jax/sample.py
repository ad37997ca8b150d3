# SPDX-License-Identifier: Apache-2.0
r"""Listens to a piece of music and writes one more instrument for it.

Example:
  python -m stemgen_jax.sample --checkpoint runs/demo/model --context loop.wav --instrument bass \
    --out takes --takes 2 --seed 1 --guidance context=3 --guidance instrument=1.5

Writes take_00.wav (the stem), take_00_mix.wav (the stem over the context), ... and settings.json,
at the context's sample rate and length. The same command gives the same bytes.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from rich.console import Console

import stemgen_jax
from stemgen_jax import codec as codecs
from stemgen_jax import sharding
from stemgen_jax.audio import Samples, convert_audio, read_audio, write_audio
from stemgen_jax.categories import category_index
from stemgen_jax.checkpoint import load_average
from stemgen_jax.cli import build_parser
from stemgen_jax.codec.bundle import DEMO_BUNDLE
from stemgen_jax.codec.segments import DEFAULT_SCALE
from stemgen_jax.config import Config, MeshConfig
from stemgen_jax.decode import options_of
from stemgen_jax.errors import UserError, run_cli
from stemgen_jax.files import make_folder, write_text
from stemgen_jax.generate import build_generate, generate_windows, take_keys
from stemgen_jax.model import build

PEAK = 0.99  # the loudest sample of a written mix
STEM_SCALE = 0.5  # RMS of a stem over its context's, where the codes hold no loudness
AUDIBLE = 1e-3  # RMS of a context below which it says nothing of loudness


def sample(arguments: argparse.Namespace) -> list[Path]:
  """Runs the command and returns the paths it wrote."""
  console = Console(stderr=True)
  mesh = sharding.build_mesh(MeshConfig(), jax.devices()[:1])
  config, params, meta = load_average(arguments.checkpoint, mesh)
  settings = resolve_settings(arguments, config)
  codec = codecs.load(arguments.codec)
  if codec.fingerprint != meta["dataset"]["codec_fingerprint"]:
    raise UserError(
      f"codec must be the one the checkpoint was trained on,"
      f" {meta['dataset']['codec_fingerprint'][:12]}; got {arguments.codec} with fingerprint"
      f" {codec.fingerprint[:12]}. Give that codec's bundle as --codec."
    )
  context, rate_hz = read_context(arguments, codec.spec.sample_rate)
  heard = convert_audio(context, rate_hz, codec.spec.sample_rate, codec.spec.channels)
  if not heard.shape[1]:
    raise UserError(
      f"the context must last a sample or more at the codec's {codec.spec.sample_rate} Hz; got"
      f" {arguments.context} of {context.shape[1]} sample(s) at {rate_hz} Hz. Give more music."
    )
  make_folder(arguments.out, "--out")

  with console.status("encoding the context"):
    context_codes = codec.encode(heard[None])[0]
  with console.status("writing the stem") as status:
    codes = generate_windows(
      build_generate(build(config.model), config.model.n_codes, settings["guidance_mode"]),
      params,
      context_codes,
      np.array([settings["conditions"][name]["index"] for name in config.model.sources], np.int32),
      take_keys(arguments.seed, arguments.takes),
      options_of(settings),
      jnp.array([settings["guidance"][name] for name in ("context", *config.model.sources)]),
      config.data.crop_frames,
      lambda done, total: status.update(f"writing the stem: window {done} of {total}"),
    )
  with console.status("decoding"):
    stems = codec.decode(codes, choose_scales(codec, heard, len(codes)))

  written, takes = [], []
  for i, stem in enumerate(stems):
    stem = fit_length(convert_audio(stem, codec.spec.sample_rate, rate_hz, len(stem)), context)
    mix = context + (stem if len(stem) == len(context) else stem.mean(axis=0, keepdims=True))
    gain = min(1.0, PEAK / max(np.abs(mix).max(), np.abs(stem).max(), 1e-9))
    paths = [arguments.out / f"take_{i:02d}.wav", arguments.out / f"take_{i:02d}_mix.wav"]
    for path, samples in zip(paths, (stem, mix)):
      write_audio(path, gain * samples, rate_hz)
    written += paths
    takes.append({"files": [path.name for path in paths], "gain_db": 20 * math.log10(gain)})
  record = {
    "stemgen_jax": stemgen_jax.__version__,
    "jax": jax.__version__,
    "checkpoint": str(arguments.checkpoint),
    "step": meta["step"],
    "codec": codec.fingerprint,
    "context": str(arguments.context or f"silence of {arguments.silence_s} s"),
    "sample_rate_hz": rate_hz,
    "duration_s": context.shape[1] / rate_hz,
    **settings,
    "takes": takes,
  }
  write_text(arguments.out / "settings.json", json.dumps(record, indent=1) + "\n")
  return [*written, arguments.out / "settings.json"]


def choose_scales(
  codec: codecs.Codec, heard: Samples, takes: int
) -> Float[np.ndarray, "takes segments"] | None:
  """Returns the loudness at which to decode stems, if the codec does not put it into the codes.

  Half the context's, segment by segment: as loud as one of the context's stems, if it has four.
  """
  scales = codec.scales(heard[None])
  if scales is None:
    return None
  scales = np.where(scales > AUDIBLE, STEM_SCALE * scales, DEFAULT_SCALE)
  return np.repeat(scales.astype(np.float32), takes, axis=0)


def resolve_settings(arguments: argparse.Namespace, config: Config) -> dict:
  """Returns the sampling settings: the checkpoint's defaults under what the command line gives.

  Raises:
    UserError: if a source, value or number is not one the model can use.
  """
  defaults, sources = config.sample, config.model.sources
  settings = {"seed": arguments.seed}
  for name in (
    "steps", "w_conf", "w_causal", "w_noise", "confidence", "noise", "temperature", "top_p",
    "guidance_mode",
  ):  # fmt: skip
    given = getattr(arguments, name)
    settings[name] = getattr(defaults, name) if given is None else given
  given = dict(arguments.condition)
  if arguments.instrument is not None:
    given["instrument"] = arguments.instrument
  _check_sources("--condition", given, list(sources))
  settings["conditions"] = {
    name: {
      "value": given.get(name),
      "index": category_index(given[name], values, name) if name in given else -1,
    }
    for name, values in sources.items()
  }
  scales = dict(arguments.guidance)
  _check_sources("--guidance", scales, ["context", *sources])
  settings["guidance"] = {
    name: float(scales.get(name, defaults.guidance.get(name, 1.0)))
    for name in ("context", *sources)
  }
  numbers = ("w_conf", "w_causal", "w_noise", "temperature", "top_p")
  rules = {
    **{f"--{name} must be finite": math.isfinite(settings[name]) for name in numbers},
    "--guidance must be finite": all(map(math.isfinite, settings["guidance"].values())),
    f"--steps must be {config.model.n_levels} positive numbers, one a level": (
      len(settings["steps"]) == config.model.n_levels and min(settings["steps"]) > 0
    ),
    "--temperature must not be negative": settings["temperature"] >= 0,
    "--top_p must lie in (0, 1]": 0 < settings["top_p"] <= 1,
    "--takes must be at least 1": arguments.takes >= 1,
    "--seed must lie in [0, 2^32)": 0 <= arguments.seed < 2**32,
  }
  if broken := [rule for rule, kept in rules.items() if not kept]:
    raise UserError(f"{'; '.join(broken)}. See --help.")
  return settings


def _check_sources(flag: str, given: dict, known: list[str]) -> None:
  if unknown := sorted(set(given) - set(known)):
    raise UserError(f"{flag} must name sources of this model, {known}; got {unknown}.")


def read_context(arguments: argparse.Namespace, codec_rate_hz: int) -> tuple[Samples, int]:
  """Returns the context's samples and rate: the file's, or silence at the codec's rate."""
  if arguments.context is not None:
    return read_audio(arguments.context)
  if not 0 < arguments.silence_s < math.inf:
    raise UserError(f"--silence_s must be positive; got {arguments.silence_s}.")
  return np.zeros((1, round(arguments.silence_s * codec_rate_hz)), np.float32), codec_rate_hz


def fit_length(stem: Samples, context: Samples) -> Samples:
  """Returns the stem cut, or padded with silence, to the context's length."""
  missing = max(0, context.shape[1] - stem.shape[1])
  return np.pad(stem, ((0, 0), (0, missing)))[:, : context.shape[1]]


def _pair(word: str) -> tuple[str, str]:
  name, found, value = word.partition("=")
  if not (name and found and value):
    raise argparse.ArgumentTypeError(f"must be NAME=VALUE; got {word!r}")
  return name, value


def _scale(word: str) -> tuple[str, float]:
  name, value = _pair(word)
  try:
    return name, float(value)
  except ValueError as error:
    raise argparse.ArgumentTypeError(f"must be NAME=NUMBER; got {word!r}") from error


def _steps(word: str) -> tuple[int, ...]:
  try:
    return tuple(int(number) for number in word.split(","))
  except ValueError as error:
    raise argparse.ArgumentTypeError(
      f"must be whole numbers, as 24,12,8,8; got {word!r}"
    ) from error


def main(argv: list[str] | None = None) -> None:
  """The command."""
  parser = build_parser(__doc__)
  add = parser.add_argument
  add("--checkpoint", required=True, type=Path, help="a workdir of stemgen_jax.train")
  context = parser.add_mutually_exclusive_group(required=True)
  context.add_argument("--context", type=Path, help="music to listen to: wav, flac, ogg or mp3")
  context.add_argument("--silence_s", type=float, help="start from silence of this many seconds")
  add("--instrument", help="short for --condition instrument=NAME")
  add("--condition", action="append", default=[], type=_pair, metavar="SOURCE=VALUE")
  add("--out", required=True, type=Path, help="folder for the takes")
  add("--takes", type=int, default=1, help="how many stems to write, in one batch (default 1)")
  add("--seed", type=int, default=0, help="the same seed gives the same bytes (default 0)")
  add("--codec", type=Path, default=DEMO_BUNDLE, help="codec bundle (default: the demo codec)")
  add("--guidance", action="append", default=[], type=_scale, metavar="SOURCE=SCALE",
      help="how strongly a source steers, as context=3; repeat for more sources")  # fmt: skip
  add("--guidance_mode", choices=("independent", "nested", "joint"))
  add("--steps", type=_steps, help="iterations of each level, as 24,12,8,8")
  add("--w_conf", type=float, help="weight of confidence in the order of decoding")
  add("--w_causal", type=float, help="weight of earliness: the causal bias")
  add("--w_noise", type=float, help="weight of chance")
  add("--confidence", choices=("prob", "log_prob"))
  add("--noise", choices=("uniform", "gumbel"))
  add("--temperature", type=float, help="of the token distribution; 0 takes the likeliest")
  add("--top_p", type=float, help="keep the likeliest tokens up to this probability")
  for path in sample(parser.parse_args(argv)):
    print(path)


if __name__ == "__main__":
  sys.exit(run_cli(main))
