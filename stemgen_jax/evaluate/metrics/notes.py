# SPDX-License-Identifier: Apache-2.0
"""Which notes sound when: Basic Pitch's network, a file of its wheel, run by ONNX Runtime.

Both are optional: `missing_part` says what to install, and nothing here is loaded before its use.
The package itself is never imported, for it asks for TensorFlow.
"""

import dataclasses
import functools
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from stemgen_jax.errors import UserError

PACKAGE, FILE = "basic-pitch", "icassp_2022/nmp.onnx"
RATE_HZ, HOP_SAMPLES, NOTES, LOWEST = 22_050, 256, 88, 21  # A0 upwards, as MIDI counts
INPUT, SALIENCE, ATTACKS = (
  "serving_default_input_2:0",
  "StatefulPartitionedCall:1",
  "StatefulPartitionedCall:2",
)
WINDOW_SAMPLES, WINDOW_FRAMES = 43_844, 172  # the network's, no other fits
SURE, STRUCK = 0.3, 0.5  # salience of a note that sounds, attack of one that begins
LEAST_FRAMES = 11  # of a note, 128 ms
RISE_FRAMES = 4  # after its attack a note need not sound yet
MARGIN_FRAMES = 14  # of a window's edges, where the network hears too little; 144 frames are kept


@dataclasses.dataclass(frozen=True)
class Notes:
  """What sounds in every frame, HOP_SAMPLES at RATE_HZ apart, of every key of a piano.

  Attributes:
    salience: how surely a note sounds, in [0, 1].
    attacks: how surely a note begins, in [0, 1].
  """

  salience: Float[np.ndarray, "T 88"]
  attacks: Float[np.ndarray, "T 88"]


def missing_part() -> str | None:
  """Returns what is missing to find notes, and how to get it; None if nothing is."""
  if importlib.util.find_spec("onnxruntime") is None:
    return "onnxruntime is not installed. Run: pip install onnxruntime."
  if _find_model() is None:
    return f"{FILE} of {PACKAGE} is not installed. Run: pip install --no-deps {PACKAGE}."
  return None


def require_parts() -> None:
  """Raises a UserError if something is missing to find notes."""
  if missing := missing_part():
    raise UserError(f"finding notes must have its network; got none: {missing}")


def find_notes(mono: Float[np.ndarray, " samples"]) -> Notes:
  """Returns the notes of a sound at RATE_HZ.

  Raises:
    UserError: as `require_parts`.

  Source: Bittner et al., arXiv:2203.09893; windows overlap here by whole frames, so that no time
  is lost at their seams.
  """
  require_parts()
  frames, kept = 1 + len(mono) // HOP_SAMPLES, WINDOW_FRAMES - 2 * MARGIN_FRAMES
  starts = HOP_SAMPLES * np.arange(0, frames, kept)
  padded = np.pad(mono, (MARGIN_FRAMES * HOP_SAMPLES, kept * HOP_SAMPLES + WINDOW_SAMPLES))
  windows = np.stack([padded[start : start + WINDOW_SAMPLES] for start in starts])
  found = _load_model().run([SALIENCE, ATTACKS], {INPUT: windows[..., None].astype(np.float32)})
  inside = slice(MARGIN_FRAMES, -MARGIN_FRAMES)
  return Notes(*(x[:, inside].reshape(-1, NOTES)[:frames] for x in found))


def pick_notes(found: Notes) -> Int[np.ndarray, "n 3"]:
  """Returns each note's first frame, the frame in which it is over, and its MIDI number.

  A note begins at a peak of its attack of STRUCK or more, and sounds until its salience is below
  SURE or it is struck again. Notes shorter than LEAST_FRAMES are left out.

  Source: the thresholds are Basic Pitch's (arXiv:2203.09893); its search for notes without an
  attack is left out.
  """
  attacks = np.pad(found.attacks, ((1, 1), (0, 0)))
  middle = attacks[1:-1]
  peaks = (middle >= STRUCK) & (middle > attacks[:-2]) & (middle >= attacks[2:])
  picked = []
  for key in np.flatnonzero(peaks.any(axis=0)):
    starts = np.flatnonzero(peaks[:, key])
    quiet = np.append(np.flatnonzero(found.salience[:, key] < SURE), len(peaks))
    ends = quiet[np.minimum(np.searchsorted(quiet, starts + RISE_FRAMES), len(quiet) - 1)]
    ends = np.minimum(ends, np.append(starts[1:], len(peaks)))
    picked += [(s, e, LOWEST + key) for s, e in zip(starts, ends, strict=True)]
  return np.array([note for note in picked if note[1] - note[0] >= LEAST_FRAMES], int).reshape(
    -1, 3
  )


def _find_model() -> Path | None:
  try:
    files = importlib.metadata.files(PACKAGE) or []
  except importlib.metadata.PackageNotFoundError:
    return None
  paths = [Path(str(file.locate())) for file in files if str(file).endswith(FILE)]
  return next((path for path in paths if path.is_file()), None)


@functools.cache
def _load_model() -> Any:
  """Returns the network, on one thread: many windows are described, and cores are shared."""
  import onnxruntime

  options = onnxruntime.SessionOptions()
  options.intra_op_num_threads = options.inter_op_num_threads = 1
  return onnxruntime.InferenceSession(
    str(_find_model()), options, providers=["CPUExecutionProvider"]
  )
