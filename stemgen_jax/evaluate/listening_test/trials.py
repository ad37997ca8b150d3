# SPDX-License-Identifier: Apache-2.0
"""What a listener hears: examples of a report, in a secret order, and as loud as each other."""

import dataclasses
import hashlib
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from stemgen_jax.audio import loudness
from stemgen_jax.audio.files import Samples, convert_audio, read_audio
from stemgen_jax.errors import UserError
from stemgen_jax.evaluate.listening_test.opinions import SETS
from stemgen_jax.sampling.mixing import SILENT_CONTEXT_LUFS

EXAMPLES = "examples.json"
LEVEL_LU = -6.0  # of every stem: about what one of four has, measured against the sum of the others


@dataclasses.dataclass(frozen=True)
class Example:
  """A context with the stems to compare over it.

  Attributes:
    name: its id in the report.
    song: where it comes from.
    context: its audio file.
    stems: audio files, in the order of SETS.
  """

  name: str
  song: str
  context: Path
  stems: tuple[Path, ...]


def read_examples(report: Path) -> list[Example]:
  """Returns the examples of a report, all of whose audio can be read.

  Raises:
    UserError: if REPORT/examples.json or a file that it names is missing or broken.
  """
  path = report / EXAMPLES
  if not path.is_file():
    raise UserError(
      f"REPORT must be a folder of `python -m stemgen_jax.evaluate`; got {report} without"
      f" {EXAMPLES}. Make the report first."
    )
  try:
    entries = json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError) as error:  # of bytes that are not text, or text that is not JSON
    raise UserError(
      f"REPORT must be a folder with {EXAMPLES}; got {report} ({error}). Make the report first."
    ) from error
  if not isinstance(entries, list) or not entries:
    raise UserError(f"{path} must be a list of at least one example. Make the report again.")
  examples = [_read(entry, number, path) for number, entry in enumerate(entries, 1)]
  if len({example.name for example in examples}) < len(examples):
    raise UserError(f"ids of {path} must differ; got some twice. Make the report again.")
  for example in examples:
    for file in (example.context, *example.stems):
      read_audio(file)
  return examples


def plan(examples: list[Example], seed: int, rater: str) -> list[tuple[Example, tuple[str, ...]]]:
  """Returns a rater's trials: examples with their sets, both in an order of seed and rater alone.

  The first of a trial's sets is what the listener knows as A.
  """
  digest = hashlib.sha256(f"{seed}/{rater}".encode()).digest()
  rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
  return [
    (examples[i], tuple(str(name) for name in rng.permutation(list(SETS))))
    for i in rng.permutation(len(examples))
  ]


def mix_example(example: Example) -> dict[str, bytes]:
  """Returns WAV files of the context, and by set of each stem over it: equally long and loud.

  The stems get the same loudness (LEVEL_LU over the context's; one that hardly sounds stays quiet),
  and all files one gain, which holds the true peaks of the loudest.
  """
  context, rate_hz = read_audio(example.context)
  lufs = loudness.measure_lufs(context, rate_hz)
  wanted_lufs = (lufs if math.isfinite(lufs) else SILENT_CONTEXT_LUFS) + LEVEL_LU
  sounds = {"context": context}
  for name, path in zip(SETS, example.stems, strict=True):
    stem = _fit(*read_audio(path), context, rate_hz)
    gain_db = loudness.place(loudness.measure_lufs(stem, rate_hz), wanted_lufs)
    sounds[name] = context + loudness.amplify(stem, gain_db)
  gain_db = min(loudness.guard(sound, rate_hz) for sound in sounds.values())
  return {
    name: _encode(loudness.amplify(sound, gain_db), rate_hz) for name, sound in sounds.items()
  }


def _read(entry: Any, number: int, path: Path) -> Example:
  """Returns an example of the report; raises a UserError that names it by its number."""
  words: list[Any] = []
  if isinstance(entry, dict) and isinstance(entry.get("sets"), dict):
    words = [entry.get(name) for name in ("id", "song", "context")]
    words += [entry["sets"].get(name) for name in SETS]
  if not words or not all(isinstance(word, str) and word for word in words):
    raise UserError(
      f"example {number} of {path} must have id, song, context and sets with {', '.join(SETS)},"
      " all of them words. Make the report again."
    )
  name, song, context, *stems = words
  return Example(name, song, path.parent / context, tuple(path.parent / stem for stem in stems))


def _fit(stem: Samples, stem_hz: int, context: Samples, rate_hz: int) -> Samples:
  """Returns the stem at the context's rate, channels and length."""
  stem = convert_audio(stem, stem_hz, rate_hz, len(context))[:, : context.shape[1]]
  return np.pad(stem, ((0, 0), (0, context.shape[1] - stem.shape[1])))


def _encode(samples: Samples, rate_hz: int) -> bytes:
  """Returns a file of 16-bit PCM, whose size depends on nothing but the length."""
  wav = io.BytesIO()
  soundfile.write(wav, np.clip(samples.T, -1, 1), rate_hz, format="WAV", subtype="PCM_16")
  return wav.getvalue()
