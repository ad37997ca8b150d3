# SPDX-License-Identifier: Apache-2.0
"""Stems in memory, and batches of crops with their codebook vectors, all on one device.

The codec's own encoder makes the tokens as training goes, so that sums of any stems can be heard.
"""

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy import signal
from torch import Tensor
from torch.nn import functional

from data_prep.codecs.torch_codec import build_model, load_weights
from stemgen_jax.audio.files import read_audio, to_mono
from stemgen_jax.codec.architecture import CODEBOOK
from stemgen_jax.codec.bundle import Bundle
from stemgen_jax.errors import UserError

MARGIN_FRAMES = 25  # heard by the encoder on either side of a crop: it is not causal
MOST_STEMS = 6  # of a sum
GAIN_DB = 6.0  # a stem's gain in a sum is uniform within plus and minus this
_TAPS = 255  # of the filter before samples are left out
_FULL_SCALE = 32767.0


class FrozenCodec:
  """The encoder and the codebooks of a bundle, on a device, in exact float32."""

  def __init__(self, bundle: Bundle, device: str):
    self.spec = bundle.spec
    model = build_model(bundle.spec)
    load_weights(model, bundle.weights)
    self._encoder = model.eval().encoder.to(device)
    books = [bundle.weights[CODEBOOK.format(q)] for q in range(bundle.spec.n_levels)]
    self._books = [torch.from_numpy(book).to(device) for book in books]

  @torch.no_grad()
  def vectors(self, audio: Float[Tensor, "B samples"]) -> Float[Tensor, "B d T"]:
    """Returns the sum over levels of the codebook vectors of audio at the codec's rate."""
    rounded = bool(torch.backends.cuda.matmul.allow_tf32)
    _round(False)  # a GPU's shorter numbers would flip codes
    left = self._encoder(audio[:, None]).transpose(1, 2)
    total = torch.zeros_like(left)
    for book in self._books:
      scores = 2 * left @ book.T - book.square().sum(dim=1)
      chosen = book[scores.argmax(dim=-1)]
      total, left = total + chosen, left - chosen
    _round(rounded)
    return total.transpose(1, 2)


def _round(allowed: bool) -> None:
  """Lets a GPU multiply float32 as TF32, or not."""
  torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed


@dataclasses.dataclass(frozen=True)
class Music:
  """Songs of a split: where each begins in the samples, its stems and its length.

  Attributes:
    samples: int16, the stems of all songs one after the other.
    songs: (first sample, stems, samples of a stem) of each.
  """

  samples: Tensor
  songs: tuple[tuple[int, int, int], ...]


def read_music(roots: Sequence[Path], split: str, rate_hz: int, device: str) -> Music:
  """Returns the songs of a split of folders in Slakh's layout, whose files must have the rate.

  Raises:
    UserError: if there is no song, or a file has another rate.
  """
  tracks = sorted(track for root in roots for track in (root / split).glob("*") if track.is_dir())
  if not tracks:
    raise UserError(f"--data must hold songs in {split}/; got none in {list(map(str, roots))}.")

  def read(track: Path) -> list[np.ndarray]:
    stems = []
    for path in sorted((track / "stems").glob("*.*")):
      samples, own_hz = read_audio(path)
      if own_hz != rate_hz:
        raise UserError(f"stems must have {rate_hz} Hz; got {own_hz} in {path}.")
      whole = np.rint(to_mono(samples)[0] * 2**15)
      stems.append(whole.clip(-(2**15), 2**15 - 1).astype(np.int16))
    return stems

  with ThreadPoolExecutor(16) as pool:
    found = [stems for stems in pool.map(read, tracks) if stems]
  songs, first = [], 0
  for stems in found:
    songs.append((first, len(stems), len(stems[0])))
    first += sum(map(len, stems))
  samples = torch.from_numpy(np.concatenate([stem for stems in found for stem in stems]))
  return Music(samples.to(device), tuple(songs))


class Crops:
  """Draws batches: what a decoder should give, and the codebook vectors it is given."""

  def __init__(self, music: Music, codec: FrozenCodec, rate_hz: int, frames: int, device: str):
    self.music, self.codec, self.frames, self._device = music, codec, frames, device
    self.hop = rate_hz // round(codec.spec.frame_rate_hz)
    self._ratio = rate_hz // codec.spec.sample_rate
    window: Any = ("kaiser", 9.0)
    taps = np.asarray(signal.firwin(_TAPS, 0.94 / self._ratio, window=window), np.float32)
    self._taps = torch.from_numpy(taps).to(device)[None, None]
    self.length = (frames + 2 * MARGIN_FRAMES) * self.hop
    self._songs = np.array([song for song in music.songs if song[2] > self.length])

  def draw(
    self, rng: np.random.Generator, batch: int, sums: float = 0.5
  ) -> tuple[Float[Tensor, "B samples"], Float[Tensor, "B d T"]]:
    """Returns crops and their vectors; a share `sums` of them are sums of several stems."""
    songs = self._songs[rng.integers(len(self._songs), size=batch)]
    starts = (rng.random(batch) * ((songs[:, 2] - self.length) // self.hop + 1)).astype(int)
    gains = np.zeros((batch, MOST_STEMS), np.float32)
    places = np.zeros((batch, MOST_STEMS), np.int64)
    for row, ((first, stems, size), start) in enumerate(zip(songs, starts * self.hop, strict=True)):
      count = rng.integers(2, MOST_STEMS + 1) if rng.random() < sums else 1
      members = rng.permutation(stems)[:count]
      spread_db = rng.uniform(-GAIN_DB, GAIN_DB, len(members)) + rng.uniform(-GAIN_DB, GAIN_DB)
      gains[row, : len(members)] = 10 ** (spread_db / 20)
      places[row, : len(members)] = first + members * size + start
    return self.cut(places, gains)

  def cut(
    self, places: np.ndarray, gains: np.ndarray
  ) -> tuple[Float[Tensor, "B samples"], Float[Tensor, "B d T"]]:
    """Returns the sums of the stems at these places, at these gains, and their vectors."""
    put = {"device": self._device, "non_blocking": True}
    at = torch.from_numpy(places).to(**put)[..., None] + torch.arange(
      self.length, device=self._device
    )
    heard = self.music.samples[at].float() / _FULL_SCALE
    audio = (heard * torch.from_numpy(gains).to(**put)[..., None]).sum(dim=1)
    audio = audio / audio.abs().amax(dim=1, keepdim=True).clamp(min=1.0)
    low = functional.conv1d(audio[:, None], self._taps, stride=self._ratio, padding=_TAPS // 2)
    vectors = self.codec.vectors(low[:, 0])
    inside = slice(MARGIN_FRAMES, MARGIN_FRAMES + self.frames)
    return (
      audio[:, MARGIN_FRAMES * self.hop : (MARGIN_FRAMES + self.frames) * self.hop],
      vectors[..., inside],
    )
