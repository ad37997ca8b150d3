# SPDX-License-Identifier: Apache-2.0
"""Lets you hear what a codec makes of a recording: encodes it, decodes it, in constant memory.

Example:
  python -m stemgen_jax.codec song.wav --out heard.wav --levels 2
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import soundfile

from stemgen_jax.audio.files import Samples, measure_duration, read_blocks, write_blocks
from stemgen_jax.codec import DEMO_BUNDLE, Codec, load
from stemgen_jax.errors import UserError, run_cli
from stemgen_jax.shell.flags import build_parser
from stemgen_jax.shell.folders import keep_what_is_read, refuse_folder
from stemgen_jax.shell.progress import make_bars

ENDINGS = ("wav", "flac", "ogg", "mp3", "aiff", "au", "caf", "rf64", "w64")


def hear(codec: Codec, path: Path, levels: int, samples: int) -> Iterator[Samples]:
  """Yields a recording as codes and back, cut to its length.

  Args:
    codec: decides rate and channels.
    path: an audio file of any rate and length.
    levels: how many of each frame's codes to decode.
    samples: of the recording, at the rate of what is decoded.
  """
  spec = codec.spec
  audio = (block[None] for block in read_blocks(path, spec.sample_rate, spec.channels))
  codes = codec.encode_blocks(audio)
  left = samples
  for block in codec.decode_blocks((part[..., :levels], scales) for part, scales in codes):
    yield block[0, :, :left]
    left -= min(block.shape[2], left)


def choose_subtype(out: Path) -> str:
  """Returns how libsndfile is to store a file's samples: in 16 bits, or as a lossy format has it.

  Raises:
    UserError: if the file's ending is of no format that can be written.
  """
  found = out.suffix[1:].lower()
  if found not in ENDINGS or found.upper() not in soundfile.available_formats():
    raise UserError(f"--out must end in one of .{', .'.join(ENDINGS)}; got {out}. Choose another.")
  whole = soundfile.check_format(found, "PCM_16")
  return "PCM_16" if whole else soundfile.default_subtype(found) or ""


def main(argv: list[str] | None = None) -> None:
  """Plays a recording through a codec, and prints the file, its length and its bit rate."""
  arguments = build_arguments().parse_args(argv)
  codec = load(arguments.codec)
  spec, out = codec.spec, arguments.out
  levels = spec.n_levels if arguments.levels is None else arguments.levels
  if not 1 <= levels <= spec.n_levels:
    raise UserError(f"--levels must be 1 to {spec.n_levels} for this codec; got {levels}.")
  subtype = choose_subtype(out)
  if not out.parent.is_dir():
    raise UserError(f"--out must lie in a folder that exists; got {out}. Make {out.parent} first.")
  refuse_folder(out, "--out")
  keep_what_is_read({"recording": arguments.recording}, [out])
  duration_s = measure_duration(arguments.recording)
  samples = round(duration_s * codec.decoded_rate_hz)
  with make_bars() as bars:
    heard = hear(codec, arguments.recording, levels, samples)
    task = bars.add_task("through the codec", total=samples)

    def counted() -> Iterator[Samples]:
      for block in heard:
        bars.advance(task, block.shape[1])
        yield block

    write_blocks(out, counted(), codec.decoded_rate_hz, spec.channels, subtype)
  frames = spec.frames(round(duration_s * spec.sample_rate))
  bits_per_s = spec.bits_per_s * levels / spec.n_levels
  print(
    f"{out}: {duration_s:.1f} s, {frames} frames of {levels} codes,"
    f" {bits_per_s:.0f} bit/s ({spec.source}; licence {spec.licence})"
  )


def build_arguments() -> argparse.ArgumentParser:
  """Returns the parser of the command line."""
  parser = build_parser(__doc__)
  parser.add_argument("recording", type=Path, help="wav, flac, ogg or mp3 of any rate and length")
  parser.add_argument("--out", required=True, type=Path, help="the audio file to write")
  parser.add_argument("--codec", default=DEMO_BUNDLE, type=Path, help="a codec bundle")
  parser.add_argument("--levels", type=int, help="decode only this many levels, the first ones")
  return parser


if __name__ == "__main__":
  sys.exit(run_cli(main))
