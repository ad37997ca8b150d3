# SPDX-License-Identifier: Apache-2.0
"""Audio and codes of any length through the codec in constant memory, block by block.

A network is three parts: convolutions, an LSTM, convolutions. The LSTM hands its state on; the
convolutions see a block with its surroundings on both sides, of which only the block is kept. So
the result is that of the whole at once. Segments of a codec that has them are coded one by one.
"""

import functools
from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from stemgen_jax.codec import rvq, seanet, vocos
from stemgen_jax.codec.architecture import CodecSpec
from stemgen_jax.codec.decoder import DecoderSpec
from stemgen_jax.types import Params

BLOCK_FRAMES = 512  # of a block: 10 s at 50 Hz
Block = Float[np.ndarray, "B _ width"]  # each of its own length


def encode_blocks(
  params: Params, spec: CodecSpec, blocks: Iterable[Float[np.ndarray, "B channels _"]]
) -> Iterator[Int[np.ndarray, "B _ Q"]]:
  """Yields codes, block by block; together they are those of all the audio at once.

  Args:
    params: from `codec.fold`.
    spec: of a codec without segments.
    blocks: audio of any lengths.
  """
  x = (np.swapaxes(block, 1, 2) for block in blocks)
  for latents, frames in _network("encoder", params["encoder"], spec, x, spec.hop_samples, 1):
    yield np.asarray(_quantize(params["codebooks"], latents))[:, :frames]


def decode_blocks(
  params: Params,
  spec: CodecSpec,
  blocks: Iterable[Int[np.ndarray, "B _ levels"]],
  decoder: DecoderSpec | None = None,
) -> Iterator[Float[np.ndarray, "B channels _"]]:
  """Yields audio, block by block; together it is that of all the codes at once.

  Args:
    params: from `codec.fold`.
    spec: of a codec without segments.
    blocks: codes, of any numbers of frames.
    decoder: the one that takes the place of the codec's own.
  """
  pieces = (
    block[:, start : start + BLOCK_FRAMES]  # latents take more memory than codes
    for block in blocks
    for start in range(0, block.shape[1], BLOCK_FRAMES)
  )
  x = (np.asarray(_dequantize(params["codebooks"], piece)) for piece in pieces)
  if decoder is None:
    pairs = _network("decoder", params["decoder"], spec, x, 1, spec.hop_samples)
  else:
    run = functools.partial(_run_vocos, decoder, params["decoder"])
    pairs = _slide(run, x, decoder.look_frames, 1, decoder.hop_samples)
  for audio, samples in pairs:
    yield np.swapaxes(np.asarray(audio)[:, :samples], 1, 2)


def _network(
  side: str,
  params: list[dict],
  spec: CodecSpec,
  blocks: Iterable[Block],
  steps_in: int,
  steps_out: int,
) -> Iterator[tuple[Float[Array, "B time_out width_out"], int]]:
  """Yields (output, how much of it is real), block by block.

  Args:
    side: encoder or decoder.
    params: of that network.
    spec: the architecture.
    blocks: its input, of any lengths.
    steps_in: time steps of a frame in the input.
    steps_out: and in the output.
  """
  before, after = (
    functools.partial(_run_part, side, part, spec, params) for part in ("before", "after")
  )
  look = [seanet.surroundings(side, part, spec) for part in ("before", "after")]
  if not spec.lstm:
    yield from _slide(before, blocks, look[0], steps_in, steps_out)
    return
  middle = steps_in if side == "decoder" else steps_out  # the LSTM steps once a frame

  def remember() -> Iterator[Block]:
    state = None
    for x, real in _slide(before, blocks, look[0], steps_in, middle):
      state = seanet.zero_state(spec, len(x)) if state is None else state
      y, state = _run_lstm(side, spec, params, x, state)
      yield np.asarray(y)[:, :real]

  yield from _slide(after, remember(), look[1], middle, steps_out)


def _slide(
  run: Callable[[Block, int], Float[Array, "B time_out width_out"]],
  blocks: Iterable[Block],
  look: int,
  steps_in: int,
  steps_out: int,
) -> Iterator[tuple[Float[Array, "B time_out width_out"], int]]:
  """Yields `run` of all the blocks, BLOCK_FRAMES frames at a time.

  Args:
    run: takes an array and how much of it is real.
    blocks: its input, of any lengths.
    look: frames that `run` may look at on either side of a frame.
    steps_in: time steps of a frame in the input.
    steps_out: and in the output.
  """
  blocks, ended = iter(blocks), False
  held, begin, done = None, 0, 0  # the input from frame `begin` on; `done` frames are out
  room = (BLOCK_FRAMES + 2 * look) * steps_in
  while True:
    wanted = (done - begin + BLOCK_FRAMES + look) * steps_in
    while not ended and (held is None or held.shape[1] <= wanted):  # more than wanted: not the end
      block = next(blocks, None)
      if block is None:
        ended = True
      else:
        held = block if held is None else np.concatenate([held, block], axis=1)
    if held is None:
      return
    real = min(held.shape[1], wanted)
    if held.shape[1] <= wanted:  # the last blocks are as short as they can be
      room = min(round_up(-(-real // steps_in)) * steps_in, room)
    x = np.pad(held[:, :real], ((0, 0), (0, room - real), (0, 0)))
    frames = min(-(-held.shape[1] // steps_in) + begin - done, BLOCK_FRAMES)
    start = (done - begin) * steps_out
    yield run(x, real)[:, start : start + BLOCK_FRAMES * steps_out], frames * steps_out
    done += frames
    if ended and -(-held.shape[1] // steps_in) + begin == done:
      return
    next_begin = max(done - look, 0)
    held, begin = held[:, (next_begin - begin) * steps_in :], next_begin


def round_up(frames: int) -> int:
  """Returns the next length that is compiled for: a multiple of 8, at most a quarter longer."""
  step = max(2 ** (frames.bit_length() - 3), 8)
  return -(-frames // step) * step


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _run_part(side: str, part: str, spec: CodecSpec, params: list[dict], x, length):
  return seanet.run_part(side, part, params, spec, x, length)[0]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _run_lstm(side: str, spec: CodecSpec, params: list[dict], x, state):
  return seanet.run_lstm(side, params, spec, x, state)


@functools.partial(jax.jit, static_argnums=0)
def _run_vocos(decoder: DecoderSpec, params: Params, vectors, length):
  return vocos.run(params, decoder, vectors, length).transpose(0, 2, 1)


_quantize = jax.jit(lambda codebooks, latents: rvq.quantize(latents, codebooks))


def _dequantize(codebooks, codes: Int[np.ndarray, "B T levels"]) -> Float[Array, "B T D"]:
  return rvq.dequantize(jnp.asarray(codes, jnp.int32), codebooks)
