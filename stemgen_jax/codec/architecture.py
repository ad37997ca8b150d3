# SPDX-License-Identifier: Apache-2.0
"""What an EnCodec is: its description, its layers, and the name and shape of every tensor.

Tensor names are those of the `encodec` package's EncodecModel. Knows nothing of files or arrays.
"""

import bisect
import dataclasses
import math
from collections.abc import Iterator

from stemgen_jax.errors import find_broken

CODEBOOK = "quantizer.vq.layers.{}._codebook.embed"
WEIGHT_NORM, GROUP_NORM = "weight_norm", "time_group_norm"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodecSpec:
  """An EnCodec: audio format, codes, architecture and provenance. Defaults are EnCodec's own."""

  sample_rate: int
  channels: int = 1
  n_levels: int
  n_codes: int = 1024
  ratios: tuple[int, ...] = (8, 5, 4, 2)  # decoder order; the encoder runs them backwards
  dimension: int = 128
  n_filters: int = 32
  n_residual_layers: int = 1
  kernel_size: int = 7
  last_kernel_size: int = 7
  residual_kernel_size: int = 3
  dilation_base: int = 2
  compress: int = 2  # the residual branch is this many times narrower
  lstm: int = 2  # layers; 0 for none
  true_skip: bool = False  # identity shortcut instead of a 1x1 convolution
  causal: bool = True
  pad_mode: str = "reflect"
  norm: str = WEIGHT_NORM  # or GROUP_NORM over a whole segment (48 kHz EnCodec)
  normalize: bool = False  # every segment is coded at an RMS of 1, its scale beside the codes
  segment_s: float | None = None  # length of independently coded segments; None for one whole
  overlap: float = 0.01  # share of a segment that the next one repeats
  licence: str
  source: str

  @property
  def hop_samples(self) -> int:
    """Samples of one frame."""
    return math.prod(self.ratios)

  @property
  def frame_rate_hz(self) -> float:
    """Frames a second of a segment."""
    return self.sample_rate / self.hop_samples

  @property
  def bits_per_s(self) -> float:
    """Bits a second with all levels, frames of overlapping segments counted twice."""
    bits = self.n_levels * math.log2(self.n_codes) * self.frame_rate_hz
    if self.segment_s is None:
      return bits
    return bits * self.segment_samples / self.segment_stride_samples

  @property
  def segment_samples(self) -> int:
    """Samples of a segment; only of a codec that has segments."""
    if self.segment_s is None:
      raise ValueError("a codec without segments has no segment_samples.")
    return int(self.segment_s * self.sample_rate)

  @property
  def segment_frames(self) -> int:
    """Frames of a whole segment."""
    return -(-self.segment_samples // self.hop_samples)

  @property
  def segment_stride_samples(self) -> int:
    """Samples from the start of a segment to that of the next, rounded as `encodec` does."""
    return max(int((1 - self.overlap) * self.segment_samples), 1)

  def segments(self, samples: int) -> list[tuple[int, int]]:
    """Returns the (start, end) of every segment, in samples; the last ones may be shorter."""
    if self.segment_s is None:
      return [(0, samples)]
    starts = range(0, samples, self.segment_stride_samples)
    return [(start, min(start + self.segment_samples, samples)) for start in starts]

  def frames(self, samples: int) -> int:
    """Returns how many frames a number of samples gives: each segment's, one after the other."""
    return sum(-(-(end - start) // self.hop_samples) for start, end in self.segments(samples))

  def segment_counts(self, frames: int) -> list[int]:
    """Returns how many of a number of frames belong to each segment.

    Raises:
      ValueError: if no audio gives that many frames.
    """
    if self.segment_s is None:
      return [frames]
    most = -(-frames // self.segment_frames) * self.segment_samples
    samples = bisect.bisect_left(range(most), frames, key=self.frames)
    counts = [-(-(end - start) // self.hop_samples) for start, end in self.segments(samples)]
    if sum(counts) != frames:
      raise ValueError(f"frames must be those of some audio; got {frames}")
    return counts

  def decoded_samples(self, frames: int) -> int:
    """Returns how many samples a number of frames decodes to: up to the last segment's end."""
    *others, last = self.segment_counts(frames)
    stride = self.segment_stride_samples if others else 0
    return len(others) * stride + last * self.hop_samples

  def frame_starts(self, frames: int) -> list[int]:
    """Returns the sample at which each of a number of frames begins."""
    counts = self.segment_counts(frames)
    stride = self.segment_stride_samples if len(counts) > 1 else 0
    return [
      segment * stride + frame * self.hop_samples
      for segment, count in enumerate(counts)
      for frame in range(count)
    ]

  def frame_start(self, frame: int) -> int:
    """Returns the sample at which a frame begins in audio that goes on after it."""
    if self.segment_s is None:
      return frame * self.hop_samples
    segment, rest = divmod(frame, self.segment_frames)
    return segment * self.segment_stride_samples + rest * self.hop_samples

  def problems(self) -> list[str]:
    """Returns every rule that the spec breaks, one phrase each."""
    rules = {
      "sample_rate": (self.sample_rate > 0, "be positive"),
      "channels": (self.channels in (1, 2), "be 1 or 2"),
      "n_levels": (self.n_levels >= 1, "be at least 1"),
      "n_codes": (self.n_codes >= 2 and self.n_codes.bit_count() == 1, "be a power of two"),
      "ratios": (bool(self.ratios) and min(self.ratios) >= 1, "be positive numbers"),
      "n_residual_layers": (self.n_residual_layers >= 0, "be at least 0"),
      "lstm": (self.lstm >= 0, "be at least 0"),
      "pad_mode": (self.pad_mode in ("reflect", "constant"), "be one of reflect, constant"),
      "norm": (self.norm in (WEIGHT_NORM, GROUP_NORM), f"be one of {WEIGHT_NORM}, {GROUP_NORM}"),
      "causal": (
        not (self.causal and self.norm == GROUP_NORM),
        f"be false with norm {GROUP_NORM}, which sees the whole segment",
      ),
      "segment_s": (
        (self.segment_s or 0) * self.sample_rate >= 1
        if self.segment_s is not None
        else self.norm != GROUP_NORM and not self.normalize,
        f"be a length of at least one sample, and given with norm {GROUP_NORM} or normalize",
      ),
      "overlap": (0 <= self.overlap < 1, "be at least 0 and less than 1"),
    }
    return find_broken(
      (kept, f"{name} must {rule}", getattr(self, name)) for name, (kept, rule) in rules.items()
    )


def tensor_shapes(spec: CodecSpec) -> dict[str, tuple[int, ...]]:
  """Returns the name and shape of every tensor of a codec, in the `encodec` package's terms."""
  shapes = dict(_network("encoder", spec))
  shapes.update(_network("decoder", spec))
  for level in range(spec.n_levels):
    shapes[CODEBOOK.format(level)] = (spec.n_codes, spec.dimension)
  return shapes


def _network(side: str, spec: CodecSpec) -> Iterator[tuple[str, tuple[int, ...]]]:
  """Yields name and shape of each tensor of `encoder` or `decoder`, in the order of its layers."""
  for index, kind, sizes in layers(side, spec):
    at = f"{side}.model.{index}"
    if kind == "lstm":
      width, *_ = sizes
      for layer in range(spec.lstm):
        for part in ("ih", "hh"):
          yield f"{at}.lstm.weight_{part}_l{layer}", (4 * width, width)
          yield f"{at}.lstm.bias_{part}_l{layer}", (4 * width,)
    elif kind == "residual":
      width, *_ = sizes
      hidden = width // spec.compress
      taps = spec.residual_kernel_size
      yield from _convolution(f"{at}.block.1.conv", "conv", (hidden, width, taps), hidden, spec)
      yield from _convolution(f"{at}.block.3.conv", "conv", (width, hidden, 1), width, spec)
      if not spec.true_skip:
        yield from _convolution(f"{at}.shortcut.conv", "conv", (width, width, 1), width, spec)
    elif kind == "up":
      taken, given, stride = sizes
      yield from _convolution(f"{at}.convtr", "convtr", (taken, given, 2 * stride), given, spec)
    elif kind in ("conv", "down"):
      taken, given, size = sizes
      taps = 2 * size if kind == "down" else size
      yield from _convolution(f"{at}.conv", "conv", (given, taken, taps), given, spec)
    elif kind != "elu":
      raise ValueError(f"unknown layer kind {kind!r}")


def layers(side: str, spec: CodecSpec) -> Iterator[tuple[int, str, tuple[int, ...]]]:
  """Yields (index in the Sequential, kind, sizes) of each layer of a SEANet.

  Sizes are: conv (in, out, kernel), down and up (in, out, stride), residual (width, dilation),
  lstm (width,), elu ().

  Source: EnCodec (arXiv:2210.13438) section 3.1; `encodec.modules.seanet` for the order.
  """
  plan: list[tuple[str, tuple[int, ...]]] = []
  widest = spec.n_filters * 2 ** len(spec.ratios)
  dilations = [spec.dilation_base**i for i in range(spec.n_residual_layers)]
  if side == "encoder":
    width = spec.n_filters
    plan.append(("conv", (spec.channels, width, spec.kernel_size)))
    for stride in reversed(spec.ratios):
      plan += [("residual", (width, dilation)) for dilation in dilations]
      plan += [("elu", ()), ("down", (width, 2 * width, stride))]
      width *= 2
    plan += [("lstm", (width,))] * bool(spec.lstm)
    plan += [("elu", ()), ("conv", (width, spec.dimension, spec.last_kernel_size))]
  elif side == "decoder":
    width = widest
    plan.append(("conv", (spec.dimension, width, spec.kernel_size)))
    plan += [("lstm", (width,))] * bool(spec.lstm)
    for stride in spec.ratios:
      plan += [("elu", ()), ("up", (width, width // 2, stride))]
      width //= 2
      plan += [("residual", (width, dilation)) for dilation in dilations]
    plan += [("elu", ()), ("conv", (width, spec.channels, spec.last_kernel_size))]
  else:
    raise ValueError(f"side must be encoder or decoder; got {side!r}")
  for index, (kind, sizes) in enumerate(plan):
    yield index, kind, sizes


def _convolution(
  at: str, name: str, kernel: tuple[int, ...], given: int, spec: CodecSpec
) -> Iterator[tuple[str, tuple[int, ...]]]:
  """Yields the tensors of a (transposed) convolution and of its norm."""
  if spec.norm == WEIGHT_NORM:
    yield f"{at}.{name}.weight_g", (kernel[0], 1, 1)
    yield f"{at}.{name}.weight_v", kernel
  else:
    yield f"{at}.{name}.weight", kernel
    yield f"{at}.norm.weight", (given,)
    yield f"{at}.norm.bias", (given,)
  yield f"{at}.{name}.bias", (given,)
