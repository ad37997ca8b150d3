# SPDX-License-Identifier: Apache-2.0
"""The codec in JAX: audio to EnCodec codes and back, from a bundle.

A bundle may hold another decoder for the same codes, which may give another rate.

`load(path)` gives a `Codec`. Arrays are [B, channels, samples] and [B, T, Q] here and nowhere
inside. PyTorch runs the same bundle in data_prep/codecs/torch_codec.py.
"""

import dataclasses
import itertools
import os
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Array, Float, Int

from stemgen_jax.codec import segments, stream
from stemgen_jax.codec.architecture import CodecSpec
from stemgen_jax.codec.bundle import DEMO_BUNDLE, Bundle, load_bundle, save_bundle
from stemgen_jax.codec.decoder import DecoderSpec
from stemgen_jax.codec.whole import decode, encode, fold, latents
from stemgen_jax.errors import UserError
from stemgen_jax.types import Params

__all__ = ["DEMO_BUNDLE", "Bundle", "Codec", "CodecSpec", "load", "load_bundle", "save_bundle"]

AT_ONCE = 4  # segments of a batch

Audio = Float[np.ndarray, "B channels _"]  # blocks differ in length
Codes = Int[np.ndarray, "B _ levels"]
Scales = Float[np.ndarray, "B _"]


def load(path: str | os.PathLike = DEMO_BUNDLE) -> "Codec":
  """Returns the codec of a bundle's folder.

  Raises:
    UserError: if the bundle is missing, damaged or does not fit its description.
  """
  bundle = load_bundle(path)
  own = bundle.decoder
  return Codec(
    bundle.spec, bundle.fingerprint, fold(bundle), own and own.spec, own and own.fingerprint
  )


@dataclasses.dataclass(frozen=True)
class Codec:
  """A codec ready to run, in constant memory whatever the length.

  Arrays are padded to a few set lengths, so that it compiles seldom. A normalising codec codes each
  segment at an RMS of 1: its loudness, `scales`, goes beside the codes.

  Attributes:
    spec: what makes the codes.
    fingerprint: the SHA-256 of its files, by which shards and models know it.
    params: of encoder, codebooks and decoder.
    decoder: the one that takes the place of EnCodec's own.
    decoder_fingerprint: the SHA-256 of its files.
  """

  spec: CodecSpec
  fingerprint: str
  params: Params = dataclasses.field(repr=False)
  decoder: DecoderSpec | None = None
  decoder_fingerprint: str | None = None

  @property
  def decoded_rate_hz(self) -> int:
    """The rate of decoded audio; that of audio to encode is spec.sample_rate."""
    return self.spec.sample_rate if self.decoder is None else self.decoder.sample_rate

  def decoded_samples(self, frames: int) -> int:
    """Returns how many samples a number of frames decodes to: up to the last segment's end."""
    if self.decoder is None:
      return self.spec.decoded_samples(frames)
    return frames * self.decoder.hop_samples

  def encode(self, audio: Float[Array | np.ndarray, "B channels samples"]) -> Codes:
    """Returns the int32 codes of audio at the codec's rate, T = spec.frames(samples).

    Raises:
      UserError: if the audio has another channel count or no samples.
    """
    audio, spec = self._check_audio(audio), self.spec
    samples = audio.shape[-1]
    frames = spec.frames(samples)
    if spec.segment_s is not None or frames > stream.BLOCK_FRAMES:
      return np.concatenate([codes for codes, _ in self.encode_blocks([audio])], axis=1)
    room = stream.round_up(frames) * spec.hop_samples - samples
    padded = np.pad(audio, ((0, 0), (0, 0), (0, room)))
    return np.asarray(encode(self.params, spec, padded, samples))[:, :frames]

  def latents(
    self, audio: Float[Array | np.ndarray, "B channels samples"]
  ) -> Float[np.ndarray, "B T dimension"]:
    """Returns what the encoder says of short audio before it is quantised: an embedding of sound.

    Segments play no part, so that a normalising codec's audio should have an RMS near 1.

    Raises:
      UserError: if the audio has another channel count or no samples.
    """
    audio = self._check_audio(audio)
    samples, hop = audio.shape[-1], self.spec.hop_samples
    frames = -(-samples // hop)
    padded = np.pad(audio, ((0, 0), (0, 0), (0, stream.round_up(frames) * hop - samples)))
    return np.asarray(latents(self.params, self.spec, padded, samples))[:, :frames]

  def scales(self, audio: Float[Array | np.ndarray, "B channels samples"]) -> Scales | None:
    """Returns the RMS of each segment of audio; None if the codec does not normalise.

    Raises:
      UserError: if the audio has another channel count or no samples.
    """
    audio = self._check_audio(audio)
    if not self.spec.normalize:
      return None
    pieces = segments.cut_audio(self.spec, [audio])
    return np.stack([segments.measure_scale(piece) for piece in pieces], axis=1)

  def decode(
    self,
    codes: Int[Array | np.ndarray, "B T levels"],
    scales: Float[Array | np.ndarray, "batch segments"] | None = None,
  ) -> Audio:
    """Returns float32 audio at decoded_rate_hz, decoded_samples(T) of it.

    Args:
      codes: all levels, or only the first ones.
      scales: of a normalising codec, from `scales`; None for segments.DEFAULT_SCALE, an RMS of 0.1
        (-20 dB of full scale), in every segment.

    Raises:
      UserError: if there are no frames, too many levels, codes outside the codebooks, or scales
        that do not fit.
    """
    parts = self.decode_parts(codes, scales)
    first = next(parts)
    batch, channels, done = first.shape
    samples = self.decoded_samples(np.shape(codes)[1])
    if done == samples:
      return first
    audio = np.empty((batch, channels, samples), np.float32)
    audio[..., :done] = first
    for part in parts:
      audio[..., done : done + part.shape[-1]] = part
      done += part.shape[-1]
    return audio

  def decode_parts(
    self,
    codes: Int[Array | np.ndarray, "B T levels"],
    scales: Float[Array | np.ndarray, "batch segments"] | None = None,
  ) -> Iterator[Audio]:
    """Yields what `decode` returns, and raises what it does; long audio in parts."""
    codes, spec = self._check_codes(codes, scales), self.spec
    frames = codes.shape[1]
    if not frames:
      raise UserError("codes must have at least one frame; got none. Check what was encoded.")
    count = len(spec.segment_counts(frames))
    if scales is not None and np.shape(scales)[1] != count:
      raise UserError(
        f"scales must be [{len(codes)}, {count}] for these codes; got shape={np.shape(scales)}."
        " Take Codec.scales'."
      )
    if spec.segment_s is not None or frames > stream.BLOCK_FRAMES:
      loud = None if scales is None else np.asarray(scales, np.float32)
      yield from self.decode_blocks([(codes, loud)])
      return
    padded = np.pad(codes, ((0, 0), (0, stream.round_up(frames) - frames), (0, 0)))
    audio = decode(self.params, spec, padded, frames, self.decoder)
    yield np.asarray(audio)[..., : self.decoded_samples(frames)]

  def encode_blocks(self, blocks: Iterable[Audio]) -> Iterator[tuple[Codes, Scales | None]]:
    """Yields codes and their segments' scales; joined, they are those of all blocks joined.

    Args:
      blocks: audio of any lengths, none at all too, one batch throughout.
    """
    blocks = (block for block in map(self._check_blocks, blocks) if block.shape[2])
    if self.spec.segment_s is None:
      yield from ((codes, None) for codes in stream.encode_blocks(self.params, self.spec, blocks))
      return
    for group in _batches(segments.cut_audio(self.spec, blocks), axis=-1):
      count, samples = len(group), group[0].shape[-1]
      scales = np.stack([segments.measure_scale(piece) for piece in group], axis=1)
      audio = np.concatenate(group)
      if self.spec.normalize:
        audio = audio / scales.T.reshape(-1, 1, 1)
      room = self.spec.segment_frames * self.spec.hop_samples - samples
      codes = encode(self.params, self.spec, _pad(audio, count, room, axis=-1), samples)
      codes = np.asarray(codes)[: len(audio), : -(-samples // self.spec.hop_samples)]
      joined = np.concatenate(np.split(codes, count), axis=1)
      yield joined, scales if self.spec.normalize else None

  def decode_blocks(self, blocks: Iterable[tuple[Codes, Scales | None]]) -> Iterator[Audio]:
    """Yields audio; joined, it is that of all blocks' codes (and scales) joined.

    Args:
      blocks: codes of any numbers of frames, and any number of scales, one batch throughout; a
        segment's scale comes with its last frame at the latest.
    """
    if self.spec.segment_s is None:
      codes = (self._check_codes(codes, scales) for codes, scales in blocks)
      codes = (block for block in codes if block.shape[1])
      yield from stream.decode_blocks(self.params, self.spec, codes, self.decoder)
    else:
      yield from segments.overlap_add(self.spec, self._decode_segments(blocks))

  def _decode_segments(self, blocks: Iterable[tuple[Codes, Scales | None]]) -> Iterator[Audio]:
    """Yields the audio of each segment at its own loudness."""
    waiting: list[Float[np.ndarray, " B"]] = []  # the scales of segments that are still to come
    given = False

    def codes() -> Iterator[Codes]:
      nonlocal given
      for block, scales in blocks:
        if scales is not None:
          waiting.extend(np.asarray(scales, np.float32).T)
          given = True
        block = self._check_codes(block, scales)
        if block.shape[1]:
          yield block

    for group in _batches(segments.cut_codes(self.spec, codes()), axis=1):
      count, frames, batch = len(group), group[0].shape[1], np.concatenate(group)
      padded = _pad(batch, count, self.spec.segment_frames - frames, axis=1)
      audio = np.asarray(decode(self.params, self.spec, padded, frames))
      audio = audio[: len(batch), :, : frames * self.spec.hop_samples]
      scales = [np.array([segments.DEFAULT_SCALE], np.float32)] * count
      if given:
        scales = [waiting.pop(0) for _ in range(min(count, len(waiting)))]
      if len(scales) < count:
        raise UserError("scales must be one for each segment; got too few. Take Codec.scales'.")
      for piece, scale in zip(np.split(audio, count), scales, strict=True):
        yield piece * scale[:, None, None] if self.spec.normalize else piece
    if waiting:
      raise UserError(
        f"scales must be one for each segment; got {len(waiting)} too many. Take Codec.scales'."
      )

  def _check_audio(self, audio: Float[Array | np.ndarray, "B channels samples"]) -> Audio:
    audio = self._check_blocks(audio)
    if not audio.shape[2]:
      raise UserError(
        f"audio must have at least one sample; got shape={audio.shape}. Check the recording."
      )
    return audio

  def _check_blocks(self, audio: Float[Array | np.ndarray, "B channels _"]) -> Audio:
    audio = np.asarray(audio, np.float32)
    if audio.ndim != 3 or audio.shape[1] != self.spec.channels:
      raise UserError(
        f"audio must be [B, {self.spec.channels}, samples] for this codec;"
        f" got shape={audio.shape}. Convert it first."
      )
    return audio

  def _check_codes(self, codes: Int[Array | np.ndarray, "B T levels"], scales=None) -> Codes:
    codes, spec = np.asarray(codes, np.int32), self.spec
    if codes.ndim != 3 or not 1 <= codes.shape[2] <= spec.n_levels:
      raise UserError(
        f"codes must be [B, T, levels] with 1 to {spec.n_levels} levels for this codec;"
        f" got shape={codes.shape}. Check which codec made them."
      )
    if codes.size and (codes.min() < 0 or codes.max() >= spec.n_codes):
      raise UserError(
        f"codes must be 0 to {spec.n_codes - 1} for this codec; got {codes.min()} to {codes.max()}."
        " Check which codec made them."
      )
    if scales is not None and not (
      spec.normalize and np.ndim(scales) == 2 and len(scales) == len(codes)
    ):
      raise UserError(
        f"scales must be [{len(codes)}, segments] and of a codec that normalises; got"
        f" shape={np.shape(scales)}. Take Codec.scales'."
      )
    return codes


def _batches(pieces: Iterable[np.ndarray], axis: int) -> Iterator[list[np.ndarray]]:
  """Yields lists of up to AT_ONCE neighbours of the same length."""
  for _, same in itertools.groupby(pieces, key=lambda piece: piece.shape[axis]):
    while group := list(itertools.islice(same, AT_ONCE)):
      yield group


def _pad(batch: np.ndarray, count: int, room: int, axis: int) -> np.ndarray:
  """Returns a batch of `count` segments as one of AT_ONCE (or 1), each longer by `room`."""
  more = 0 if count == 1 else len(batch) // count * (AT_ONCE - count)
  widths = [(0, more), (0, 0), (0, 0)]
  widths[axis] = (0, room)
  return np.pad(batch, widths)
