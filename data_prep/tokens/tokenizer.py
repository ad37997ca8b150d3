# SPDX-License-Identifier: Apache-2.0
"""A track as clips of tokens: its stems and random mixes of them, encoded, with their loudness.

Knows the codec by three names only (`spec`, `fingerprint`, `encode`), and nothing of files but the
audio it reads.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Float, Float16, Int, UInt16

from data_prep.corpora.stem_audio import read_stem
from data_prep.corpora.types import Stem, Track
from data_prep.tokens.augment import Augmentation, augment_stems
from data_prep.tokens.contexts import MIN_MIXES, draw_gains, draw_members, make_rng, sum_stems
from stemgen_jax.audio.files import Samples, convert_audio
from stemgen_jax.audio.loudness import measure_lufs
from stemgen_jax.codec.architecture import CodecSpec
from stemgen_jax.data.clips import ABSENT_DB, SILENCE_DB, UNKNOWN, Clip, Metadata
from stemgen_jax.errors import UserError

FEWEST = 2  # stems of a song that has lost some: one to write, and one to hear


class Codec(Protocol):
  """What is used of `torch_codec.TorchCodec` or `stemgen_jax.codec.Codec`."""

  @property
  def spec(self) -> CodecSpec:
    """What makes the codes."""
    ...

  @property
  def fingerprint(self) -> str:
    """The SHA-256 of the files that make the codes."""
    ...

  def encode(self, audio: Float[np.ndarray, "B channels samples"]) -> Int[np.ndarray, "B T Q"]:
    """Returns the codes of audio at the codec's rate, T = spec.frames(samples)."""
    ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenSettings:
  """What the tokens depend on beside corpus and codec."""

  clip_s: float = 60.0  # the longest a record may be
  mixes: int = 16  # context mixes stored for a clip, silence included
  gain_jitter_db: float = 3.0  # a stem's gain in a mix is uniform within plus and minus this
  mix_jitter_db: float = 6.0  # and the gain of a whole mix within this
  augment: int = 0  # further versions of each training song, in other keys and tempi
  seed: int = 0  # of mixes, gains and augmentation
  level_s: float = 0.5  # cell of the loudness grid

  def validate(self) -> None:
    """Raises one UserError that lists every rule the settings break."""
    rules = [
      (0 < self.clip_s < math.inf, "clip_s must be finite and above 0", self.clip_s),
      (self.mixes >= MIN_MIXES, f"mixes must be at least {MIN_MIXES}", self.mixes),
      *(
        (0 <= value < math.inf, f"{name} must be finite and at least 0", value)
        for name, value in (
          ("gain_jitter_db", self.gain_jitter_db),
          ("mix_jitter_db", self.mix_jitter_db),
        )
      ),
      (self.augment >= 0, "augment must be at least 0", self.augment),
      (self.seed >= 0, "seed must be at least 0", self.seed),
    ]
    if broken := [f"{rule}; got {value}" for kept, rule, value in rules if not kept]:
      raise UserError(". ".join(broken) + ".")


class Tokenizer:
  """Turns tracks into clips with one codec.

  Attributes:
    encoded_s: seconds of audio encoded so far, stems and mixes.
    low_rates: sample rate -> a file of it, of those seen so far that are below the codec's.
    left_out: of the last track, name of each stem that could not be read -> why.
  """

  def __init__(
    self,
    codec: Codec,
    metadata: Metadata,
    settings: TokenSettings,
    batch_size: int = 1,
    threads: int = 1,
  ):
    self._codec, self._metadata, self._settings = codec, metadata, settings
    self._batch_size = batch_size
    self._readers = ThreadPoolExecutor(threads, "read")
    self._silence: dict[int, np.ndarray] = {}
    self.encoded_s = 0.0
    self.low_rates: dict[int, Path] = {}
    self.left_out: dict[str, str] = {}

  def tokenize(self, track: Track, augmentation: Augmentation | None = None) -> Iterator[Clip]:
    """Yields the clips of a track: equal parts of the song, none longer than `clip_s`.

    An augmented song goes by another name, and all else is drawn anew for it.

    Equal parts, so that no tail is too short to crop from; cut between frames, or between the
    segments of a codec that has them. Stems are padded to the longest; those that cannot be read
    are left out.

    Raises:
      UserError: if fewer than FEWEST stems are left then, so that a context would be silence; the
        line names a file that cannot be read.
    """
    spec, settings, self.left_out = self._codec.spec, self._settings, {}
    found = read_stems(track.stems, spec.sample_rate, spec.channels, self._readers.map)
    if found.left_out and len(found.stems) < FEWEST:
      raise UserError(
        f"a song must keep {FEWEST} stems that can be read; got {len(found.stems)} of"
        f" {len(track.stems)}: {next(iter(found.left_out.values()))}"
      )
    stems, track, self.left_out = found.audio, found.keep(track), found.left_out
    self.low_rates = found.low_rates | self.low_rates
    song = track.id
    if augmentation is not None:
      stems = augment_stems(stems, spec.sample_rate, augmentation)
      song = name_version(track, augmentation)
    room = -stems.shape[-1] % spec.hop_samples  # to a whole number of frames
    stems = np.pad(stems, ((0, 0), (0, 0), (0, room)))
    step_samples, step_frames = spec.hop_samples, 1
    if spec.segment_s is not None:
      step_samples, step_frames = spec.segment_stride_samples, spec.segment_frames
    steps = -(-stems.shape[-1] // step_samples)
    most = max(int(settings.clip_s * spec.sample_rate / step_samples), 1)
    bounds = np.linspace(0, steps, -(-steps // most) + 1).round().astype(int)
    conditions = index_conditions(track, self._metadata.sources)
    for i, (start, stop) in enumerate(itertools.pairwise(bounds)):
      audio = stems[..., start * step_samples : stop * step_samples]
      rng = make_rng(settings.seed, song, i)
      members = draw_members(rng, len(stems), settings.mixes)
      gain_db = draw_gains(rng, members, settings.gain_jitter_db, settings.mix_jitter_db)
      stem_codes = self._encode(audio)
      mix_codes, gain_db, mix_lufs = self._encode_mixes(audio, gain_db)
      yield Clip(
        song=song,
        clip=i,
        start_frame=int(start) * step_frames,
        stem_codes=stem_codes,
        stem_conditions=conditions,
        stem_level_db=measure_levels(
          audio, spec.frame_starts(stem_codes.shape[1])[:: self._metadata.level_frames]
        ),
        mix_codes=mix_codes,
        mix_gain_db=gain_db,
        mix_lufs=mix_lufs,
      )

  def _encode(self, audio: Float[np.ndarray, "B channels samples"]) -> UInt16[np.ndarray, "B T Q"]:
    """Returns uint16 codes; checks that they are what the spec says."""
    n = self._batch_size
    codes = np.concatenate([self._codec.encode(audio[i : i + n]) for i in range(0, len(audio), n)])
    shape = (len(audio), self._codec.spec.frames(audio.shape[-1]), self._metadata.n_levels)
    if codes.shape != shape:
      raise UserError(f"codec must give codes {shape}; got {codes.shape}. Check the bundle.")
    self.encoded_s += audio.shape[-1] / self._codec.spec.sample_rate * len(audio)
    return codes.astype(np.uint16)

  def _encode_mixes(
    self, audio: Float[np.ndarray, "S channels samples"], gain_db: Float16[np.ndarray, "M S"]
  ) -> tuple[UInt16[np.ndarray, "M T Q"], Float16[np.ndarray, "M S"], Float16[np.ndarray, " M"]]:
    """Returns the codes of the mixes, their final gains and their loudness in LUFS."""
    spec, gain_db = self._codec.spec, gain_db.copy()
    frames = spec.frames(audio.shape[-1])
    if frames not in self._silence:
      self._silence[frames] = self._encode(np.zeros_like(audio[:1]))[0]
    lufs = np.full(len(gain_db), ABSENT_DB, np.float16)
    rows, sums = np.flatnonzero((gain_db > ABSENT_DB).any(1)), []
    for row in rows:
      mix, gain_db[row] = sum_stems(audio, gain_db[row])
      lufs[row] = measure_lufs(mix, spec.sample_rate)
      sums.append(mix)
    codes = np.repeat(self._silence[frames][None], len(gain_db), axis=0)
    if sums:
      codes[rows] = self._encode(np.stack(sums))
    return codes, gain_db, lufs


@dataclasses.dataclass(frozen=True)
class StemsRead:
  """The stems of a track that can be read.

  Attributes:
    stems: which they are.
    audio: theirs, in one format, padded to the longest.
    low_rates: sample rate -> a file of it, of those below the wanted rate.
    left_out: name of each other stem -> why it cannot be read.
  """

  stems: tuple[Stem, ...]
  audio: Float[np.ndarray, "S channels samples"]
  low_rates: dict[int, Path]
  left_out: dict[str, str]

  def keep(self, track: Track) -> Track:
    """Returns the track with these stems alone."""
    return dataclasses.replace(track, stems=self.stems)


def read_stems(
  stems: Sequence[Stem], rate_hz: int, channels: int, mapper: Callable = map
) -> StemsRead:
  """Returns the stems of a track that can be read, at a rate and channel count."""
  kept, audio, low, left_out = [], [], {}, {}
  for stem, found in zip(stems, mapper(_try_to_read, stems), strict=True):
    if isinstance(found, UserError):
      left_out[stem.name] = str(found)
      continue
    samples, own_hz = found
    if own_hz < rate_hz:
      low.setdefault(own_hz, stem.files[0].path)
    kept.append(stem)
    audio.append(convert_audio(samples, own_hz, rate_hz, channels))
  length = max((a.shape[-1] for a in audio), default=0)
  whole = np.zeros((len(audio), channels, length), np.float32)
  for row, samples in zip(whole, audio, strict=True):
    row[:, : samples.shape[-1]] = samples
  return StemsRead(tuple(kept), whole, low, left_out)


def _try_to_read(stem: Stem) -> tuple[Samples, int] | UserError:
  try:
    return read_stem(stem)
  except UserError as error:
    return error


def name_version(track: Track, augmentation: Augmentation) -> str:
  """Returns the song's name in the dataset for an augmented version of a track."""
  return f"{track.id}{augmentation.suffix}"


def index_conditions(
  track: Track, sources: Mapping[str, tuple[str, ...]]
) -> Int[np.ndarray, "S C"]:
  """Returns the index of each stem's value in each source, -1 where it is not known."""
  rows = []
  for stem in track.stems:
    known = {**track.conditions, **stem.conditions}
    rows.append(
      [values.index(known[name]) if name in known else UNKNOWN for name, values in sources.items()]
    )
  return np.array(rows, np.int32)


def measure_levels(
  audio: Float[np.ndarray, "S channels samples"], starts: Sequence[int]
) -> Float[np.ndarray, "S cells"]:
  """Returns the RMS level of each cell in dB of full scale, over all channels; -120 for silence.

  Args:
    audio: the stems.
    starts: the sample at which each cell begins; it ends where the next begins.
  """
  power = np.square(audio, dtype=np.float64).mean(axis=1)
  sizes = np.diff(np.append(starts, power.shape[-1]))
  mean = np.add.reduceat(power, starts, axis=-1) / sizes
  return (10.0 * np.log10(np.maximum(mean, 10.0 ** (SILENCE_DB / 10.0)))).astype(np.float16)
