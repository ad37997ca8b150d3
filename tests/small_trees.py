# SPDX-License-Identifier: Apache-2.0
"""Small real files and trees, laid out as corpora are."""

import numpy as np
import pytest
import soundfile
import yaml

RATE = 8000
INSTRUMENTS = [("Drums", 128), ("Bass", 33), ("Piano", 0), ("Strings", 48)]


def write_tone(path, value=0.1, seconds=0.1, rate=RATE, channels=1):
  """Writes a constant signal; the format follows the suffix."""
  path.parent.mkdir(parents=True, exist_ok=True)
  soundfile.write(path, np.full((round(seconds * rate), channels), value, np.float32), rate)
  return path


def write_slakh_song(root, split, name, stems=INSTRUMENTS):
  """Writes TrackNNNNN/{metadata.yaml, stems/SNN.flac} as slakh-utils' README has it."""
  folder, entries = root / split / name, {}
  for i, (word, program) in enumerate(stems):
    entries[f"S{i:02d}"] = {
      "audio_rendered": True,
      "inst_class": word,
      "is_drum": word == "Drums",
      "program_num": program,
    }
    write_tone(folder / "stems" / f"S{i:02d}.flac", 0.1 * (i + 1))
  (folder / "metadata.yaml").write_text(yaml.safe_dump({"UUID": "x", "stems": entries}))
  return folder


def edit_metadata(folder, **changes):
  path = folder / "metadata.yaml"
  path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))


def edit_stems(folder, **changes):
  stems = yaml.safe_load((folder / "metadata.yaml").read_text())["stems"]
  for name, change in changes.items():
    stems[name] = stems.get(name, {}) | change
  edit_metadata(folder, stems=stems)


def tell(corpus):
  """Returns the problems as pairs."""
  return [(problem.where, problem.what) for problem in corpus.problems]


def write_streams(path, values, seconds=1.0, rate=44100):
  """Writes one stereo AAC stream for each value, a tone of that height, as a `.stem.mp4` has."""
  av = pytest.importorskip("av", reason="it writes mp4 files")
  path.parent.mkdir(parents=True, exist_ok=True)
  wave = np.sin(2 * np.pi * 441 / rate * np.arange(round(seconds * rate)))
  with av.open(str(path), "w", format="mp4") as container:
    streams = [container.add_stream("aac", rate=rate, layout="stereo") for _ in values]
    for stream, value in zip(streams, values, strict=True):
      pcm = np.tile(value * wave, (2, 1)).astype(np.float32)
      frame = av.AudioFrame.from_ndarray(pcm, format="fltp", layout="stereo")
      frame.rate = rate
      container.mux([*stream.encode(frame), *stream.encode(None)])
  return path
