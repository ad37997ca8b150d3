# SPDX-License-Identifier: Apache-2.0
r"""Listens to a piece of music and writes one more instrument for it.

Examples:
  python -m stemgen_jax.sample                                      # a bass for an example loop
  python -m stemgen_jax.sample --context loop.wav --instrument bass --out takes --takes 2 --seed 1
  python -m stemgen_jax.sample ... --guidance context=3 --guidance instrument=1.5
  python -m stemgen_jax.sample ... --loop                           # closes without a click
  python -m stemgen_jax.sample ... --stem bass.wav --keep 0:00-0:08 # writes the rest anew
  python -m stemgen_jax.sample ... --stem bass.wav --continue       # from where it ends
  python -m stemgen_jax.sample ... --stem bass.wav --vary 0.3       # a variation of it
  python -m stemgen_jax.sample --batch contexts.jsonl --out takes

Writes take_00.wav (the stem), take_00_mix.wav (the stem over the context), ... and settings.json,
at the context's sample rate and length, in the place of those that an earlier command left there.
The same command gives the same bytes. Each line of a --batch file is an object of "context" and any
of the flags below, as {"context": "a.wav", "name": "a", "instrument": "bass", "takes": 2, "keep":
["0:00-0:08"], "guidance": {"context": 3}}, and writes into a folder of its own; its files are
looked for beside the batch file. Lines that cannot be made are all named first, the others are
made, and the exit code is then 3. No line may read what a line writes, whether it is there yet or
not: the whole batch is then refused, with exit code 2.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from stemgen_jax.audio.files import find_subtype, write_audio, write_blocks
from stemgen_jax.categories import ACTIVITY_VALUES
from stemgen_jax.config import GUIDANCE_MODES
from stemgen_jax.errors import UserError, run_cli
from stemgen_jax.sampling.request import LEVELS_LU, MOST_TAKES, PRESETS
from stemgen_jax.sampling.request_files import PARTS, SETTINGS, Planned, plan_jobs
from stemgen_jax.sampling.stemgen import Result, StemGen
from stemgen_jax.sampling.take_files import (
  SETTINGS_FILE,
  name_take,
  read_files,
  refuse_crossing,
  refuse_places,
)
from stemgen_jax.shell.flags import build_parser
from stemgen_jax.shell.folders import make_folder, spell, write_text
from stemgen_jax.shell.progress import show_state
from stemgen_jax.training.model_bundle import EXAMPLE


def plan(arguments: argparse.Namespace, model: StemGen) -> tuple[list[Planned], int]:
  """Returns what is to be made, and how many lines of a --batch are left out, which it names.

  Raises:
    UserError: if nothing can be made, or what one line writes is read by any.
  """
  left_out: list[UserError] = []
  if arguments.batch is None:
    named = list(plan_jobs(list_given(arguments), None, model.plan))
  else:
    batch, out, given = arguments.batch, arguments.out, list_given(arguments)
    named = list(
      plan_jobs(
        given,
        batch,
        model.plan,
        left_out.append,
        lambda lines: refuse_crossing(lines, batch, out, given),
      )
    )
  if not named and len(left_out) == 1:
    raise left_out[0]
  for error in left_out:
    print(f"left out: {spell(str(error))}", file=sys.stderr)
  if not named:
    raise UserError(
      f"--batch must have a line that can be made; got {len(left_out)} that cannot in"
      f" {arguments.batch}. Mend them, each as its line above says."
    )
  refuse_places(arguments.out, named)
  return named, len(left_out)


def sample(
  arguments: argparse.Namespace, model: StemGen, named: Sequence[Planned]
) -> Iterator[Path]:
  """Makes what is planned and yields the paths that are written."""
  out = arguments.out
  with show_state() as say:
    results = model.run([planned.job for planned in named], arguments.rows, say)
    make_folder(out, "--out")
    for planned, result in zip(named, results, strict=True):
      folder = out / planned.name
      make_folder(folder, "--out")
      stem = planned.read.get("--stem")
      subtype = find_subtype(stem) if stem else "PCM_16"  # whose samples stay as they are
      record = write_result(result, folder, planned.source, subtype)
      for take in record["takes"]:
        yield from (folder / file for file in take["files"])
      yield folder / SETTINGS_FILE


def list_given(arguments: argparse.Namespace) -> dict[str, Any]:
  """Returns what the command line says of a request, by the names of PARTS and SETTINGS."""
  flags = {name: getattr(arguments, name) for name in (*PARTS, *SETTINGS)}
  return {name: value for name, value in flags.items() if value is not None}


def write_result(
  result: Result, folder: Path, source: str, subtype: str = "PCM_16"
) -> dict[str, Any]:
  """Writes the takes of one context and their settings, which it returns, and says how they are.

  The files of an earlier command that are of no take now are removed. If a take cannot be written,
  as on a full disk, nothing of it stays; those before it are whole, with their settings.
  """
  takes: list[dict[str, Any]] = []
  record: dict[str, Any] = {}
  whole, stale = 0, read_files(folder)
  try:
    for i, stem in enumerate(result.stems):
      takes.append({"files": []})
      stem_file, mix_file = name_take(i)
      write_audio(folder / stem_file, stem, result.sample_rate, subtype)
      takes[i]["files"].append(stem_file)
      blocks, channels = result.mix_blocks(i), len(result.context)
      write_blocks(folder / mix_file, blocks, result.sample_rate, channels)
      takes[i]["files"].append(mix_file)
      takes[i] |= result.metadata["takes"][i]  # measured now that it can be heard
      record = {"context": spell(source), **result.metadata, "takes": takes}
      text = json.dumps(record, indent=1, allow_nan=False) + "\n"
      write_text(folder / SETTINGS_FILE, text)  # at every take: later there may be no room
      whole += 1
  except BaseException:  # ctrl-C among them
    begun = {file for take in takes[whole:] for file in take["files"]}
    del takes[whole:]
    stale = stale | begun if takes else begun
    raise
  finally:
    for file in stale - {file for take in takes for file in take["files"]}:
      (folder / file).unlink(missing_ok=True)
    tell(result.about["seed"], takes)
  return record


def tell(seed: int, takes: list[dict[str, Any]]) -> None:
  """Prints what a person wants to know of the takes, on stderr."""
  for i, take in enumerate(takes):
    onsets = take["onsets"]
    loud = "silent; another --seed, --temperature 1 or fewer --steps may sound"
    if take["lufs"] is not None:
      loud = f"{take['lufs']:.1f} LUFS"
    words = f"take {i}, seed {seed}: {loud}"
    words += f", listening score {take['listening_score_nats']:+.3f} nats"
    if onsets["offset_ms"] is not None:
      words += (
        f", {onsets['matched']} of {onsets['stem']} onsets on the context's, median"
        f" {onsets['offset_ms']:+.0f} ms"
      )
    if "seam" in take:
      words += f", seam step {take['seam']['step']:.1f}x the median"
    print(words, file=sys.stderr)


def pair(word: str) -> tuple[str, str]:
  """Reads NAME=VALUE."""
  name, found, value = word.partition("=")
  if not (name and found and value):
    raise argparse.ArgumentTypeError(f"must be NAME=VALUE; got {word!r}")
  return name, value


def scale(word: str) -> tuple[str, float]:
  """Reads NAME=NUMBER."""
  name, value = pair(word)
  try:
    return name, float(value)
  except ValueError as error:
    raise argparse.ArgumentTypeError(f"must be NAME=NUMBER; got {word!r}") from error


def whole_numbers(word: str) -> tuple[int, ...]:
  """Reads numbers between commas."""
  try:
    return tuple(int(number) for number in word.split(","))
  except ValueError as error:
    raise argparse.ArgumentTypeError(
      f"must be whole numbers, as 24,12,8,8; got {word!r}"
    ) from error


def add_take_flags(parser: argparse.ArgumentParser) -> None:
  """Adds the flags that say how many stems, how loud, and on which devices."""
  add = parser.add_argument
  add("--takes", type=int, help=f"how many stems to write, 1 to {MOST_TAKES} (default 1)")
  low, high = LEVELS_LU
  loud = f"in LU, {low:g} to {high:g} (default none: the model's own)"
  add("--level", help=f"loudness against the context's, {loud}")
  add("--devices", type=int, default=1, help="how many devices share the takes (default 1)")


def add_model_flags(parser: argparse.ArgumentParser, out: str) -> None:
  """Adds the flags that say which model, how it decodes, and where what is written goes."""
  add = parser.add_argument
  add("--out", default=out, type=Path, help=f"folder for what is written (default {out})")
  add(
    "--checkpoint",
    default="shipped",
    metavar="MODEL",
    help="workdir of stemgen_jax.train, folder of stemgen_jax.export, hf://OWNER/NAME or"
    " hf://OWNER/NAME@REVISION, a published one, or shipped, that of this package (default)",
  )
  add("--codec", type=Path, help="codec bundle (default: where training had it, or the demo codec)")
  add("--seed", type=int, help="the same seed gives the same bytes (default 0)")
  add(
    "--preset",
    choices=sorted(PRESETS),
    help="fast: a quarter of the model's own steps; paper: the settings of StemGen's best"
    " results; naive: these without guidance and causal bias",
  )
  add(
    "--guidance",
    action="append",
    type=scale,
    metavar="SOURCE=SCALE",
    help="how strongly a source steers, as context=3; repeat for more sources",
  )
  add("--guidance_mode", choices=GUIDANCE_MODES)
  add("--guided_levels", type=int, help="how many levels are guided, the first ones")
  add("--steps", type=whole_numbers, help="iterations of each level, as 24,12,8,8")
  add("--w_c", type=float, help="weight of confidence in the order of decoding")
  add("--w_s", type=float, help="weight of earliness: the causal bias")
  add("--w_r", type=float, help="weight of chance")
  add("--confidence", choices=("prob", "log_prob"))
  add("--noise", choices=("uniform", "gumbel"))
  add("--temperature", type=float, help="of the first level's tokens; 0 takes the likeliest")
  add("--fine_temperature", type=float, help="the same at the levels after the first")
  add("--top_p", type=float, help="keep the likeliest tokens up to this probability")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
  """Returns the command line's flags; with nothing given, those of the package's example."""
  parser = build_parser(__doc__)
  add = parser.add_argument
  context = parser.add_mutually_exclusive_group()
  context.add_argument(
    "--context",
    type=Path,
    help="music to listen to: wav, flac, ogg or mp3, with PyAV m4a"
    " (default: an example in this package, with a bass)",
  )
  context.add_argument(
    "--silence_s", type=float, help="start from silence of this many seconds, at most 3600"
  )
  context.add_argument("--batch", type=Path, help="a JSONL file of contexts; flags are defaults")
  add("--instrument", help="short for --condition instrument=NAME")
  add("--activity", choices=ACTIVITY_VALUES, help="how much of the time it plays")
  add("--condition", action="append", type=pair, metavar="SOURCE=VALUE")
  add("--stem", type=Path, help="an existing stem, to keep parts of or to vary")
  add(
    "--keep",
    action="append",
    metavar="FROM-TO",
    help="a stretch of --stem that stays, as 0:00-0:08; repeat for more",
  )
  add("--continue", action="store_true", default=None, help="keep all of --stem, and go on from it")
  add("--vary", type=float, help="share of --stem to write anew, beat by beat, 0 to 1")
  add("--loop", action="store_true", default=None, help="the end is followed by the start")
  add("--rows", type=int, default=8, help="takes computed at once over a --batch (default 8)")
  add_take_flags(parser)
  add_model_flags(parser, "takes")
  arguments = parser.parse_args(argv)
  if arguments.context is arguments.silence_s is arguments.batch is None:
    arguments.context = EXAMPLE
    if not (arguments.instrument or arguments.condition):
      arguments.instrument = "bass"
  return arguments


def main(argv: list[str] | None = None) -> int:
  """Writes the stems of the command line, prints their paths; returns 3 if lines were left out."""
  arguments = parse(argv)
  model = StemGen.from_checkpoint(arguments.checkpoint, arguments.codec, arguments.devices)
  named, left_out = plan(arguments, model)
  for path in sample(arguments, model, named):
    print(path)
  if left_out:
    lines = f"{left_out} line{'s' if left_out > 1 else ''} of {arguments.batch}"
    print(f"{lines} left out: mend them and run the same command.", file=sys.stderr)
  return 3 if left_out else 0


if __name__ == "__main__":
  sys.exit(run_cli(main))
