# SPDX-License-Identifier: Apache-2.0
"""What is judged: a stem for each window of held-out songs, between a ceiling and floors.

A window is one example as training draws them: a random target stem of a random crop, and a context
mix without it. Everything judged has gone through the codec, but for the original stem.

| set | what | role |
|---|---|---|
| original | the window's own stem before the codec, if its audio is given | ceiling |
| true | the window's own stem | ceiling |
| model | what the model writes for the context | |
| other | a stem of the same category from another song | floor: music that did not listen |
| shifted | the true stem, turned by half a beat of the music | floor: out of time |
| chance | codes drawn one by one, as often as in training | floor: no music |
"""

import dataclasses
import json
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from stemgen_jax.audio.files import Samples, convert_audio, read_audio, write_audio
from stemgen_jax.codec import Codec
from stemgen_jax.config import SampleConfig
from stemgen_jax.data.loader import make_loader
from stemgen_jax.data.records import Dataset
from stemgen_jax.errors import UserError
from stemgen_jax.evaluate.floors import draw_chance, find_others, shift_half_beat
from stemgen_jax.model.generate import take_keys
from stemgen_jax.sampling.stemgen import StemGen
from stemgen_jax.shell.folders import appearing, make_folder, write_text
from stemgen_jax.types import Float, Int, Keys

SETS = ("true", "model", "other", "shifted", "chance")
ORIGINAL = "original"
LIST, CODES = "examples.json", "codes.npz"
CODED = ("context", "foreign", "true", "model", "other", "chance")  # what CODES holds
AT_ONCE = 8  # stems generated or decoded together
POOL = 4  # windows looked through for a stem of another song, for each that is judged
_DAMAGED = (
  OSError, ValueError, TypeError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile,
  zlib.error,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Example:
  """One window on disk.

  Attributes:
    id: its number, "0000" and so on.
    song: where it is from.
    category: of the target stem, by the dataset's name.
    conditions: value of each categorical source; -1 where it is unknown.
    folder: holds context.wav, a file for each set, and codes.npz.
    sets: what is judged: SETS, and ORIGINAL where there is its audio.
  """

  id: str
  song: str
  category: str
  conditions: tuple[int, ...]
  folder: Path
  sets: tuple[str, ...] = SETS

  def read(self, name: str) -> tuple[Samples, int]:
    """Returns the samples and rate of "context" or of a set."""
    return read_audio(self.folder / f"{name}.wav")

  def codes(self) -> dict[str, Int[np.ndarray, "T Q"]]:
    """Returns the codes of "context", of "foreign", another song's context, and of the sets.

    Raises:
      UserError: if their file is damaged.
    """
    path = self.folder / CODES
    try:
      with path.open("rb") as file, np.load(file) as arrays:  # np.load leaves a cut file open
        return {name: arrays[name].astype(np.int32) for name in CODED}
    except _DAMAGED as error:
      raise UserError(
        f"{path} must hold the codes of a window as this program wrote them; got"
        f" {type(error).__name__}: {error}. Remove it, and the same command makes it anew."
      ) from error


def check_windows(count: int, seed: int) -> None:
  """Raises a UserError if that number of windows, or that seed, cannot be."""
  if count < 2:
    raise UserError(f"--examples must be at least 2; got {count}.")
  if not 0 <= seed < 2**32:
    raise UserError(f"seed must lie in [0, 2^32); got {seed}.")


def draw_windows(
  model: StemGen, dataset: Dataset, split: str, count: int, seed: int, foreign: bool = False
) -> dict[str, np.ndarray]:
  """Returns windows of a split, as `data.make_loader` has them; never with a silent context."""
  data = dataclasses.replace(model.config.data, batch_size=count, silence_prob=0.0, workers=0)
  sources = list(model.config.model.sources)
  return next(iter(make_loader(dataset, split, data, seed=seed, sources=sources, foreign=foreign)))


def draw_with_pool(
  model: StemGen, dataset: Dataset, split: str, count: int, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
  """Returns `count` windows, and POOL times as many others, each with the name of its "song"."""
  songs = np.array(dataset.source(split).songs)
  rows = draw_windows(model, dataset, split, count, seed)
  pool = draw_windows(model, dataset, split, POOL * count, seed + 1)
  return rows | {"song": songs[rows["clip"]]}, pool | {"song": songs[pool["clip"]]}


def make_examples(
  model: StemGen,
  dataset: Dataset,
  settings: SampleConfig,
  out: Path,
  *,
  split: str,
  train_split: str,
  count: int,
  seed: int,
  originals: Path | None = None,
  advance: Callable[[int], None] = lambda done: None,
) -> list[Example]:
  """Returns the windows, generated and written to `out` unless they lie there.

  Args:
    model: writes the stems.
    dataset: token shards of its codec.
    settings: how it decodes.
    out: folder of the report.
    split: the songs judged.
    train_split: where `chance` counts codes.
    count: windows.
    seed: of windows, floors and stems.
    originals: a folder of `data_prep.originals`; None leaves that set out.
    advance: called with the number of windows that are done.

  Raises:
    UserError: if the split has but one song, or the codec is not the dataset's.
  """
  if dataset.metadata.codec_fingerprint != model.codec.fingerprint:
    raise UserError(
      f"--data must be tokens of the model's codec, {model.codec.fingerprint[:12]}; got"
      f" {dataset.path} of codec {dataset.metadata.codec_fingerprint[:12]}."
    )
  rows, pool = draw_with_pool(model, dataset, split, count, seed)
  rows["foreign"] = draw_windows(model, dataset, split, count, seed, foreign=True)["context"]
  rows["other"] = find_others(rows, pool)
  rows["chance"] = draw_chance(
    draw_windows(model, dataset, train_split, POOL * count, seed)["target"],
    rows["target"].shape,
    np.random.default_rng(seed),
  )
  if originals is not None:
    rows[ORIGINAL] = read_originals(model.codec, rows, originals)
  sets = SETS if originals is None else (*SETS, ORIGINAL)
  keys, sources = take_keys(seed, count), dataset.metadata.sources
  category = next(iter(sources), None)
  examples = []
  for start in range(0, count, AT_ONCE):
    at = slice(start, min(start + AT_ONCE, count))
    batch = {name: array[at] for name, array in rows.items()}
    made = [
      Example(
        id=f"{i:04d}",
        song=str(rows["song"][i]),
        category=sources[category][rows["conditions"][i][0]] if category else "stem",
        conditions=tuple(map(int, rows["conditions"][i])),
        folder=out / "examples" / f"{i:04d}",
        sets=sets,
      )
      for i in range(at.start, at.stop)
    ]
    if not all((example.folder / CODES).is_file() for example in made):
      batch["model"] = write_stems(model, batch["context"], batch["conditions"], keys[at], settings)
      write_examples(model, made, batch)
    examples += made
    advance(at.stop)
  listed = [
    {
      "id": e.id,
      "song": e.song,
      "category": e.category,
      "context": f"examples/{e.id}/context.wav",
      "sets": {name: f"examples/{e.id}/{name}.wav" for name in e.sets},
    }
    for e in examples
  ]
  write_text(out / LIST, json.dumps(listed, indent=1) + "\n")
  return examples


def write_stems(
  model: StemGen,
  context: Int[np.ndarray, "B T Q"],
  conditions: Int[np.ndarray, "B C"],
  keys: Keys,
  settings: SampleConfig,
) -> Int[np.ndarray, "B T Q"]:
  """Returns the codes of stems written from nothing, a few at once."""
  parts = []
  for start in range(0, len(context), AT_ONCE):
    at = slice(start, start + AT_ONCE)
    given = np.zeros_like(context[at])
    known = np.zeros(given.shape, bool)
    parts.append(model.fill(context[at], conditions[at], given, known, keys[at], settings))
  return np.concatenate(parts)


def decode_stems(
  codec: Codec, codes: Int[np.ndarray, "B T Q"], advance: Callable[[int], None] = lambda done: None
) -> Float[np.ndarray, "B channels samples"]:
  """Returns the audio of codes, decoded a few at once; `advance` hears how many are done."""
  parts = []
  for start in range(0, len(codes), AT_ONCE):
    parts.append(codec.decode(codes[start : start + AT_ONCE]))
    advance(min(start + AT_ONCE, len(codes)))
  return np.concatenate(parts)


def write_examples(model: StemGen, examples: list[Example], batch: dict[str, np.ndarray]) -> None:
  """Writes the audio of a few windows, and last their codes, which say that they are whole."""
  codes = {name: batch["target" if name == "true" else name] for name in CODED}
  audio = {name: model.codec.decode(codes[name]) for name in codes if name != "foreign"}
  rate_hz = model.codec.decoded_rate_hz
  for i, example in enumerate(examples):
    make_folder(example.folder, "--out")
    own = {name: samples[i] for name, samples in audio.items()}
    if ORIGINAL in batch:
      own[ORIGINAL] = batch[ORIGINAL][i]
    own["shifted"] = shift_half_beat(own["true"], own["context"], rate_hz)
    for name, samples in own.items():
      write_audio(example.folder / f"{name}.wav", samples, rate_hz)
    with appearing(example.folder / CODES) as partial:
      np.savez_compressed(partial, **{n: rows[i].astype(np.uint16) for n, rows in codes.items()})


def read_originals(
  codec: Codec, windows: dict[str, np.ndarray], folder: Path
) -> Float[np.ndarray, "B channels samples"]:
  """Returns each window of its target stem's audio, which never went through the codec.

  It has the rate of decoded audio.

  Raises:
    UserError: if a file is missing or is not of the codec's rate and channels.
  """
  found, spec = [], codec.spec
  frames = windows["target"].shape[1]
  length, heard = spec.decoded_samples(frames), codec.decoded_samples(frames)
  for song, stem, start in zip(
    windows["song"], windows["stem"], windows["start_frame"], strict=True
  ):
    path = folder / song / f"{stem:02d}.wav"
    if not path.is_file():
      raise UserError(
        f"--originals must be what data_prep.originals wrote for these songs; got no {path}."
        " Run it with the same --data and --split."
      )
    samples, rate_hz = read_audio(path)
    if (rate_hz, len(samples)) != (spec.sample_rate, spec.channels):
      raise UserError(
        f"--originals must have the codec's {spec.sample_rate} Hz and {spec.channels} channels; got"
        f" {path} at {rate_hz} Hz with {len(samples)}. Make them with data_prep.originals."
      )
    first = spec.frame_start(int(start))
    window = samples[:, first : first + length]
    window = np.pad(window, ((0, 0), (0, length - window.shape[1])))
    window = convert_audio(window, rate_hz, codec.decoded_rate_hz, spec.channels)[:, :heard]
    found.append(np.pad(window, ((0, 0), (0, heard - window.shape[1]))))
  return np.stack(found)
