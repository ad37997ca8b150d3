# SPDX-License-Identifier: Apache-2.0
"""The codec's training music: stems of Slakh-layout songs at the codec's rate, kept on disk.

A song is decoded and resampled once; afterwards its samples are mapped from one .npy file.
"""

import hashlib
import os
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int16

from stemgen_jax.audio.files import convert_audio, read_audio
from stemgen_jax.audio.silence import AUDIBLE
from stemgen_jax.errors import UserError
from stemgen_jax.shell.folders import appearing

Song = Int16[np.ndarray, "S channels samples"]
STEMS = "stems/[!.]*.flac"


def find_songs(roots: Iterable[str], split: str, max_songs: int = 0) -> list[Path]:
  """Returns the song folders `root/split/Track*` that hold stems, by root, then in order of name.

  Raises:
    UserError: naming the first root that holds none.
  """
  songs = []
  for root in roots:
    folders = sorted({path.parent.parent for path in Path(root, split).glob(f"Track*/{STEMS}")})
    if not folders:
      raise UserError(
        f"data.roots must hold songs as SPLIT/Track*/stems/*.flac; got root={root} with none in"
        f" split={split}. Render some: python -m data_prep.demo --out {root} --songs 60 --seed 0."
      )
    songs += folders[: max_songs or None]
  return songs


def read_songs(folders: Sequence[Path], rate_hz: int, channels: int, cache: Path) -> Iterable[Song]:
  """Yields each song's stems, mapped from `cache`, where those that are missing are put first.

  A song without a stem that can be read is left out.
  """
  cache.mkdir(parents=True, exist_ok=True)
  with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding and resampling leave Python's lock
    songs = pool.map(lambda folder: _map_song(folder, rate_hz, channels, cache), folders)
    yield from (song for song in songs if song is not None)


def _map_song(folder: Path, rate_hz: int, channels: int, cache: Path) -> Song | None:
  stems = sorted(folder.glob(STEMS))
  key = (rate_hz, channels, *((str(p.resolve()), _stamp(p)) for p in stems))
  digest = hashlib.sha256(os.fsencode(repr(key))).hexdigest()[:16]
  path = cache / f"{folder.name}-{digest}.npy"
  if not path.is_file():
    song = read_song(folder, rate_hz, channels)
    if song is None:
      return None
    with appearing(path) as partial:
      np.save(partial, song)
  return np.asarray(np.load(path, mmap_mode="r"))


def _stamp(path: Path) -> int | None:
  try:
    return path.stat().st_mtime_ns
  except OSError:  # a dangling link, say: reading it says so
    return None


def read_song(folder: Path, rate_hz: int, channels: int) -> Song | None:
  """Returns the stems of a song as 16-bit samples, the shorter ones padded with silence.

  Those that cannot be read are named on stderr and left out; None if there is no other.
  """
  stems = []
  for path in sorted(folder.glob(STEMS)):
    try:
      samples = convert_audio(*read_audio(path), rate_hz, channels)
    except UserError as error:
      print(f"warning: a stem is left out: {error}", file=sys.stderr)
      continue
    stems.append(np.round(samples.clip(-1, 1) * 32767).astype(np.int16))
  if not stems:
    return None
  song = np.zeros((len(stems), channels, max(stem.shape[1] for stem in stems)), np.int16)
  for stem, samples in zip(song, stems, strict=True):
    stem[:, : samples.shape[1]] = samples
  return song


def draw_crops(
  songs: Iterable[Song],
  rng: np.random.Generator,
  count: int,
  samples: int,
  gain_db: float = 0.0,
  stem_gain_db: float = 0.0,
) -> Float[np.ndarray, "count channels samples"]:
  """Returns random crops of sums of random stems, from one stem to all of them.

  Args:
    songs: at least one.
    rng: decides everything.
    count: how many crops.
    samples: the length of each; a shorter song is followed by silence.
    gain_db: levels move by up to this much, and where this is above 0 half of the crops change
      their sign; a crop never exceeds full scale.
    stem_gain_db: each stem's level in its crop moves by up to this much.
  """
  songs = list(songs)
  crops = np.zeros((count, songs[0].shape[1], samples), np.float32)
  for crop in crops:
    for _ in range(4):  # a silent crop is drawn again, but may stay: codecs meet silence too
      song = songs[rng.integers(len(songs))]
      start = rng.integers(max(song.shape[2] - samples, 0) + 1)
      stems = rng.permutation(len(song))[: rng.integers(1, len(song) + 1)]
      gains = 10 ** (rng.uniform(-stem_gain_db, stem_gain_db, len(stems)) / 20) / 32767
      parts = song[stems, :, start : start + samples]
      mix = np.einsum("s,sct->ct", gains.astype(np.float32), parts)
      crop[:, : mix.shape[1]] = mix
      crop[:, mix.shape[1] :] = 0
      if np.abs(crop).max() > AUDIBLE:
        break
    crop *= 10 ** (rng.uniform(-gain_db, gain_db) / 20)
    crop *= -1 if gain_db and rng.random() < 0.5 else 1
    crop /= max(np.abs(crop).max(), 1.0)
  return crops
