# SPDX-License-Identifier: Apache-2.0
"""A session as a zip: stems, mix, settings, takes, and the command line that gives each again."""

import dataclasses
import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from stemgen_jax.audio import loudness
from stemgen_jax.audio.files import Samples
from stemgen_jax.looper import mixing
from stemgen_jax.looper.document import RATE_HZ, Document, Take
from stemgen_jax.looper.flags import show_command
from stemgen_jax.looper.session import CONTEXTS, TAKES


def write_zip(
  path: Path,
  folder: Path,
  document: Document,
  takes: dict[str, Take],
  read: Callable[[str], Samples],
) -> None:
  """Writes a session's zip; its stems add up to its mix.

  Args:
    path: of the zip.
    folder: of the session.
    document: what is exported.
    takes: all takes by their ids.
    read: the sound of a take by its id.
  """
  length = document.song.loop_samples
  heard = document.list_sounding()
  mix = mixing.mix(heard, read, length)
  gain_db = loudness.guard(mix, RATE_HZ)
  with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
    archive.writestr("mix.wav", encode(loudness.amplify(mix, gain_db)))
    stems = []
    for number, lane in enumerate(document.lanes, 1):
      if lane.active is None:
        continue
      stem = loudness.amplify(mixing.place(read(lane.active), lane), gain_db)
      name = f"stems/{number:02d}_{_safe(lane.name)}.wav"
      archive.writestr(name, encode(stem))
      stems.append({"lane": lane.id, "file": name, "in_mix": lane in heard})
    settings = {
      "sample_rate_hz": RATE_HZ,
      "mix_gain_db": gain_db,
      "stems": stems,
      **dataclasses.asdict(document),
      "takes": {
        name: dataclasses.asdict(takes[name]) for lane in document.lanes for name in lane.takes
      },
    }
    archive.writestr("settings.json", json.dumps(settings, indent=1, allow_nan=False) + "\n")
    archive.writestr("commands.txt", list_commands(document, takes))
    for file in sorted(list_files(document, takes)):
      if (folder / file).is_file():
        archive.write(folder / file, file)


def list_files(document: Document, takes: dict[str, Take]) -> set[str]:
  """Returns the files of a session that its takes are, or were made from, as paths inside it."""
  files: set[str] = set()
  waiting = [name for lane in document.lanes for name in lane.takes]
  while waiting:
    name = waiting.pop()
    if f"{TAKES}/{name}.wav" in files:
      continue
    files |= {f"{TAKES}/{name}.wav", f"{TAKES}/{name}.json"}
    take = takes.get(name)
    if take is None:
      continue
    waiting += [take.parent] if take.parent else []
    for word in take.words or ():
      if word.startswith(f"{CONTEXTS}/"):
        files.add(word)
      elif word.startswith(f"{TAKES}/"):
        waiting.append(Path(word).stem)
  return files


def list_commands(document: Document, takes: dict[str, Take]) -> str:
  """Returns the command line of each take that was written, with what it gives."""
  lines = [
    "# Each command, run in this folder, writes the take named above it again, as take_00.wav,",
    "# byte for byte on the same machine with the same versions.",
  ]
  for lane in document.lanes:
    for name in lane.takes:
      take = takes[name]
      lines += ["", f"# {lane.name}, take {take.label}: {TAKES}/{name}.wav"]
      if take.parent:
        lines.append(f"# is cut from {TAKES}/{take.parent}.wav, another length of the loop.")
        take = takes.get(take.parent, take)
      if take.words:
        lines.append(show_command(take.words, f"again/{take.id}"))
      else:
        lines.append(f"# was not written by the model: {take.origin}.")
  return "\n".join(lines) + "\n"


def encode(samples: Samples) -> bytes:
  """Returns a WAV file of 32-bit floats, which clip nowhere."""
  wav = io.BytesIO()
  soundfile.write(wav, np.asarray(samples.T, np.float32), RATE_HZ, format="WAV", subtype="FLOAT")
  return wav.getvalue()


def _safe(name: str) -> str:
  return re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:40] or "lane"
