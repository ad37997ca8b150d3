# SPDX-License-Identifier: Apache-2.0
r"""Compares sampler settings on held-out songs: what they cost, and what they are worth.

Example:
  python -m stemgen_jax.sweep --data runs/demo/tokens --settings configs/ablations.jsonl --out sweep

A line of --settings is an object of settings (`config.SampleConfig`) and a "name"; the model's own
stand for what it leaves out. "paper": {"FAD": ..., "MIRDD": ...} are the figures of the paper, by
another model and other extractors, which then stand beside. Every setting writes a stem for the
same windows of held-out songs, with the same seeds. The table has

  s a stem       time to write it, on this machine
  score          listening score: how much likelier the model finds the stem with its context than
                 without, nats a token of level 1, with a 95 % bootstrap interval over songs
  FAD-encodec    Fréchet distance of the codec's latents (means over a second) to those of other
                 songs' true stems: smaller is nearer to real music; biased, but by as much in each
                 row of one table
  harmony,       distances of the stem from its context, 0 to 1: parts of its fit, over the stems
  rhythm         to which they apply (`stemgen_jax/evaluate/metrics/fit.py`)
  pitched        share of stems in which harmony applies, they have notes
  silent         share of stems below -50 LUFS
  FAD, MIRDD     by the paper's protocol: FAD-encodec of the stems to the true ones of the same
                 windows, MIRDD of both over their contexts (`evaluate/metrics/mirdd.py`)

beside true stems (the most there is) and those of other songs (what not listening gives). Writes
rows.jsonl, table.md and pareto.png; started again, it keeps the rows of the same settings.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from stemgen_jax.audio.loudness import measure_lufs
from stemgen_jax.audio.silence import STEM_LUFS
from stemgen_jax.codec import Codec
from stemgen_jax.config import SampleConfig
from stemgen_jax.data.records import Dataset
from stemgen_jax.errors import UserError, run_cli
from stemgen_jax.evaluate.distributions import embed as embed_audio
from stemgen_jax.evaluate.examples import (
  AT_ONCE,
  check_windows,
  decode_stems,
  draw_with_pool,
  write_stems,
)
from stemgen_jax.evaluate.floors import find_others
from stemgen_jax.evaluate.measures import compare, mean_of
from stemgen_jax.evaluate.metrics.descriptors import Descriptors, describe
from stemgen_jax.evaluate.metrics.embeddings import embed_latents
from stemgen_jax.evaluate.metrics.frechet import frechet_distance
from stemgen_jax.evaluate.metrics.intervals import bootstrap
from stemgen_jax.evaluate.metrics.mirdd import Counts, count_bins, measure_mirdd
from stemgen_jax.evaluate.metrics.mix_bins import describe_mix
from stemgen_jax.evaluate.metrics.notes import require_parts
from stemgen_jax.model.generate import take_keys
from stemgen_jax.pages.markdown import table
from stemgen_jax.sampling.request import resolve_settings
from stemgen_jax.sampling.stemgen import StemGen
from stemgen_jax.shell.flags import build_parser
from stemgen_jax.shell.folders import claim_folder, keep_what_is_read, write_text
from stemgen_jax.shell.lines import read_lines
from stemgen_jax.shell.progress import show_state

PLAN, ROWS = "plan.json", "rows.jsonl"
TRUE, OTHER = "true stems", "other songs' stems"
COLUMNS = (
  "setting", "s a stem", "score", "95 %", "FAD-encodec", "harmony", "rhythm", "pitched", "silent",
  "FAD", "MIRDD",
)  # fmt: skip
PAPER = ("FAD", "MIRDD")  # figures of the paper's tables


def sweep(arguments: argparse.Namespace) -> Path:
  """Runs the command and returns the path of the table.

  Raises:
    UserError: if a setting, the checkpoint or the dataset cannot be used.
  """
  check_windows(arguments.examples, arguments.seed)
  require_parts()  # now, and not after hours of writing stems
  model = StemGen.from_checkpoint(arguments.checkpoint, arguments.codec)
  settings, paper = read_settings(arguments.settings, model)
  dataset, count = Dataset.open(arguments.data), arguments.examples
  batch, pool = draw_with_pool(model, dataset, arguments.split, count, arguments.seed)
  batch["foreign"] = find_others(batch, pool)
  out = arguments.out
  keep_what_is_read({"--settings": arguments.settings}, [out / PLAN, out / ROWS])
  plan = {
    "model": model.describe(), "data": str(dataset.path.resolve()), "split": arguments.split,
    "examples": count, "seed": arguments.seed,
  }  # fmt: skip
  claim_folder(out, PLAN, plan, "sweep")
  path = out / ROWS
  done = dict(read_rows(path))
  with show_state() as say:
    say("embedding true stems")
    far = embed(model.codec, decode_stems(model.codec, pool["target"]))
    rate_hz = model.codec.decoded_rate_hz
    contexts = decode_stems(model.codec, batch["context"])
    heard = [describe(x, rate_hz) for x in contexts]
    true = decode_stems(model.codec, batch["target"])
    target = Target(embed(model.codec, true), count_mixes(true + contexts, rate_hz), contexts)
    for number, (name, options) in enumerate(settings.items(), 1):
      if done.get(name, {}).get("settings") == repr(options) and "MIRDD" in done[name]:
        continue  # an older version wrote rows without it
      say(f"row {number} of {len(settings)}: {name}")
      if options is None:
        codes, took_s = batch["target" if name == TRUE else "foreign"], None
      else:
        context, conditions, keys = batch["context"], batch["conditions"], take_keys(0, count)
        for size in {min(AT_ONCE, count), count % AT_ONCE} - {0}:  # compiles
          write_stems(model, context[:size], conditions[:size], keys[:size], options)
        began_s = time.perf_counter()
        codes = write_stems(model, context, conditions, keys, options)
        took_s = (time.perf_counter() - began_s) / count
      figures = measure(model, batch, heard, codes, far, target)
      done[name] = {"name": name, "settings": repr(options), "stem_s": took_s, **figures}
      write_text(path, "".join(json.dumps(row) + "\n" for row in done.values()))
  rows = [done[name] | {"paper": paper.get(name)} for name in settings]
  write_text(out / "table.md", tabulate(rows))
  draw(rows, out / "pareto.png")
  return out / "table.md"


@dataclasses.dataclass(frozen=True)
class Target:
  """The true stems of the windows, for FAD and MIRDD: latents, bins of the mixes, and contexts."""

  latents: Float[np.ndarray, "n D"]
  mixes: Counts
  contexts: Float[np.ndarray, "B channels samples"]


def read_settings(
  path: Path, model: StemGen
) -> tuple[dict[str, SampleConfig | None], dict[str, dict[str, float]]]:
  """Returns settings by name, None for stems that are not generated, and the paper's figures."""
  found: dict[str, SampleConfig | None] = {TRUE: None, OTHER: None}
  paper: dict[str, dict[str, float]] = {}
  for number, line in read_lines(path, "--settings"):
    where = f"line {number} of {path}"
    if not isinstance(line, dict) or "name" not in line:
      raise UserError(f"{where} must be an object with a name; got {line!r}.")
    name = str(line.pop("name"))
    if name in found:
      raise UserError(f"{where} must have a name that no other has; got {name!r}.")
    own = line.pop("paper", None)
    if own is not None:
      numbers = isinstance(own, dict) and all(type(x) in (int, float) for x in own.values())
      if not (numbers and set(own) == set(PAPER)):
        raise UserError(f"{where} must give paper as numbers FAD and MIRDD; got {own!r}.")
      paper[name] = own
    try:
      found[name] = resolve_settings(line, model.config)
    except UserError as error:
      raise UserError(f"{where}: {error}") from error
  return found, paper


def read_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
  """Yields the rows that an earlier start has written."""
  if path.is_file():
    for _, row in read_lines(path, "--out"):
      yield row["name"], row


def measure(
  model: StemGen,
  batch: dict[str, np.ndarray],
  heard: Sequence[Descriptors],
  codes: np.ndarray,
  far: np.ndarray,
  target: Target,
) -> dict[str, Any]:
  """Returns the figures of one set of stems; `heard` describes their contexts."""
  scores = np.concatenate(
    [
      model.score(
        batch["context"][i : i + AT_ONCE],
        codes[i : i + AT_ONCE],
        batch["conditions"][i : i + AT_ONCE],
      )
      for i in range(0, len(codes), AT_ONCE)
    ]
  )
  audio = decode_stems(model.codec, codes)
  low, high = bootstrap(scores, batch["song"])
  rate_hz = model.codec.decoded_rate_hz
  fits = [
    compare(describe(samples, rate_hz), own) for samples, own in zip(audio, heard, strict=True)
  ]
  families = {name: np.array([fit[name] for fit in fits]) for name in ("harmony", "rhythm")}
  latents = embed(model.codec, audio)
  mixes = count_mixes(audio + target.contexts, rate_hz)
  return {
    "score": float(scores.mean()),
    "low": low,
    "high": high,
    "fad_encodec": frechet_distance(far, latents),
    **{name: mean_of(values, batch["song"])["mean"] for name, values in families.items()},
    "pitched": float(np.isfinite(families["harmony"]).mean()),
    "silent": float(np.mean([measure_lufs(x, rate_hz) <= STEM_LUFS for x in audio])),
    "FAD": frechet_distance(target.latents, latents),
    "MIRDD": measure_mirdd(target.mixes, mixes, batch["song"])["MIRDD"]["mean"],
    "n": len(codes),
  }


def count_mixes(mixes: Float[np.ndarray, "B channels samples"], rate_hz: int) -> Counts:
  """Returns the bins that each mix falls into."""
  return count_bins([describe_mix(mix, rate_hz) for mix in mixes])


def embed(codec: Codec, audio: np.ndarray) -> Float[np.ndarray, "n D"]:
  """Returns the codec's latents, averaged over each second of each stem."""
  latents = embed_latents(codec)
  return np.concatenate([embed_audio(latents, x, codec.decoded_rate_hz) for x in audio])


def tabulate(rows: list[dict[str, Any]]) -> str:
  """Returns the rows as a Markdown table."""
  known = any(row["paper"] for row in rows)
  cells = [
    [
      row["name"],
      "" if row["stem_s"] is None else f"{row['stem_s']:.2f}",
      f"{row['score']:+.3f}",
      f"{row['low']:+.3f} to {row['high']:+.3f}",
      f"{row['fad_encodec']:.2f}",
      *("" if row[name] is None else f"{row[name]:.3f}" for name in ("harmony", "rhythm")),
      f"{row['pitched']:.0%}",
      f"{row['silent']:.0%}",
      f"{row['FAD']:.2f}",
      f"{row['MIRDD']:.3f}",
      *((row["paper"] or {}).get(name, "") for name in PAPER if known),
    ]
    for row in rows
  ]
  lines = table([*COLUMNS, *(f"{name}, the paper's" for name in PAPER if known)], cells)
  if known:
    lines += ["", "The paper's figures are of another model, with other extractors."]
  return "\n".join(lines) + "\n"


def draw(rows: list[dict[str, Any]], path: Path) -> None:
  """Draws score and FAD over cost; the settings that no other beats in both are joined."""
  from matplotlib.figure import Figure

  made = [row for row in rows if row["stem_s"] is not None]
  figure = Figure(figsize=(13, 6), layout="constrained")
  score = ("score", "listening score, nats a token", 1, "linear")
  panels = zip(
    figure.subplots(1, 2), (score, ("fad_encodec", "FAD-encodec", -1, "log")), strict=True
  )
  for axes, (key, label, sign, scale) in panels:
    front, best = [], -np.inf
    for row in sorted(made, key=lambda row: (row["stem_s"], -sign * row[key])):
      axes.plot(row["stem_s"], row[key], "o", color="C0")
      axes.annotate(row["name"], (row["stem_s"], row[key]), fontsize=7, xytext=(3, 3),
                    textcoords="offset points")  # fmt: skip
      if sign * row[key] > best:
        best = sign * row[key]
        front.append((row["stem_s"], row[key]))
    if front:
      axes.plot(*zip(*front, strict=True), color="C1", zorder=0)
    for row in rows:
      if row["stem_s"] is None:
        axes.axhline(row[key], linestyle="--", color="grey")
        axes.annotate(row["name"], (0, row[key]), xycoords=("axes fraction", "data"), fontsize=7)
    axes.set(xlabel="seconds a stem", ylabel=label, xscale="log", yscale=scale)
    axes.margins(x=0.15)
  figure.savefig(path, dpi=110)


def main(argv: list[str] | None = None) -> None:
  """Compares the settings of the command line, and prints their table."""
  parser = build_parser(__doc__)
  add = parser.add_argument
  add("--checkpoint", default="shipped", metavar="MODEL", help="as sample's (default shipped)")
  add("--codec", type=Path, help="codec bundle (default: where training had it, or the demo codec)")
  add("--data", required=True, help="a dataset of stemgen_jax's token shards")
  add("--split", default="test")
  add("--settings", required=True, type=Path, help="a JSONL file of settings to compare")
  add("--examples", type=int, default=32, help="windows (default 32)")
  add("--seed", type=int, default=0, help="of the choice of windows")
  add("--out", required=True, type=Path)
  print(sweep(parser.parse_args(argv)).read_text(encoding="utf-8"))


if __name__ == "__main__":
  sys.exit(run_cli(main))
