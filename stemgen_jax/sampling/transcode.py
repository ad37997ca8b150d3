# SPDX-License-Identifier: Apache-2.0
"""Audio at any rate -> codes, and back to as many samples; straight, or round as a loop.

A loop of N samples becomes a whole number T of frames: it is resampled, as the periodic signal that
it is, to T hops exactly, and back, so that it keeps its length to the sample. The speed between is
off by at most half a frame in T, heard by nobody: it is undone on the way back.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Float, Int
from scipy import signal

from stemgen_jax.audio import loudness
from stemgen_jax.audio.files import Samples, convert_audio, resample_blocks
from stemgen_jax.audio.silence import AUDIBLE
from stemgen_jax.codec import Codec
from stemgen_jax.codec.segments import DEFAULT_SCALE
from stemgen_jax.errors import UserError

ROUND_S = 1.0  # of a loop that the codec hears again before its start and after its end
STEM_SCALE = 0.5  # RMS of a stem over its context's, where the codes hold no loudness
MOST_GAIN_DB = 40.0  # that brings a context to the loudness of the mixes a model was trained on


@dataclasses.dataclass(frozen=True)
class Heard:
  """A piece of audio as the codec has it.

  Attributes:
    codes: its codes.
    scales: of a normalising codec, the RMS of each segment.
    samples: how many it was.
    rate_hz: its rate.
    loop: whether its end is followed by its start.
    gain_db: how much louder it was made first.
  """

  codes: Int[np.ndarray, "T Q"]
  scales: Float[np.ndarray, " segments"] | None
  samples: int
  rate_hz: int
  loop: bool
  gain_db: float = 0.0


def normal_gain(codec: Codec, samples: Samples, rate_hz: int, mix_lufs: float | None) -> float:
  """Returns the gain in dB that brings music to the loudness of the mixes a model was trained on.

  0 for silence, and where that loudness is not known. What is written for the music gets the
  opposite gain, so that a stem is as loud over it as the model meant.
  """
  heard = convert_audio(samples, rate_hz, rate_hz, codec.spec.channels)
  lufs = loudness.measure_lufs(heard, rate_hz)
  if mix_lufs is None or not math.isfinite(lufs):
    return 0.0
  return min(max(mix_lufs - lufs, -MOST_GAIN_DB), MOST_GAIN_DB)


def check(codec: Codec, samples: Samples, rate_hz: int, loop: bool) -> None:
  """Raises a UserError if audio is too short for the codec, or a loop that it cannot code."""
  spec = codec.spec
  if round(samples.shape[1] * spec.sample_rate / rate_hz) < 1:
    raise UserError(
      f"the context must last a sample or more at the codec's {spec.sample_rate} Hz; got"
      f" {samples.shape[1]} sample(s) at {rate_hz} Hz. Give more music."
    )
  if loop and spec.segment_s is not None:
    raise UserError(
      "loop must be used with a codec that is one whole; got one that works in segments of"
      f" {spec.segment_s} s. Leave loop out, or take another model."
    )


def encode(
  codec: Codec, samples: Samples, rate_hz: int, loop: bool = False, gain_db: float = 0.0
) -> Heard:
  """Returns audio, made louder by a gain, as codes; what it must be, see `check`."""
  spec = codec.spec
  if loop:
    samples = loudness.amplify(samples, gain_db)
    frames = max(1, round(samples.shape[1] / rate_hz * spec.frame_rate_hz))
    mono = convert_audio(samples, rate_hz, rate_hz, spec.channels)
    heard = np.asarray(signal.resample(mono, frames * spec.hop_samples, axis=1))
    room = _round_frames(codec) * spec.hop_samples
    around = np.take(heard, range(-room, heard.shape[1] + room), axis=1, mode="wrap")
    codes = codec.encode(around[None])[0][_round_frames(codec) :][:frames]
    return Heard(codes, None, samples.shape[1], rate_hz, loop, gain_db)
  heard = convert_audio(samples, rate_hz, spec.sample_rate, spec.channels)
  heard = loudness.amplify(heard, gain_db)  # of a long piece the smaller copy
  scales = codec.scales(heard[None])
  return Heard(
    codec.encode(heard[None])[0],
    None if scales is None else scales[0],
    samples.shape[1],
    rate_hz,
    loop,
    gain_db,
  )


def decode(codec: Codec, codes: Int[np.ndarray, "T Q"], like: Heard) -> Samples:
  """Returns a stem as long as the context it was made for, at its rate, its gain undone."""
  stem = _decode(codec, codes, like)
  return loudness.turn(stem, -like.gain_db) if like.gain_db else stem


def _decode(codec: Codec, codes: Int[np.ndarray, "T Q"], like: Heard) -> Samples:
  if like.loop:
    pad, frames = _round_frames(codec), len(codes)
    around = np.take(codes, range(-pad, frames + pad), axis=0, mode="wrap")
    audio = codec.decode(around[None])[0]
    start, stop = codec.decoded_samples(pad), codec.decoded_samples(pad + frames)
    audio = audio[:, start:stop]
    return np.asarray(signal.resample(audio, like.samples, axis=1), np.float32)
  channels, done = codec.spec.channels, 0
  parts = (part[0] for part in codec.decode_parts(codes[None], choose_scales(like)))
  stem = np.zeros((channels, like.samples), np.float32)
  for part in resample_blocks(parts, codec.decoded_rate_hz, like.rate_hz, channels):
    part = part[:, : like.samples - done]
    stem[:, done : done + part.shape[1]] = part
    done += part.shape[1]
  return stem


def choose_scales(like: Heard) -> Float[np.ndarray, "1 segments"] | None:
  """Returns the loudness at which to decode a stem, if the codec does not put it into the codes.

  Half the context's, segment by segment: as loud as one of the context's stems, if it has four.
  """
  if like.scales is None:
    return None
  scales = np.where(like.scales > AUDIBLE, STEM_SCALE * like.scales, DEFAULT_SCALE)
  return scales[None].astype(np.float32)


def first_frames(codec: Codec, like: Heard) -> Float[np.ndarray, " edges"]:
  """Returns where each frame begins, in samples of the context, and where the last one ends."""
  frames = len(like.codes)
  if like.loop:
    return np.arange(frames + 1) * like.samples / frames
  starts = np.array([*codec.spec.frame_starts(frames), codec.spec.decoded_samples(frames)])
  return starts * like.rate_hz / codec.spec.sample_rate


def _round_frames(codec: Codec) -> int:
  return round(ROUND_S * codec.spec.frame_rate_hz)
