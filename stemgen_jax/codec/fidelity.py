# SPDX-License-Identifier: Apache-2.0
"""How well a codec gives audio back, in NumPy: mel distance, SI-SDR, use of codes, bits a second.

The mel loss of codec training, in PyTorch, takes its filters, windows and floor from here.
"""

import dataclasses
import functools
import math
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from stemgen_jax.audio.files import convert_audio
from stemgen_jax.codec.architecture import CodecSpec

MEL_WINDOWS = (128, 256, 512, 1024, 2048)  # samples
FLOOR = 3e-4  # of a full-scale sine's mel magnitude, -70 dB; quieter is silence

Wave = Float[np.ndarray, " samples"]


@runtime_checkable
class Codec(Protocol):
  """What is measured: stemgen_jax.codec.Codec, or its counterpart in PyTorch."""

  @property
  def spec(self) -> CodecSpec:
    """What makes the codes."""
    ...

  @property
  def decoded_rate_hz(self) -> int:
    """The rate of decoded audio."""
    ...

  def encode(self, audio: np.ndarray) -> np.ndarray:
    """Returns codes."""
    ...

  def scales(self, audio: np.ndarray) -> np.ndarray | None:
    """Returns the loudness of each segment, None if the codec does not normalise."""

  def decode(self, codes: np.ndarray, scales: np.ndarray | None) -> np.ndarray:
    """Returns audio."""
    ...


@dataclasses.dataclass(frozen=True)
class Fidelity:
  """Figures of a codec on clips; row i of the first three is with levels 1 to i + 1."""

  mel_distance_db: Float[np.ndarray, "Q B"]
  si_sdr_db: Float[np.ndarray, "Q B"]
  bits_per_s: Float[np.ndarray, " Q"]  # of the codes that were made, uncompressed
  perplexity: Float[np.ndarray, " Q"]  # of each level's codes over all clips
  used_share: Float[np.ndarray, " Q"]  # of each level's codebook, by any clip


def evaluate(
  codec: Codec,
  clips: Float[np.ndarray, "B channels samples"],
  reference: Float[np.ndarray, "B n"] | None = None,
  rate_hz: int | None = None,
) -> Fidelity:
  """Returns what a codec makes of clips, for 1, 2, ... all of its levels.

  Args:
    codec: decodes 1 to all levels.
    clips: at the codec's rate and channel count.
    reference: mono, what the clips are compared with; None for the clips themselves.
    rate_hz: of the reference and of the comparison; None for the codec's rate.
  """
  spec, samples = codec.spec, clips.shape[2]
  rate_hz = rate_hz or spec.sample_rate
  if reference is None:
    reference = np.stack([convert_audio(clip, spec.sample_rate, rate_hz, 1)[0] for clip in clips])
  codes = np.concatenate([codec.encode(clip[None]) for clip in clips])
  mel, si_sdr = np.zeros((2, spec.n_levels, len(clips)))
  for i, (clip, code, target) in enumerate(zip(clips, codes, reference, strict=True)):
    scales = codec.scales(clip[None])
    for level in range(spec.n_levels):
      decoded = codec.decode(code[None, :, : level + 1], scales)[0]
      made = convert_audio(decoded, codec.decoded_rate_hz, rate_hz, 1)[0, : len(target)]
      made = np.pad(made, (0, len(target) - len(made)))  # resampling rounds the length
      mel[level, i] = mel_distance_db(made, target, rate_hz)
      si_sdr[level, i] = si_sdr_db(made, target)
  level_bits = math.log2(spec.n_codes) * codes.shape[1] * spec.sample_rate / samples
  shares = [code_shares(codes[..., level], spec.n_codes) for level in range(spec.n_levels)]
  return Fidelity(
    mel_distance_db=mel,
    si_sdr_db=si_sdr,
    bits_per_s=level_bits * np.arange(1, spec.n_levels + 1),
    perplexity=np.array([np.exp(-(p[p > 0] * np.log(p[p > 0])).sum()) for p in shares]),
    used_share=np.array([(p > 0).mean() for p in shares]),
  )


def code_shares(codes: Int[np.ndarray, "B T"], n_codes: int) -> Float[np.ndarray, " {n_codes}"]:
  """Returns how large a share of the codes each entry of a codebook has."""
  return np.bincount(codes.ravel(), minlength=n_codes) / codes.size


@functools.cache
def mel_filters(rate_hz: int, window: int, bands: int) -> Float[np.ndarray, "freqs bands"]:
  """Returns triangular filters, evenly spaced in mel, each of unit sum.

  Source: O'Shaughnessy's mel scale; a filter narrower than a bin takes its nearest bin.
  """
  freqs = np.linspace(0, rate_hz / 2, window // 2 + 1)
  top = 2595 * math.log10(1 + rate_hz / 2 / 700)
  edges = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
  low, mid, high = edges[:-2], edges[1:-1], edges[2:]
  rise = (freqs[:, None] - low) / (mid - low)
  fall = (high - freqs[:, None]) / (high - mid)
  filters = np.maximum(0, np.minimum(rise, fall))
  nearest = np.abs(freqs[:, None] - mid).argmin(axis=0)
  empty = filters.sum(axis=0) == 0
  filters[nearest[empty], np.flatnonzero(empty)] = 1
  return (filters / filters.sum(axis=0)).astype(np.float32)


def mel_db(
  audio: Wave, rate_hz: int, window: int, bands: int
) -> Float[np.ndarray, "frames {bands}"]:
  """Returns mel magnitudes in dB of a full-scale sine, hop = window / 4, above FLOOR.

  Args:
    audio: longer than half a window, which is mirrored at either end.
    rate_hz: its sample rate.
    window: samples of the Hann window.
    bands: how many.
  """
  hann = np.hanning(window + 1)[:-1].astype(np.float32)
  padded = np.pad(audio.astype(np.float32), window // 2, mode="reflect")
  frames = np.lib.stride_tricks.sliding_window_view(padded, window)[:: window // 4]
  magnitude = np.abs(np.fft.rfft(frames * hann)) * (2 / hann.sum())
  return 20 * np.log10(magnitude @ mel_filters(rate_hz, window, bands) + FLOOR)


def mel_distance_db(estimate: Wave, audio: Wave, rate_hz: int) -> float:
  """Returns the mean over window sizes of the mean |mel magnitude difference| in dB.

  Args:
    estimate: the reconstruction.
    audio: what it should be; as long, and longer than the largest window.
    rate_hz: of both.

  Source: EnCodec (arXiv:2210.13438) section 3.4, eq. 1, its L1 part; means instead of norms, and
  fewer bands for short windows, because 64 bands do not fit into 33 bins.
  """
  distances = []
  for window in MEL_WINDOWS:
    bands = min(window * 5 // 32, 80)
    difference = mel_db(estimate, rate_hz, window, bands) - mel_db(audio, rate_hz, window, bands)
    distances.append(np.abs(difference).mean())
  return float(np.mean(distances))


def si_sdr_db(estimate: Wave, audio: Wave) -> float:
  """Returns the scale-invariant signal-to-distortion ratio, from -100 to 100.

  Source: Le Roux et al., "SDR - half-baked or well done?" (arXiv:1811.02508), eq. 3.
  """
  audio, estimate = (x - np.mean(x, dtype=np.float64) for x in (audio, estimate))
  target = audio * (estimate @ audio) / max(audio @ audio, 1e-20)
  signal, distortion = (float(np.square(x).sum()) for x in (target, estimate - target))
  return 10 * math.log10(min(max((signal + 1e-20) / (distortion + 1e-20), 1e-10), 1e10))
