# SPDX-License-Identifier: Apache-2.0
r"""Writes one self-contained HTML page about a demo run: players, pictures, numbers, stages.

Example:
  python -m stemgen_jax.report --demo runs/demo --song Track00001

Reads what the demo left in its folder: the wav files, the run's metrics, settings and stages.
"""

import base64
import io
import itertools
import json
import os
import platform
import sys
from pathlib import Path

import jinja2
import matplotlib
import numpy as np
import soundfile

matplotlib.use("agg")
from matplotlib import pyplot

from stemgen_jax import codec as codecs
from stemgen_jax.audio import Samples, convert_audio, read_audio
from stemgen_jax.cli import build_parser
from stemgen_jax.codec.bundle import DEMO_BUNDLE
from stemgen_jax.config import Config, from_dict
from stemgen_jax.data import make_loader
from stemgen_jax.errors import UserError, run_cli
from stemgen_jax.evaluation.listening import unigram_entropy
from stemgen_jax.files import write_text
from stemgen_jax.metrics import read_metrics
from stemgen_jax.records import Dataset

ENTROPY_BATCHES = 64
TRACKS = (  # file, heading, what it is
  ("context.wav", "Context", "what the model hears: all stems of a held-out song but one"),
  ("stem.wav", "Generated stem", "what it writes for it (take 0)"),
  ("mix.wav", "Mix", "the generated stem over the context"),
  ("takes/take_01.wav", "Generated stem, take 1", "another draw for the same context"),
  ("target.wav", "Target", "the stem that the song really has, never seen by the model"),
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
  tracks.append(describe_ceiling(demo / "target.wav"))
  page = (
    _environment()
    .get_template("report.html")
    .render(
      song=song,
      settings=settings,
      settings_json=json.dumps(settings, indent=1),
      tracks=tracks,
      loss_picture=draw_loss(rows, float(np.mean(entropy))),
      listening=tabulate_listening(rows, entropy),
      stages=stages,
      total_s=sum(stage["seconds"] for stage in stages.values()),
      config=config,
      commit=meta["git_commit"],
      machine=f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
    )
  )
  write_text(demo / "report.html", page)
  return demo / "report.html"


def measure_entropy(config: Config) -> np.ndarray:
  """Unigram entropy in nats of each level, over the targets that training draws."""
  loader = make_loader(
    Dataset.open(config.data.path),
    config.data.train_split,
    crop_frames=config.data.crop_frames,
    batch_size=config.data.batch_size,
    seed=config.seed,
    silence_gate_db=config.data.silence_gate_db,
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
    (*levels, "mean"), (*entropy, np.mean(entropy)), (*train, np.mean(train))
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


def describe_track(heading: str, text: str, samples: Samples, rate_hz: int) -> dict[str, str]:
  """Returns a player's heading, text, audio and spectrogram (both as data URIs)."""
  flac = io.BytesIO()
  soundfile.write(flac, samples.T, rate_hz, format="FLAC", subtype="PCM_16")
  figure, axes = pyplot.subplots(figsize=(9, 1.8), layout="constrained")
  mono = samples.mean(axis=0) + 1e-6 * np.random.default_rng(0).normal(size=samples.shape[1])
  axes.specgram(mono, NFFT=1024, noverlap=512, Fs=rate_hz, vmin=-130)
  axes.set(ylim=(0, min(8000, rate_hz / 2)), xlabel="s", ylabel="Hz")
  return {
    "heading": heading,
    "text": text,
    "audio": _data_uri("audio/flac", flac.getvalue()),
    "picture": _picture(figure),
  }


def describe_ceiling(target: Path) -> dict[str, str]:
  """The target through the codec: as good as any stem of this codec can sound."""
  samples, rate_hz = read_audio(target)
  codec = codecs.load(DEMO_BUNDLE)
  heard = convert_audio(samples, rate_hz, codec.spec.sample_rate, codec.spec.channels)
  decoded = np.asarray(codec.decode(codec.encode(heard[None])))[0]
  text = "the target as tokens and back: the most that a stem can sound like with this codec"
  return describe_track("Target through the codec", text, decoded, codec.spec.sample_rate)


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
    axes.plot(*zip(*points), label=label, marker="o" if len(points) < 20 else None)
  axes.axhline(entropy, color="grey", linestyle="--", label="unigram entropy of the codes")
  axes.set(xlabel="step", ylabel="nats a token")
  axes.legend(fontsize=8)
  return _picture(figure)


def _picture(figure: pyplot.Figure) -> str:
  png = io.BytesIO()
  figure.savefig(png, format="png", dpi=110)
  pyplot.close(figure)
  return _data_uri("image/png", png.getvalue())


def _data_uri(kind: str, data: bytes) -> str:
  return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _environment() -> jinja2.Environment:
  loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
  return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)


def main(argv: list[str] | None = None) -> None:
  """The command."""
  parser = build_parser(__doc__)
  parser.add_argument("--demo", required=True, type=Path, help="folder of a finished demo")
  parser.add_argument("--song", required=True, help="name of the held-out song")
  arguments = parser.parse_args(argv)
  print(write_report(arguments.demo, arguments.song))


if __name__ == "__main__":
  sys.exit(run_cli(main))
