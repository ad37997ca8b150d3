# SPDX-License-Identifier: Apache-2.0
r"""Makes from nothing what lies in the package: the demo codec's decoder, and the shipped model.

Examples:
  python -m data_prep.make_shipped --workdir runs/shipped --minutes 120
  python -m data_prep.make_shipped --workdir runs/shipped --minutes 10 --songs 1600 --device gpu \
    --soundfont TimGM6mb.sf2 FluidR3Mono_GM.sf3 --midi simutrans/music openmsx freedoom2.wad
  python -m data_prep.make_shipped --workdir runs/shipped --stage model   # one stage, and no other

The stages, each one of the public commands, shown as it is run:
  music      songs of the chorales, arrangements of their own for each SoundFont, at 32 kHz, and
             versions of the songs in --midi; a share of all as a studio makes them
  decoder    a decoder of the Vocos kind on the demo codec's frozen tokens
  tokens     the music as token shards of the codec with that decoder
  model      configs/shipped.py on these, as many steps as its share of the minutes holds
  distill    the same model, with its guidance in one pass
  evaluate   the report on the package's held-out songs
  ship       shipped/model and shipped/codec, for sample --checkpoint and --codec, with the logs

The encoder and the codebooks stay those of the package, so that every shard and every model stays
valid. Decoder, model and distillation share the minutes, 2 to 2 to 1; a decoder of a few minutes is
noise, the package's had 106. The same command goes on after a stop; stages.json tells the times.
"""

import argparse
import dataclasses
import json
import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from data_prep.codecs.backends import check_device
from data_prep.music.midi_files import find_scores
from data_prep.music.render import check_soundfont, default_soundfont
from stemgen_jax.codec.bundle import DEMO_BUNDLE
from stemgen_jax.errors import UserError, run_cli
from stemgen_jax.shell.flags import build_parser
from stemgen_jax.shell.folders import claim_folder
from stemgen_jax.shell.stages import Stages
from stemgen_jax.training.model_bundle import SONGS

SONG_S, RATE_HZ = 30, 32_000
DECODER_SHARE, MODEL_SHARE, DISTILL_SHARE = 0.4, 0.4, 0.2  # of the minutes
PRODUCED = 0.3  # share of the songs with equaliser, saturation and room
VERSIONS = 2  # of each MIDI song and SoundFont
PROBE_STEPS = 4  # the last two are timed
FEW_STEPS = 100  # below which a run is validated at its end alone
CPU_BATCH, DISTILL_BATCH = 24, 96


@dataclasses.dataclass(frozen=True)
class Recipe:
  """What is asked for, and where it goes.

  Attributes:
    workdir: the folder of everything.
    soundfonts: SoundFont files; the songs are shared among them.
    midi: MIDI and WAD files, and folders of them, which every SoundFont plays.
    songs: how many songs in all.
    minutes: how long decoder, model and distillation train, together.
    device: cpu or gpu.
    seed: of music, tokens and both trainings.
  """

  workdir: Path
  soundfonts: tuple[Path, ...]
  midi: tuple[Path, ...]
  songs: int
  minutes: float
  device: str
  seed: int

  @property
  def music(self) -> list[Path]:
    """The folders of songs: of each SoundFont the chorales, then of each the MIDI songs."""
    kinds = ("", "midi") if self.midi else ("",)
    count = range(len(self.soundfonts))
    return [self.workdir / "music" / f"{kind}{i}" for kind in kinds for i in count]

  @property
  def bundle(self) -> Path:
    """The codec with its new decoder."""
    return self.workdir / "decoder/bundle"

  @property
  def distilled(self) -> Path:
    """The run of the model that ships."""
    return self.workdir / "distilled"


def make_music(recipe: Recipe, stages: Stages) -> None:
  """Renders the songs of each SoundFont; no two have the same arrangement."""
  fonts = recipe.soundfonts
  for i, folder in enumerate(recipe.music):
    what: list[object] = ["--songs", -(-recipe.songs // len(fonts))]
    if i >= len(fonts):
      what = ["--midi", *recipe.midi, "--versions", VERSIONS]
    stages.run(
      f"music {folder.name}", "data_prep.demo", "--out", folder, *what, "--seconds", SONG_S,
      "--rate", RATE_HZ, "--produced", PRODUCED, "--soundfont", fonts[i % len(fonts)],
      "--seed", recipe.seed + i,
    )  # fmt: skip


def train_decoder(recipe: Recipe, stages: Stages) -> None:
  """Trains the decoder for its share of the minutes."""
  stages.run(
    "decoder", "data_prep.train_decoder", "--data", *recipe.music, "--codec", DEMO_BUNDLE,
    "--workdir", recipe.workdir / "decoder", "--minutes", recipe.minutes * DECODER_SHARE,
    "--device", "cuda" if recipe.device == "gpu" else "cpu", "--seed", recipe.seed,
  )  # fmt: skip


def make_tokens(recipe: Recipe, stages: Stages) -> None:
  """Tokenises the songs of each SoundFont, and joins them."""
  tokens, device = recipe.workdir / "tokens", ()
  if recipe.device == "gpu":
    device = ("--device", "cuda")
  names = [f"part{i}" for i in range(len(recipe.music))] if len(recipe.music) > 1 else ["shipped"]
  for name, folder in zip(names, recipe.music, strict=True):
    stages.run(
      f"tokens {name}", "data_prep.tokenize", "--corpus", "slakh", "--root", folder,
      "--codec", recipe.bundle, "--out", tokens, "--name", name, "--clip_s", SONG_S,
      "--seed", recipe.seed, *device,
    )  # fmt: skip
  if not (tokens / "shipped").exists():
    parts = [tokens / name for name in names]
    stages.run("join", "data_prep.join", *parts, "--out", tokens, "--name", "shipped")


def train_model(recipe: Recipe, stages: Stages) -> None:
  """Trains the model for as many steps as its share of the minutes holds at the speed measured."""
  words: list[object] = [
    "--config", "configs/shipped.py", f"--config.data.path={recipe.workdir / 'tokens/shipped'}",
    f"--config.data.codec={recipe.bundle}", f"--config.seed={recipe.seed}",
  ]  # fmt: skip
  if recipe.device == "gpu":
    words += ["--config.data.workers=4"]
  else:
    words += [f"--config.data.batch_size={CPU_BATCH}"]
  probe = recipe.workdir / "probe"
  short = {"optim.steps": PROBE_STEPS, "optim.warmup_steps": 1, "log_every_steps": 2,
           "eval_batches": 0}  # fmt: skip
  stages.run(
    "speed", "stemgen_jax.train", "--workdir", probe, *words,
    *(f"--config.{name}={value}" for name, value in short.items()),
  )  # fmt: skip
  steps = count_steps(probe, recipe.minutes * MODEL_SHARE)
  stages.run(
    "model", "stemgen_jax.train", "--workdir", recipe.workdir / "model", *words,
    f"--config.optim.steps={steps}", f"--config.optim.warmup_steps={max(1, steps // 20)}",
    f"--config.eval_every_steps={count_between(steps)}",
    f"--config.checkpoint_every_steps={max(1, steps // 8)}",
  )  # fmt: skip


def distill_model(recipe: Recipe, stages: Stages) -> None:
  """Teaches the model its own guidance, for as many steps as its share of the minutes holds."""
  words: list[object] = [
    "--checkpoint", recipe.workdir / "model", "--data", recipe.workdir / "tokens/shipped",
    "--learning_rate", 5e-4, "--batch_size", CPU_BATCH if recipe.device == "cpu" else DISTILL_BATCH,
  ]  # fmt: skip
  probe = recipe.workdir / "distill_probe"
  stages.run(
    "distilling speed", "stemgen_jax.distill", "--workdir", probe, *words, "--steps", PROBE_STEPS,
    "--every", 2,
  )  # fmt: skip
  steps = count_steps(probe, recipe.minutes * DISTILL_SHARE)
  stages.run(
    "distill", "stemgen_jax.distill", "--workdir", recipe.distilled, *words, "--steps", steps,
    "--every", count_between(steps),
  )  # fmt: skip


def count_between(steps: int) -> int:
  """Returns the steps between validations: four in a run, one in a short run."""
  return steps // 4 if steps >= FEW_STEPS else steps


def count_steps(probe: Path, minutes: float) -> int:
  """Returns how many steps a number of minutes holds, at the speed of a short run's last steps."""
  config = json.loads((probe / "config.json").read_text(encoding="utf-8"))["config"]
  rows = map(json.loads, (probe / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
  frames_per_s = [row["frames_per_s"] for row in rows if "frames_per_s" in row][-1]
  step_s = config["data"]["batch_size"] * config["data"]["crop_frames"] / frames_per_s
  return max(PROBE_STEPS, round(60 * minutes / step_s))


def judge(recipe: Recipe, stages: Stages) -> None:
  """Writes the report on the package's held-out songs, of which a recipe has few of its own."""
  stages.run(
    "evaluate", "stemgen_jax.evaluate", "--checkpoint", recipe.distilled,
    "--codec", recipe.bundle, "--data", SONGS, "--out", recipe.workdir / "evaluation",
  )  # fmt: skip


def ship(recipe: Recipe, stages: Stages) -> None:
  """Collects what the package takes, and the logs of how it came about."""
  out = recipe.workdir / "shipped"
  about = f"{recipe.songs} arrangements of Bach chorales"
  about += f" and versions of MIDI songs ({', '.join(path.name for path in recipe.midi)})" * bool(
    recipe.midi
  )
  about += ", rendered by data_prep.demo"
  shutil.rmtree(out, ignore_errors=True)
  stages.run(
    "ship", "stemgen_jax.export", "--checkpoint", recipe.distilled, "--out", out / "model",
    "--licence", "Apache-2.0", "--about", about, "--card",
    "--report", recipe.workdir / "evaluation", "--codec", recipe.bundle,
  )  # fmt: skip
  shutil.copytree(recipe.bundle, out / "codec")
  shutil.copyfile(recipe.workdir / "model/metrics.jsonl", out / "model/metrics.jsonl")
  shutil.copyfile(recipe.distilled / "metrics.jsonl", out / "model/distill.jsonl")
  shutil.copyfile(recipe.workdir / "decoder/log.jsonl", out / "codec/log.jsonl")


STAGES: dict[str, Callable[[Recipe, Stages], None]] = {
  "music": make_music,
  "decoder": train_decoder,
  "tokens": make_tokens,
  "model": train_model,
  "distill": distill_model,
  "evaluate": judge,
  "ship": ship,
}


def check_stage(recipe: Recipe, stage: str) -> None:
  """Raises a UserError if what a stage begins with is not there."""
  made = [recipe.music[-1], recipe.bundle, recipe.workdir / "tokens/shipped"]
  made += [recipe.workdir / "model", recipe.distilled, recipe.workdir / "evaluation"]
  for name, path in zip(list(STAGES)[: list(STAGES).index(stage)], made, strict=False):
    if not path.exists():
      raise UserError(
        f"--stage {stage} must come after --stage {name}; got no {path}. Run that stage first."
      )


def make_shipped(recipe: Recipe, stage: str | None = None) -> Path:
  """Runs one stage, or all of them, and returns the folder of what they come to.

  Raises:
    UserError: if a number is out of range, the workdir is of another recipe, or a stage fails.
  """
  if not 0 < recipe.minutes < math.inf or recipe.songs < 1:
    raise UserError(
      "--minutes and --songs must be positive and finite; got"
      f" {recipe.minutes:g} and {recipe.songs}. Change them."
    )
  for font in recipe.soundfonts:
    check_soundfont(font)
  if recipe.midi:
    find_scores(list(recipe.midi))  # now, and not after the chorales
  if recipe.device == "gpu":
    check_device("cuda")
  plan = {
    "songs": recipe.songs,
    "soundfonts": [font.name for font in recipe.soundfonts],
    "midi": [path.name for path in recipe.midi],
    "minutes": recipe.minutes,
    "device": recipe.device,
    "seed": recipe.seed,
  }
  if stage is not None:
    check_stage(recipe, stage)
  claim_folder(recipe.workdir, "recipe.json", plan, "recipe", "--workdir")
  stages = Stages(recipe.workdir / "stages.json")
  for name, run in STAGES.items():
    if stage in (None, name):
      run(recipe, stages)
  return recipe.workdir / "shipped"


def main(argv: list[str] | None = None) -> None:
  """Makes what the command line says, and prints where it lies."""
  parser = build_parser(__doc__)
  add = parser.add_argument
  add("--workdir", type=Path, required=True, help="where everything is kept")
  add("--stage", choices=[*STAGES], help="this stage alone; those before it must be done")
  add("--minutes", type=float, default=120.0, help="of training, in all (default 120)")
  add("--songs", type=int, default=400, help="how many songs to render (default 400)")
  add("--soundfont", type=Path, nargs="+", default=[default_soundfont()], metavar="FILE",
      help="General MIDI SoundFonts that share the songs (default: TimGM6mb)")  # fmt: skip
  add("--midi", type=Path, nargs="+", default=[], metavar="PATH",
      help="MIDI and WAD files or folders, as data_prep.demo's, to learn from too")  # fmt: skip
  add("--device", choices=("cpu", "gpu"), default="cpu")
  add("--seed", type=int, default=0)
  arguments: argparse.Namespace = parser.parse_args(argv)
  fonts, midi = tuple(arguments.soundfont), tuple(arguments.midi)
  recipe = Recipe(
    arguments.workdir, fonts, midi, arguments.songs, arguments.minutes, arguments.device,
    arguments.seed,
  )  # fmt: skip
  print(make_shipped(recipe, arguments.stage))


if __name__ == "__main__":
  sys.exit(run_cli(main))
