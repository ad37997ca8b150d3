# SPDX-License-Identifier: Apache-2.0
r"""Writes stems for windows of held-out songs and measures them between floor and ceiling.

Examples:
  python -m stemgen_jax.evaluate --data runs/demo/tokens --out runs/report
  python -m stemgen_jax.evaluate --checkpoint runs/mine --data shards/mine --out runs/report \
    --examples 64 --embedding encodec --embedding musicnn
  python -m stemgen_jax.evaluate --data shards/mine --out runs/paper --protocol paper
  python -m stemgen_jax.evaluate listen runs/report            # a blind listening test
  python -m stemgen_jax.evaluate listen runs/report --results  # what was rated so far

Each window is one of training's: a random target stem, and a context mix without it. REPORT gets
index.html (tables, plots, players), report.json, table.md and every stem. The same command with the
same seed gives the same figures; stopped and started again, it goes on where it was.

--protocol paper: FAD between the model's stems and the true ones of the same windows, and MIRDD
between both over their contexts, as StemGen's sections 3.1 and 3.2 have it, on 400 windows.

--embedding, for FAD, FAD-inf, KAD and APA: encodec (the codec's latents), musicnn (from the musicnn
wheel, or musicnn=WHEEL), vggish=WEIGHTS, or NAME=MODEL.onnx, as clap=clap.onnx with clap.json.
--cocola MODEL.onnx,MATRIX: COCOLA's encoder and bilinear matrix, from files that you have.
"""

import argparse
import dataclasses
import functools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from stemgen_jax.data.records import Dataset
from stemgen_jax.errors import UserError, run_cli
from stemgen_jax.evaluate import page
from stemgen_jax.evaluate.classifier import build_classifier
from stemgen_jax.evaluate.distributions import (
  cached,
  embed,
  embed_sets,
  find_telling,
  measure_adherence,
  measure_coherence,
  measure_quality,
)
from stemgen_jax.evaluate.examples import (
  Example,
  check_windows,
  decode_stems,
  draw_windows,
  make_examples,
)
from stemgen_jax.evaluate.listening_test.opinions import mean_opinion_scores, tabulate_opinions
from stemgen_jax.evaluate.listening_test.server import listen
from stemgen_jax.evaluate.measures import measure_examples, summarise, summarise_gain
from stemgen_jax.evaluate.metrics.coherence import load_matrix
from stemgen_jax.evaluate.metrics.embeddings import Embedding, load_embedding, load_onnx
from stemgen_jax.evaluate.metrics.notes import require_parts
from stemgen_jax.evaluate.protocol import measure_protocol, tabulate_protocol
from stemgen_jax.sample import add_model_flags
from stemgen_jax.sampling.request import resolve_settings
from stemgen_jax.sampling.request_files import SETTINGS
from stemgen_jax.sampling.stemgen import StemGen
from stemgen_jax.shell.flags import build_parser
from stemgen_jax.shell.folders import claim_folder, write_text
from stemgen_jax.shell.progress import make_bars
from stemgen_jax.training.model_bundle import SONGS

PLAN = "plan.json"
EXAMPLES = {"full": 48, "paper": 400}  # windows, by protocol
TRAINING_WINDOWS = 8  # true stems of training songs, for each window judged: reference, classifier


def evaluate(arguments: argparse.Namespace) -> Path:
  """Runs the command and returns the path of the table.

  Raises:
    UserError: if a flag is wrong, or --out holds another evaluation.
  """
  seed, count = arguments.seed or 0, arguments.examples
  if count is None:
    count = EXAMPLES[arguments.protocol]
  check_windows(count, seed)
  model = StemGen.from_checkpoint(arguments.checkpoint, arguments.codec)
  if arguments.protocol == "paper":
    require_parts()  # now, and not after hours of writing stems
  dataset = open_data(arguments.data, model)
  given = {name: getattr(arguments, name) for name in SETTINGS}
  settings = resolve_settings({k: v for k, v in given.items() if v is not None}, model.config)
  embeddings = [load_embedding(spec, model.codec) for spec in arguments.embedding or ["encodec"]]
  cocola = read_cocola(arguments.cocola) if arguments.cocola else None
  out = arguments.out
  plan = {
    "model": model.describe(),
    "data": str(dataset.path.resolve()),
    "split": arguments.split,
    "protocol": arguments.protocol,
    "examples": count,
    "seed": seed,
    "settings": dataclasses.asdict(settings),
    "originals": arguments.originals and str(arguments.originals.resolve()),
  }
  claim_folder(out, PLAN, plan, "evaluation")
  train_split = model.config.data.train_split
  with make_bars() as bar:
    step = track(bar, "stems", count)
    examples = make_examples(
      model,
      dataset,
      settings,
      out,
      split=arguments.split,
      train_split=train_split,
      count=count,
      seed=seed,
      originals=arguments.originals,
      advance=step,
    )
    if arguments.protocol == "paper":
      return write_protocol(plan, examples, embeddings, cocola, out, bar)
    true = draw_windows(model, dataset, train_split, TRAINING_WINDOWS * count, seed)
    step = track(bar, "training stems", len(true["target"]))
    reference = decode_stems(model.codec, true["target"], step)
    classify, accuracy = build_classifier(model, dataset, reference, true["conditions"], examples)
    records = measure_examples(
      model, examples, classify, out / "measures.jsonl", track(bar, "descriptors", count)
    )
    results: dict[str, Any] = {
      "plan": plan,
      "n": count,
      "songs": len({e.song for e in examples}),
      "seconds": reference.shape[-1] / model.codec.decoded_rate_hz,
      "metrics": summarise(records),
      "gain": summarise_gain(records),
      "classifier": accuracy,
      "distances": {},
      "cocola": None,
    }
    for embedding in embeddings:
      found = cached(
        out / f"distances_{embedding.name}.json",
        lambda embedding=embedding: measure_distances(model, examples, embedding, reference, bar),
      )
      results["distances"][embedding.name] = found | {"tells": find_telling(found["rows"])}
    if cocola:
      results["cocola"] = measure_coherence(examples, *cocola)
  write_text(out / "report.json", json.dumps(results, indent=1) + "\n")
  write_text(out / "table.md", page.tabulate(results))
  write_text(out / "index.html", page.draw_page(results, examples))
  return out / "table.md"


def write_protocol(
  plan: dict[str, Any],
  examples: list[Example],
  embeddings: list[Embedding],
  cocola: tuple[Embedding, np.ndarray] | None,
  out: Path,
  bar: Progress,
) -> Path:
  """Measures by the paper's protocol, writes the report, and returns the path of the table."""
  found = measure_protocol(
    examples, embeddings, out / "mixes.jsonl", functools.partial(track, bar), cocola
  )
  samples, rate_hz = examples[0].read("context")
  results = {
    "plan": plan,
    "n": len(examples),
    "songs": len({e.song for e in examples}),
    "seconds": samples.shape[1] / rate_hz,
    "protocol": found,
  }
  write_text(out / "report.json", json.dumps(results, indent=1) + "\n")
  write_text(out / "table.md", tabulate_protocol(results))
  return out / "table.md"


def measure_distances(
  model: StemGen,
  examples: list[Example],
  embedding: Embedding,
  reference: np.ndarray,
  bar: Progress,
) -> dict[str, Any]:
  """Returns FAD, FAD-inf and KAD of stems, and APA of mixes, by one embedding."""
  songs, count = np.array([e.song for e in examples]), len(examples)
  step = track(bar, f"{embedding.name}: reference", len(reference))
  far = []
  for i, samples in enumerate(reference):
    far.append(embed(embedding, samples, model.codec.decoded_rate_hz))
    step(i + 1)
  stems = embed_sets(examples, embedding, False, track(bar, f"{embedding.name}: stems", count))
  mixes = embed_sets(examples, embedding, True, track(bar, f"{embedding.name}: mixes", count))
  adherence = measure_adherence(mixes, songs)
  quality = measure_quality(stems, np.concatenate(far), songs)
  rows = [{**row, **more} for row, more in zip(quality, adherence, strict=True)]
  return {"seconds": embedding.seconds, "reference": sum(map(len, far)), "rows": rows}


def open_data(given: str | None, model: StemGen) -> Dataset:
  """Returns the dataset that is given, the one of the model's training, or that of the package.

  Raises:
    UserError: if none of them is there, or the package's is of another codec.
  """
  own = model.config.data.path
  if given or (own and Path(own).exists()):
    return Dataset.open(given or own)
  dataset = Dataset.open(SONGS)
  if dataset.metadata.codec_fingerprint != model.codec.fingerprint:
    raise UserError(
      f"--data must be given: the model was trained on {own or 'shards that it does not name'},"
      " which are not here, and the songs of this package are of another codec. Make token shards"
      " with python -m data_prep.tokenize."
    )
  return dataset


def read_cocola(word: str) -> tuple[Embedding, np.ndarray]:
  """Returns COCOLA's encoder and matrix; `word` is MODEL.onnx,MATRIX."""
  encoder, comma, matrix = word.partition(",")
  if not comma:
    raise UserError(f"--cocola must be MODEL.onnx,MATRIX; got {word!r}.")
  return load_onnx("cocola", Path(encoder)), load_matrix(Path(matrix))


def track(bar: Progress, name: str, total: int):
  """Returns a function that says how many of a new task are done."""
  task = bar.add_task(name, total=total)
  return lambda done: bar.update(task, completed=done)


def main(argv: list[str] | None = None) -> None:
  """Writes the report that the command line asks for, or serves the listening test."""
  words = sys.argv[1:] if argv is None else argv
  if words[:1] == ["listen"]:
    return main_listen(words[1:])
  parser = build_parser(__doc__)
  add = parser.add_argument
  add(
    "--data",
    help="a dataset of token shards (default: the one that the model was trained on, or"
    " where that is not here, the songs of this package)",
  )
  add("--split", default="test", help="the songs judged (default test)")
  add("--protocol", choices=tuple(EXAMPLES), default="full", help="what is measured (default full)")
  add("--examples", type=int, help="windows (default 48, with --protocol paper 400)")
  add(
    "--originals",
    type=Path,
    metavar="DIR",
    help="what data_prep.originals wrote: adds the true stems before the codec",
  )
  add("--embedding", action="append", metavar="SPEC", help="for FAD; repeat for more")
  add("--cocola", metavar="MODEL.onnx,MATRIX", help="COCOLA's weights")
  add_model_flags(parser, "evaluation")
  arguments = parser.parse_args(words)
  print(evaluate(arguments).read_text(encoding="utf-8"))


def main_listen(words: list[str]) -> None:
  """The command `listen`."""
  parser = build_parser("Serves a blind listening test of a REPORT's stems on this machine.")
  add = parser.add_argument
  add("report", type=Path, help="what `python -m stemgen_jax.evaluate` wrote")
  add("--port", type=int, default=0, help="0 takes a free one")
  add("--rater", default="", help="who listens (default: the page asks)")
  add("--seed", type=int, default=0, help="of the order of trials and stems")
  add("--results", action="store_true", help="print the mean opinion scores so far, and no page")
  arguments = parser.parse_args(words)
  if arguments.results:
    print(tabulate_opinions(mean_opinion_scores(arguments.report)), end="")
  else:
    listen(arguments.report, port=arguments.port, rater=arguments.rater, seed=arguments.seed)


if __name__ == "__main__":
  sys.exit(run_cli(main))
