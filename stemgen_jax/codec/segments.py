# SPDX-License-Identifier: Apache-2.0
"""The segments of a codec that codes them one by one: cutting, loudness, overlap-add.

Works on NumPy arrays; knows no network, so PyTorch's codec uses it as well as JAX's.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Float, Int

from stemgen_jax.codec.architecture import CodecSpec

DEFAULT_SCALE = 0.1  # RMS of a decoded segment whose scale is not given: -20 dB of full scale

Segment = Float[np.ndarray, "B channels _"]  # each of its own length
Codes = Int[np.ndarray, "B _ levels"]


def cut_audio(spec: CodecSpec, blocks: Iterable[Segment]) -> Iterator[Segment]:
  """Yields the segments of audio that comes in blocks of any lengths; the last may be shorter."""
  size, stride = spec.segment_samples, spec.segment_stride_samples
  held = None
  for block in blocks:
    held = block if held is None else np.concatenate([held, block], axis=-1)
    while held.shape[-1] >= size:
      yield held[..., :size]
      held = held[..., stride:]
  while held is not None and held.shape[-1]:
    yield held[..., :size]
    held = held[..., stride:]


def cut_codes(spec: CodecSpec, blocks: Iterable[Codes]) -> Iterator[Codes]:
  """Yields each segment's codes; the counterpart of `cut_audio`."""
  full = spec.segment_frames
  tail = full * (-(-spec.segment_samples // spec.segment_stride_samples) + 1)  # may be shorter ones
  held = None
  for block in blocks:
    held = block if held is None else np.concatenate([held, block], axis=1)
    while held.shape[1] > tail:
      yield held[:, :full]
      held = held[:, full:]
  if held is not None:
    yield from np.split(held, np.cumsum(spec.segment_counts(held.shape[1]))[:-1], axis=1)


def measure_scale(audio: Segment) -> Float[np.ndarray, " B"]:
  """Returns the RMS of the mean of the channels, which a normalising codec divides by.

  Source: EnCodec (arXiv:2210.13438) section 3.1; 1e-8 is added as in `encodec`.
  """
  mono = audio.mean(axis=1, dtype=np.float32)
  return np.sqrt(np.square(mono).mean(axis=-1)) + np.float32(1e-8)


def overlap_add(spec: CodecSpec, segments: Iterable[Segment]) -> Iterator[Segment]:
  """Yields the audio of decoded segments, faded into each other, a stride at a time.

  A sample is sum_i w_i x_i / sum_i w_i over the segments that hold it, w rising linearly from a
  segment's ends to its middle. Source: `encodec.utils._linear_overlap_add`.
  """
  stride = spec.segment_stride_samples
  segments = iter(segments)
  first = next(segments, None)
  if first is None:
    return
  size = first.shape[-1]
  place = np.linspace(0, 1, size + 2, dtype=np.float32)[1:-1]
  window = 0.5 - np.abs(place - 0.5)
  total, weight = window * first, window.copy()
  for segment in segments:
    yield total[..., :stride] / weight[:stride]
    size = segment.shape[-1]
    room = max(size - (len(weight) - stride), 0)
    total = np.pad(total[..., stride:], ((0, 0), (0, 0), (0, room)))
    weight = np.pad(weight[stride:], (0, room))
    total[..., :size] += window[:size] * segment
    weight[:size] += window[:size]
  yield total[..., :size] / weight[:size]
