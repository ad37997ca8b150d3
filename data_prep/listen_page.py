# SPDX-License-Identifier: Apache-2.0
r"""Makes a page to hear a model by: contexts, true stems and generated ones as small Ogg files.

Example:
  python -m stemgen_jax.evaluate --data DATA --out runs/report
  python -m stemgen_jax.sample --context my_loop.wav --instrument bass --out runs/takes
  python -m data_prep.listen_page --report runs/report --takes runs/takes --out listen

Nothing is chosen by ear: of a report it takes the first window of every instrument, then the second
of every one, and so on, until there are --examples of them; of what `sample` wrote, the first take.
Writes for each context.ogg, true.ogg (of a report), generated.ogg, mix.ogg and a picture of all on
one scale, index.html, and README.md with the pictures.
"""

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stemgen_jax.audio.files import Samples, convert_audio, read_audio, write_blocks
from stemgen_jax.errors import UserError, run_cli
from stemgen_jax.pages.page import pyplot, render
from stemgen_jax.shell.flags import build_parser
from stemgen_jax.shell.folders import appearing, keep_what_is_read, write_text

QUALITY = 0.5  # of Vorbis, as soundfile's compression level has it: 0 is the best
PEAK = 0.95
MOST_HZ = 12_000  # of the pictures


@dataclasses.dataclass(frozen=True)
class Sounds:
  """What is heard of one example, all at one rate and one gain.

  Attributes:
    name: of its files.
    title: what it is, in a few words.
    sounds: name of a sound to [1, samples], in the order of the page.
    rate_hz: of all of them.
  """

  name: str
  title: str
  sounds: dict[str, Samples]
  rate_hz: int


def order_examples(listed: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """Returns the windows of a report: the first of every instrument, the second of every one, ..."""
  seen: dict[str, int] = {}
  ranks = []
  for entry in listed:
    ranks.append(seen.get(entry["category"], 0))
    seen[entry["category"]] = ranks[-1] + 1
  return [listed[i] for i in sorted(range(len(listed)), key=lambda i: (ranks[i], i))]


def read_report(report: Path, count: int) -> Iterator[Sounds]:
  """Yields the first examples of a report of stemgen_jax.evaluate.

  Raises:
    UserError: if it is none.
  """
  try:
    listed = json.loads((report / "examples.json").read_text(encoding="utf-8"))
  except (OSError, ValueError) as error:
    raise UserError(
      f"--report must be a folder that stemgen_jax.evaluate wrote; got {report} ({error})."
    ) from error
  for number, entry in enumerate(order_examples(listed)[:count], 1):
    files = {"context": entry["context"], "true": entry["sets"]["true"],
             "generated": entry["sets"]["model"]}  # fmt: skip
    title = f"{entry['category']} for {entry['song']}, window {entry['id']}"
    yield collect(f"{number:02d}", title, {name: report / file for name, file in files.items()})


def read_takes(number: int, folder: Path) -> Sounds:
  """Returns the first take of a folder that `stemgen_jax.sample` wrote.

  Raises:
    UserError: if it is none, or its context is not there any more.
  """
  try:
    record = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    context, take = Path(record["context"]), record["takes"][0]["files"][0]
    value = record["conditions"].get("instrument", {}).get("value") or "a stem"
  except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
    raise UserError(
      f"--takes must be folders that stemgen_jax.sample wrote; got {folder} ({error})."
    ) from error
  files = {"context": context, "generated": folder / take}
  return collect(f"{number:02d}", f"{value} for {context.stem}", files)


def collect(name: str, title: str, files: dict[str, Path]) -> Sounds:
  """Returns the sounds of files, and the mix of context and generated stem, at one gain."""
  read = {kind: read_audio(path) for kind, path in files.items()}
  rate_hz = read["generated"][1]
  sounds = {kind: convert_audio(x, hz, rate_hz, 1) for kind, (x, hz) in read.items()}
  length = min(x.shape[1] for x in sounds.values())
  sounds = {kind: x[:, :length] for kind, x in sounds.items()}
  sounds["mix"] = sounds["context"] + sounds["generated"]
  gain = PEAK / max(float(np.abs(x).max()) for x in sounds.values() if x.any())
  return Sounds(name, title, {kind: gain * x for kind, x in sounds.items()}, rate_hz)


def write_example(example: Sounds, out: Path) -> None:
  """Writes the sounds as Ogg files, and their spectrograms as one picture."""
  for kind, samples in example.sounds.items():
    path = out / f"{example.name}_{kind}.ogg"
    write_blocks(path, [samples], example.rate_hz, len(samples), "VORBIS", QUALITY)
  shown = [kind for kind in example.sounds if kind != "mix"]
  figure, rows = pyplot.subplots(
    len(shown), figsize=(9, 1.5 * len(shown)), sharex=True, layout="constrained", squeeze=False
  )
  for axes, kind in zip(rows[:, 0], shown, strict=True):
    mono = example.sounds[kind][0] + 1e-6 * np.random.default_rng(0).normal(
      size=example.sounds[kind].shape[1]
    )
    axes.specgram(mono, NFFT=2048, noverlap=1536, Fs=example.rate_hz, vmin=-130, vmax=-40)
    axes.set(ylim=(0, min(MOST_HZ, example.rate_hz / 2)), ylabel=kind)
  rows[-1, 0].set(xlabel="s")
  figure.savefig(out / f"{example.name}.jpg", dpi=70, pil_kwargs={"quality": 80})
  pyplot.close(figure)


def write_page(examples: list[Sounds], out: Path, about: str) -> None:
  """Writes all examples, the page that plays them, and README.md; the folder appears whole."""
  with appearing(out) as partial:
    partial.mkdir(parents=True)
    for example in examples:
      write_example(example, partial)
    listed = [
      {"name": e.name, "title": e.title, "sounds": [(k, f"{e.name}_{k}.ogg") for k in e.sounds]}
      for e in examples
    ]
    write_text(partial / "index.html", render("heard.html", examples=listed, about=about))
    write_text(partial / "README.md", render("heard.md", examples=listed, about=about))


def main(argv: list[str] | None = None) -> None:
  """Writes the page that the command line asks for, and prints where it lies."""
  parser = build_parser(__doc__)
  add = parser.add_argument
  add("--report", type=Path, required=True, help="of stemgen_jax.evaluate")
  add("--takes", type=Path, nargs="*", default=[], help="folders of stemgen_jax.sample")
  add("--examples", type=int, default=8, help="how many of the report (default 8)")
  add("--about", default="", help="a sentence on what is heard, for the head of the page")
  add("--out", type=Path, required=True, help="the folder; replaced if it is there")
  arguments = parser.parse_args(argv)
  if arguments.examples < 1:
    raise UserError(f"--examples must be at least 1; got {arguments.examples}.")
  if arguments.out.exists() and not (arguments.out / "01_context.ogg").is_file():
    raise UserError(f"--out must be a new folder, or such a page; got {arguments.out}.")
  read = {"--report": arguments.report / "examples.json"}
  read |= {f"--takes {folder}": folder / "settings.json" for folder in arguments.takes}
  keep_what_is_read(read, arguments.out.rglob("*"))
  examples = list(read_report(arguments.report, arguments.examples))
  first = len(examples) + 1
  examples += [read_takes(first + i, folder) for i, folder in enumerate(arguments.takes)]
  write_page(examples, arguments.out, arguments.about)
  print(arguments.out / "index.html")


if __name__ == "__main__":
  sys.exit(run_cli(main))
