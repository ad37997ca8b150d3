# SPDX-License-Identifier: Apache-2.0
"""A track as clips of tokens: its stems and random mixes of them, encoded, with their loudness.

Knows the codec by three names only (`spec`, `fingerprint`, `encode`), and nothing of files but the
audio it reads.
"""

import dataclasses
import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float, Int, UInt16

from data_prep.contexts import MIN_MIXES, draw_members, make_rng, sum_stems
from data_prep.corpora.types import Stem, Track
from data_prep.stem_audio import read_stem
from stemgen_jax.audio import convert_audio
from stemgen_jax.clips import SILENCE_DB, UNKNOWN, Clip, Metadata
from stemgen_jax.codec.architecture import CodecSpec
from stemgen_jax.errors import UserError

_log = logging.getLogger(__name__)


class Codec(Protocol):
  """What is used of `torch_codec.TorchCodec` or `stemgen_jax.codec.Codec`."""

  spec: CodecSpec
  fingerprint: str

  def encode(self, audio: Float[np.ndarray, "B channels samples"]) -> Int[np.ndarray, "B T Q"]:
    """Returns the codes of audio at the codec's rate, T = spec.frames(samples)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenSettings:
  """What the tokens depend on beside corpus and codec."""

  clip_s: float = 60.0  # the longest a record may be
  mixes: int = 8  # context mixes stored for a clip, silence included
  seed: int = 0  # of the draw of mixes
  level_s: float = 0.5  # cell of the loudness grid

  def validate(self) -> None:
    """Raises one UserError that lists every rule the settings break."""
    rules = [
      (self.clip_s > 0, "clip_s must be above 0", self.clip_s),
      (self.mixes >= MIN_MIXES, f"mixes must be at least {MIN_MIXES}", self.mixes),
      (self.seed >= 0, "seed must be at least 0", self.seed),
    ]
    if broken := [f"{rule}; got {value}" for kept, rule, value in rules if not kept]:
      raise UserError(". ".join(broken) + ".")


class Tokenizer:
  """Turns tracks into clips with one codec; remembers which low sample rates it warned of."""

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
    self._pool = ThreadPoolExecutor(threads, "encode")
    self._warned: set[int] = set()
    self._silence: dict[int, np.ndarray] = {}
    self.encoded_s = 0.0  # seconds of audio encoded so far, stems and mixes

  def tokenize(self, track: Track) -> Iterator[Clip]:
    """Yields the clips of a track: equal parts of the song, none longer than `clip_s`.

    Equal parts, so that no tail is too short to crop from; cut between frames, or between the
    segments of a codec that has them. Stems are padded to the longest.

    Raises:
      UserError: if a stem cannot be read; the line names its file.
    """
    spec, settings = self._codec.spec, self._settings
    stems = self._read_stems(track.stems)
    step_samples, step_frames = spec.hop_samples, 1
    if spec.segment_s is not None:
      step_samples, step_frames = spec.segment_stride_samples, spec.segment_frames
    steps = -(-stems.shape[-1] // step_samples)
    most = max(int(settings.clip_s * spec.sample_rate / step_samples), 1)
    bounds = np.linspace(0, steps, -(-steps // most) + 1).round().astype(int)
    conditions = index_conditions(track.stems, self._metadata.sources)
    for i, (start, stop) in enumerate(itertools.pairwise(bounds)):
      audio = stems[..., start * step_samples : stop * step_samples]
      members = draw_members(make_rng(settings.seed, track.id, i), len(stems), settings.mixes)
      stem_codes = self._encode(audio)
      yield Clip(
        song=track.id,
        clip=i,
        start_frame=int(start) * step_frames,
        stem_codes=stem_codes,
        stem_conditions=conditions,
        stem_level_db=measure_levels(
          audio, spec.frame_starts(stem_codes.shape[1])[:: self._metadata.level_frames]
        ),
        mix_codes=self._encode_mixes(audio, members, stem_codes),
        mix_members=members,
      )

  def _read_stems(self, stems: tuple[Stem, ...]) -> Float[np.ndarray, "S channels samples"]:
    """Returns the stems at the codec's format, padded to a whole number of frames."""
    spec = self._codec.spec
    audio = []
    for stem in stems:
      samples, rate_hz = read_stem(stem)
      if rate_hz < spec.sample_rate and rate_hz not in self._warned:
        self._warned.add(rate_hz)
        _log.warning(
          "%s is at %d Hz, the codec at %d Hz: nothing above %d Hz can be learnt from such files",
          *(stem.files[0].path, rate_hz, spec.sample_rate, rate_hz // 2),
        )
      audio.append(convert_audio(samples, rate_hz, spec.sample_rate, spec.channels))
    hop = spec.hop_samples
    length = -(-max(a.shape[-1] for a in audio) // hop) * hop
    return np.stack([np.pad(a, ((0, 0), (0, length - a.shape[-1]))) for a in audio])

  def _encode(self, audio: Float[np.ndarray, "B channels samples"]) -> UInt16[np.ndarray, "B T Q"]:
    """Returns uint16 codes, one batch a thread; checks that they are what the spec says."""
    n = self._batch_size
    batches = [audio[i : i + n] for i in range(0, len(audio), n)]
    codes = np.concatenate(list(self._pool.map(self._codec.encode, batches)))
    shape = (len(audio), self._codec.spec.frames(audio.shape[-1]), self._metadata.n_levels)
    if codes.shape != shape:
      raise UserError(f"codec must give codes {shape}; got {codes.shape}. Check the bundle.")
    self.encoded_s += audio.shape[-1] / self._codec.spec.sample_rate * len(audio)
    return codes.astype(np.uint16)

  def _encode_mixes(
    self,
    audio: Float[np.ndarray, "S channels samples"],
    members: Bool[np.ndarray, "M S"],
    stem_codes: UInt16[np.ndarray, "S T Q"],
  ) -> UInt16[np.ndarray, "M T Q"]:
    """Returns the codes of the mixes; silence and mixes of one stem are known already."""
    frames = stem_codes.shape[1]
    if frames not in self._silence:
      self._silence[frames] = self._encode(np.zeros_like(audio[:1]))[0]
    codes = np.empty((len(members), *stem_codes.shape[1:]), np.uint16)
    sums = []
    for row, mask in enumerate(members):
      if not mask.any():
        codes[row] = self._silence[frames]
      elif mask.sum() == 1:
        codes[row] = stem_codes[mask][0]
      else:
        sums.append(row)
    if sums:
      codes[sums] = self._encode(np.stack([sum_stems(audio, members[row]) for row in sums]))
    return codes


def index_conditions(
  stems: tuple[Stem, ...], sources: Mapping[str, tuple[str, ...]]
) -> Int[np.ndarray, "S C"]:
  """Returns the index of each stem's value in each source, -1 where it is not known."""
  rows = [
    [values.index(s.conditions[name]) if name in s.conditions else UNKNOWN
     for name, values in sources.items()]
    for s in stems
  ]  # fmt: skip
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
