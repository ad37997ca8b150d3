# SPDX-License-Identifier: Apache-2.0
r"""Writes one self-contained HTML page about a demo run: players, pictures, numbers, stages.

Example:
  python -m data_prep.demo_page --demo runs/demo --song Track00001

Reads what the demo left in its folder: the wav files, the run's metrics, settings and stages.
"""

import itertools
import json
import os
import platform
import sys
from pathlib import Path

import numpy as np

from stemgen_jax import codec as codecs
from stemgen_jax.audio.files import convert_audio, read_audio
from stemgen_jax.codec.bundle import DEMO_BUNDLE
from stemgen_jax.codec.fidelity import evaluate
from stemgen_jax.config import Config
from stemgen_jax.config_json import from_dict
from stemgen_jax.data.loader import make_loader
from stemgen_jax.data.records import Dataset
from stemgen_jax.errors import UserError, run_cli
from stemgen_jax.pages.page import MOST_HZ, NARROW, describe_track, embed_figure, pyplot, render
from stemgen_jax.shell.flags import build_parser
from stemgen_jax.shell.folders import write_text
from stemgen_jax.training.listening_gain import unigram_entropy
from stemgen_jax.training.metrics import read_metrics

ENTROPY_BATCHES = 64
TRACKS = (  # file, heading, what it is
  ("context.wav", "Context", "what the model hears: all stems of a held-out song but one"),
  ("stem.wav", "Generated stem", "what it writes for it (take 0)"),
  ("mix.wav", "Mix", "the generated stem over the context"),
  ("takes/take_01.wav", "Generated stem, take 1", "another draw for the same context"),
  ("target.wav", "Target", "the stem that the song really has, never seen by the model"),
)
CODEC_CLIPS = (  # what the files of codec/ are, in their order
  "all stems together",
  "the stem that the model writes another of: the most that one can sound like with this codec",
  "another stem of the song",
)


def write_report(demo: Path, song: str) -> Path:
  """Writes `demo/report.html` and returns its path.

  Raises:
    UserError: if the folder lacks a file of a finished demo.
  """
  try:
    meta = json.loads((demo / "model" / "config.json").read_text(encoding="utf-8"))
    settings = json.loads((demo / "takes" / "settings.json").read_text(encoding="utf-8"))
    stages = json.loads((demo / "stages.json").read_text(encoding="utf-8"))
    rows = read_metrics(demo / "model")
  except OSError as error:
    raise UserError(f"demo folder must hold a finished demo; got {error}. Run it again.") from error
  config = from_dict(meta["config"])
  if "listening/true/mean" not in rows[max(rows)]:
    raise UserError(
      "the report must have the held-out losses of the last step; got a run without them. Train"
      " with --config.eval_batches above 0, in a new folder."
    )
  entropy = measure_entropy(config)
  tracks = [
    describe_track(heading, text, *read_audio(demo / file)) for file, heading, text in TRACKS
  ]
  codec = codecs.load(DEMO_BUNDLE)
  page = render(
    "report.html",
    song=song,
    settings=settings,
    settings_json=json.dumps(settings, indent=1),
    tracks=tracks,
    most_hz=MOST_HZ,
    codec=codec,
    groups=[
      describe_round_trip(codec, path, text)
      for path, text in zip(find_codec_clips(demo), CODEC_CLIPS, strict=True)
    ],
    loss_picture=draw_loss(rows, float(np.mean(entropy))),
    listening=tabulate_listening(rows, entropy),
    stages=stages,
    total_s=sum(stage["seconds"] for stage in stages.values()),
    config=config,
    commit=meta["git_commit"],
    machine=f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
  )
  write_text(demo / "report.html", page)
  return demo / "report.html"


def measure_entropy(config: Config) -> np.ndarray:
  """Unigram entropy in nats of each level, over the targets that training draws."""
  loader = make_loader(
    Dataset.open(config.data.path),
    config.data.train_split,
    config.data,
    seed=config.seed,
  )
  batches = itertools.islice(loader, ENTROPY_BATCHES)
  return unigram_entropy((batch["target"] for batch in batches), config.model.n_codes)


def tabulate_listening(rows: dict[int, dict[str, float]], entropy: np.ndarray) -> list[dict]:
  """One row a level: unigram entropy, last training loss, and held-out loss by kind of context."""
  last = rows[max(rows)]
  levels = [f"level_{q}" for q in range(1, len(entropy) + 1)]
  train = [last[f"loss/{level}"] for level in levels]
  table = []
  for name, unigram, loss in zip(
    (*levels, "mean"), (*entropy, np.mean(entropy)), (*train, np.mean(train)), strict=True
  ):
    table.append(
      {
        "name": name.replace("_", " "),
        "unigram": unigram,
        "train": loss,
        **{key: last[f"listening/{key}/{name}"] for key in ("true", "foreign", "none", "gain")},
      }
    )
  return table


def find_codec_clips(demo: Path) -> list[Path]:
  """Returns the clips that the demo left to be heard before and after the codec.

  Raises:
    UserError: if there are none.
  """
  if paths := sorted((demo / "codec").glob("[!.]*.wav")):
    return paths
  raise UserError(
    f"demo folder must hold clips for the codec; got no {demo / 'codec'}/*.wav. Run the demo again."
  )


def describe_round_trip(codec: codecs.Codec, path: Path, text: str) -> dict:
  """Returns a heading, figures, and players: before the codec, through one level, through all."""
  spec = codec.spec
  recording = read_audio(path)
  original = convert_audio(*recording, codec.decoded_rate_hz, spec.channels)
  clip = convert_audio(*recording, spec.sample_rate, spec.channels)
  codes, scales = codec.encode(clip[None]), codec.scales(clip[None])
  rate_hz = codec.decoded_rate_hz
  found = evaluate(codec, clip[None], original.mean(axis=0)[None], rate_hz)
  tracks = [describe_track("Before", f"at the codec's {rate_hz} Hz", original, rate_hz, NARROW)]
  for levels in sorted({1, spec.n_levels}):
    made = codec.decode(codes[..., :levels], scales)[0, :, : original.shape[1]]
    figures = (
      f"{found.bits_per_s[levels - 1] / 1000:.2f} kbit/s; mel distance"
      f" {found.mel_distance_db[levels - 1, 0]:.1f} dB, SI-SDR"
      f" {found.si_sdr_db[levels - 1, 0]:.1f} dB"
    )
    heading = f"After, all {levels} levels" if levels == spec.n_levels else "After, level 1 only"
    tracks.append(describe_track(heading, figures, made, rate_hz, NARROW))
  name = path.stem.partition("_")[2].replace("_", " ")
  return {"heading": name.capitalize(), "text": text, "tracks": tracks}


def draw_loss(rows: dict[int, dict[str, float]], entropy: float) -> str:
  """Loss over steps: training, validation with each kind of context, and the unigram entropy."""
  figure, axes = pyplot.subplots(figsize=(9, 3.2), layout="constrained")
  curves = {
    "training (random mask rates)": "loss",
    "validation, fully hidden, true context": "listening/true/mean",
    "validation, fully hidden, another song's context": "listening/foreign/mean",
  }
  for label, key in curves.items():
    points = [(step, row[key]) for step, row in sorted(rows.items()) if key in row]
    axes.plot(*zip(*points, strict=True), label=label, marker="o" if len(points) < 20 else None)
  axes.axhline(entropy, color="grey", linestyle="--", label="unigram entropy of the codes")
  axes.set(xlabel="step", ylabel="nats a token")
  axes.legend(fontsize=8)
  return embed_figure(figure)


def main(argv: list[str] | None = None) -> None:
  """Writes the report of a demo's folder, and prints its path."""
  parser = build_parser(__doc__)
  parser.add_argument("--demo", required=True, type=Path, help="folder of a finished demo")
  parser.add_argument("--song", required=True, help="name of the held-out song")
  arguments = parser.parse_args(argv)
  print(write_report(arguments.demo, arguments.song))


if __name__ == "__main__":
  sys.exit(run_cli(main))
