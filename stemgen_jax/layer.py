# SPDX-License-Identifier: Apache-2.0
r"""Builds an arrangement layer by layer: each new stem listens to the mix of all before it.

Examples:
  python -m stemgen_jax.layer --start loop.wav --instruments drums,bass,piano,woodwind --out song \
    --takes 3
  python -m stemgen_jax.layer --silence_s 10 --instruments drums,bass --out song

Of each layer's takes the one with the highest listening score goes into the mix: how much likelier
the model finds the stem with its context than without, in nats a token. What is above the score of
true stems counts no more, and a take that hardly sounds is passed over. Writes mix.wav, stems/
(which add up to it), index.html to hear and see it all, and a folder for each layer with every
take; layer i takes seed + i. Stopped and started again, it goes on where it was, also with more or
other instruments: layers before the first that differs stay.
"""

import argparse
import dataclasses
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from stemgen_jax.audio.files import Samples, read_audio, write_audio
from stemgen_jax.audio.loudness import amplify
from stemgen_jax.audio.silence import STEM_LUFS
from stemgen_jax.categories import category_index
from stemgen_jax.errors import UserError, run_cli
from stemgen_jax.sample import add_model_flags, add_take_flags, write_result
from stemgen_jax.sampling.request import Request
from stemgen_jax.sampling.request_files import PARTS, SETTINGS, build_request
from stemgen_jax.sampling.stemgen import StemGen
from stemgen_jax.shell.flags import build_parser
from stemgen_jax.shell.folders import (
  claim_folder,
  keep_what_is_read,
  make_folder,
  read_json,
  write_text,
)
from stemgen_jax.shell.progress import show_state
from stemgen_jax.training.model_bundle import EXAMPLE

PLAN, LAYER, START = "layers.json", "layer.json", "00_start.wav"


def layer(arguments: argparse.Namespace) -> Path:
  """Runs the command and returns the path of the page.

  Raises:
    UserError: if a flag is wrong, or --out holds another arrangement.
  """
  flags = {name: getattr(arguments, name, None) for name in (*PARTS, *SETTINGS)}
  given = {name: value for name, value in flags.items() if value is not None}
  if arguments.start is not None:
    given["context"] = arguments.start
  source, first = build_request(given)
  model = StemGen.from_checkpoint(arguments.checkpoint, arguments.codec, arguments.devices)
  values = model.config.model.sources.get("instrument", ())
  names = [values[category_index(name, values)] for name in arguments.instruments.split(",")]
  plan = {
    "start": source,
    "start_sha256": hashlib.sha256(np.ascontiguousarray(first.context).tobytes()).hexdigest(),
    "checkpoint": model.describe()["checkpoint"],
    "flags": {k: v for k, v in given.items() if k != "context"},
  }
  out = arguments.out
  if "context" in given:
    keep_what_is_read({"--start": Path(given["context"])}, out.rglob("*"))
  model.plan(first)  # which refuses what cannot be, before anything is written
  claim_folder(out, PLAN, plan, "arrangement")
  if not (out / START).is_file():
    write_audio(out / START, first.context, first.rate_hz)
  layers: list[dict[str, Any]] = []
  with show_state() as say:
    for number, name in enumerate(names, 1):
      say(f"layer {number} of {len(names)}: {name}")
      context, _ = read_own(layers[-1]["mix"] if layers else out / START)
      folder = out / f"{number:02d}_{name}"
      so_far = names[:number]
      record = read_layer(folder, so_far) or add_layer(model, first, context, folder, so_far)
      layers.append({**record, "mix": folder / record["files"][1]})
      write_stems(out, layers, first.rate_hz)
      write_text(out / "index.html", draw_page(out, source, layers))
  return out / "index.html"


def read_own(path: Path) -> tuple[Samples, int]:
  """Returns the samples and the rate of a file that an earlier start of the command wrote.

  Raises:
    UserError: if it is damaged; it says what to remove.
  """
  try:
    return read_audio(path)
  except UserError as error:
    what = path if path.name == START else path.parent
    raise UserError(
      f"{path} must be as this program wrote it; got: {error} Or remove {what} to begin it anew."
    ) from error


def read_layer(folder: Path, names: list[str]) -> dict[str, Any] | None:
  """Returns what is known of a layer that is done: the last of these, over the others."""
  path = folder / LAYER
  record = read_json(path) if path.exists() else {}
  return record if isinstance(record, dict) and record.get("layers") == names else None


def add_layer(
  model: StemGen, first: Request, context: Samples, folder: Path, names: list[str]
) -> dict[str, Any]:
  """Writes the takes of the last of these layers and which was chosen; returns its record."""
  name, number = names[-1], len(names)
  conditions = {**first.conditions, "instrument": name}
  request = dataclasses.replace(
    first, context=context, conditions=conditions, seed=first.seed + number
  )
  (folder / LAYER).unlink(missing_ok=True)  # of other layers before it
  (result,) = model.run([model.plan(request)])
  make_folder(folder, "--out")
  takes = write_result(result, folder, "the mix of all layers before")["takes"]
  chosen = choose(takes, model.describe()["listening_score_nats"])
  seed = f"seed {first.seed} + {number}"
  print(f"layer {number}, {name}, {seed}: take {chosen} stays", file=sys.stderr)
  scores = [take["listening_score_nats"] for take in takes]
  record = {
    **takes[chosen],
    "instrument": name,
    "layers": names,
    "seed": request.seed,
    "chosen": chosen,
    "scores": scores,
  }
  write_text(folder / LAYER, json.dumps(record, indent=1) + "\n")
  return record


def choose(takes: list[dict[str, Any]], enough: float | None) -> int:
  """Returns which take goes into the mix: of those that sound, the highest listening score.

  The score also rises by copying the context, so that more than true stems have is no merit: of
  takes that have `enough`, the first goes in.
  """

  def rank(i: int) -> tuple[bool, float]:
    lufs, score = takes[i]["lufs"], takes[i]["listening_score_nats"]
    sounds = (
      lufs is not None and lufs - takes[i]["gain_db"] + takes[i]["context_gain_db"] > STEM_LUFS
    )
    return sounds, score if enough is None else min(score, enough)

  return max(range(len(takes)), key=rank)


def write_stems(out: Path, layers: list[dict[str, Any]], rate_hz: int) -> None:
  """Writes every layer's stem as it is in the mix so far, and that mix.

  Each mix may have been turned down as a whole, so earlier stems are turned down with it.
  """
  make_folder(out / "stems", "--out")
  files = [out / START] + [entry["mix"].parent / entry["files"][0] for entry in layers]
  later_db = np.cumsum([entry["mix_gain_db"] for entry in layers][::-1])[::-1]
  gains_db = [later_db[0], *later_db]
  names = ["start", *(entry["instrument"] for entry in layers)]
  for i, (file, name, gain_db) in enumerate(zip(files, names, gains_db, strict=True)):
    samples, _ = read_own(file)
    write_audio(out / "stems" / f"{i:02d}_{name}.wav", amplify(samples, float(gain_db)), rate_hz)
  written = {f"{i:02d}_{name}.wav" for i, name in enumerate(names)}
  for path in (out / "stems").glob("[0-9][0-9]_*.wav"):
    if path.name not in written:  # of an arrangement of other instruments
      path.unlink()
  mix, _ = read_own(layers[-1]["mix"])
  write_audio(out / "mix.wav", mix, rate_hz)


def draw_page(out: Path, source: str, layers: list[dict[str, Any]]) -> str:
  """Returns the page: the arrangement as a picture, and players of all that was made."""
  from stemgen_jax.pages.page import embed_figure, pyplot, render

  paths = sorted((out / "stems").glob("*.wav"))[: len(layers) + 1]
  figure, rows = pyplot.subplots(
    len(paths),
    1,
    figsize=(9, 0.9 * len(paths) + 0.5),
    sharex=True,
    sharey=True,
    layout="constrained",
    squeeze=False,
  )
  for i, (axes, path) in enumerate(zip(rows[:, 0], paths, strict=True)):
    samples, rate_hz = read_audio(path)
    cell = max(1, samples.shape[1] // 1500)
    size = samples.shape[1] // cell * cell
    peaks = np.abs(samples[:, :size]).max(axis=0).reshape(-1, cell).max(axis=1)
    time_s = np.arange(len(peaks)) * cell / rate_hz
    axes.fill_between(time_s, -peaks, peaks, color=f"C{i}", linewidth=0)
    axes.set_ylabel(path.stem[3:], rotation=0, ha="right", va="center")
    axes.set_yticks([])
    for side in ("top", "right", "left"):
      axes.spines[side].set_visible(False)
  rows[-1, 0].set_xlabel("s")
  return render(
    "layers.html",
    source=source,
    picture=embed_figure(figure),
    layers=[
      {
        **entry,
        "folder": entry["mix"].parent.name,
        "takes": [
          {"file": f"take_{i:02d}.wav", "score": score, "chosen": i == entry["chosen"]}
          for i, score in enumerate(entry["scores"])
        ],
      }
      for entry in layers
    ],
  )


def main(argv: list[str] | None = None) -> None:
  """Builds the arrangement that the command line asks for, and prints the path of its page."""
  parser = build_parser(__doc__)
  add = parser.add_argument
  start = parser.add_mutually_exclusive_group()
  start.add_argument(
    "--start",
    type=Path,
    help="music to begin with: wav, flac, ogg or mp3 (default: an example in this package)",
  )
  start.add_argument(
    "--silence_s", type=float, help="begin with silence of this many seconds, at most 3600"
  )
  add(
    "--instruments",
    default="bass,synth_lead",
    help="the layers in their order, as drums,bass,piano (default bass,synth_lead)",
  )
  add("--loop", action="store_true", default=None, help="the end is followed by the start")
  add_take_flags(parser)
  add_model_flags(parser, "layers")
  arguments = parser.parse_args(argv)
  if arguments.start is arguments.silence_s is None:
    arguments.start = EXAMPLE
  print(layer(arguments))


if __name__ == "__main__":
  sys.exit(run_cli(main))
