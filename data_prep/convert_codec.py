# SPDX-License-Identifier: Apache-2.0
"""example: python -m data_prep.convert_codec --from facebook/encodec_32khz --out codecs/32khz

Turns published EnCodec weights into a codec bundle. Takes the encodec package's state dicts (24 and
48 kHz), audiocraft's exports (compression_state_dict.bin), and Hugging Face folders such as
facebook/encodec_32khz or facebook/musicgen-small, as a file, as the folder that holds it, or by the
name OWNER/NAME or OWNER/NAME@REVISION at the Hugging Face hub. A folder of that name goes first.

With --decoder the bundle decodes by a published Vocos instead of EnCodec's own decoder, for the
same tokens: python -m data_prep.convert_codec --from encodec_24khz.th --levels 8 --licence TEXT
--decoder charactr/vocos-encodec-24khz --out codecs/24khz
"""

import argparse
import dataclasses
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from data_prep.codecs.formats import LICENCES, find_licence, open_source
from data_prep.codecs.named import fetch_codec
from data_prep.codecs.source import take_weights
from data_prep.codecs.vocos_format import read_vocos
from stemgen_jax.codec.architecture import CODEBOOK, CodecSpec
from stemgen_jax.codec.bundle import (
  DECODER_SPEC_FILE,
  DECODER_WEIGHTS_FILE,
  SPEC_FILE,
  WEIGHTS_FILE,
  Bundle,
  add_decoder,
  load_bundle,
  save_bundle,
)
from stemgen_jax.codec.decoder import DecoderSpec
from stemgen_jax.errors import UserError, run_cli
from stemgen_jax.shell import hub
from stemgen_jax.shell.flags import build_parser
from stemgen_jax.shell.folders import cache_folder, make_folder

CONTINUED = " \\\n    "


def convert_codec(
  path: str | os.PathLike,
  out: Path,
  levels: int | None = None,
  licence: str | None = None,
  decoder: str | os.PathLike | None = None,
) -> Bundle:
  """Writes the bundle of a published codec, and returns it.

  Args:
    path: a file of weights or its folder, or where there is neither, OWNER/NAME or
      OWNER/NAME@REVISION of a Hugging Face repository.
    out: the bundle's folder; replaced if it is a bundle.
    levels: how many levels to keep, the coarsest first; None keeps all.
    licence: of the weights; None takes what is known of them.
    decoder: a published Vocos that takes the place of EnCodec's own decoder, as `path`.

  Raises:
    UserError: if the codec cannot be fetched, read or expressed, its licence is not known, or `out`
      holds anything but a bundle.
  """
  out = out.absolute()
  _check_out(out)
  try:
    snapshot, file = _find(path, "--from")
    source = open_source(file)
  except OSError as error:
    raise UserError(f"--from must be readable; got --from={path} ({error}). Check it.") from error
  most = source.spec.n_levels
  if levels is not None and not 1 <= levels <= most:
    raise UserError(f"--levels must be 1 to {most}, those of the codec; got --levels={levels}.")
  licence = licence or find_licence(source)
  if not licence:
    raise UserError(
      f"licence of the weights must be given; got --from={path}, of which none is known. Add"
      f" --licence TEXT. {LICENCES}"
    )
  origin = f"{snapshot.name}@{snapshot.commit} " if snapshot else ""
  spec = dataclasses.replace(
    source.spec,
    n_levels=levels or most,
    licence=licence,
    source=f"{origin}{source.path.name} ({source.format}), SHA-256 {source.sha256}",
  )
  weights = take_weights(source, spec.n_levels)
  other = _read_decoder(decoder, spec, weights) if decoder else None
  make_folder(out.parent, "folder of --out")
  save_bundle(out, spec, weights)
  if other:
    add_decoder(out, out, *other)
  return load_bundle(out)


def find_codec(codec: str) -> str:
  """Returns the bundle that a command's --codec means: a folder, or a published codec by its name.

  What a name means is converted once, into the user's cache, and its licence is said then.

  Raises:
    UserError: if it cannot be fetched or converted, or there is no cache.
  """
  if not hub.is_name(codec) or Path(codec).exists():
    return codec
  folder = cache_folder("codecs")
  if folder is None:
    raise UserError(
      f"a codec's name needs a cache folder that can be written; got {codec} without one. Set"
      " XDG_CACHE_HOME, or give the folder of a bundle."
    )
  out = folder / re.sub(r"[^\w.-]", "--", codec.removeprefix(hub.SCHEME), flags=re.ASCII)
  if not (out / SPEC_FILE).is_file():
    bundle = convert_codec(codec, out)
    print(f"{codec}, licence {bundle.spec.licence}, is kept as {out}", file=sys.stderr)
  return os.fspath(out)


def _find(path: str | os.PathLike, flag: str) -> tuple[hub.Snapshot | None, Path]:
  """Returns the file or folder that a flag names, fetched first if it is a repository's name."""
  name = os.fspath(path)
  return (
    fetch_codec(name, flag) if hub.is_name(name) and not Path(name).exists() else (None, Path(name))
  )


def _read_decoder(
  path: str | os.PathLike, spec: CodecSpec, weights: Mapping[str, np.ndarray]
) -> tuple[DecoderSpec, dict[str, np.ndarray]]:
  """Returns a published decoder for these tokens; of a name, its commit stands in the source."""
  snapshot, file = _find(path, "--decoder")
  if not file.is_file():
    raise UserError(f"--decoder must be a file of weights, or OWNER/NAME; got {path}. Check it.")
  books = [weights[CODEBOOK.format(q)] for q in range(spec.n_levels)]
  found, tensors = read_vocos(file, spec, books)
  origin = f"{snapshot.name}@{snapshot.commit} " if snapshot else ""
  return dataclasses.replace(found, source=origin + found.source), tensors


def _check_out(out: Path) -> None:
  """Raises a UserError unless `out` is free, empty or a bundle and nothing else."""
  if not out.exists():
    return
  names = {entry.name for entry in out.iterdir()} if out.is_dir() else {out.name}
  own = {SPEC_FILE, WEIGHTS_FILE, DECODER_SPEC_FILE, DECODER_WEIGHTS_FILE}
  if names and (SPEC_FILE not in names or names - own):
    raise UserError(
      f"--out must be a new folder or a codec bundle; got --out={out}, which holds"
      f" {', '.join(sorted(names)[:5])}. Give another folder."
    )


def describe(bundle: Bundle, out: Path) -> str:
  """Returns what was written, and the two commands that come next."""
  spec = bundle.spec
  rows = {
    "fingerprint": bundle.fingerprint,
    "audio": f"{spec.sample_rate} Hz, {'stereo' if spec.channels == 2 else 'mono'}",
    "levels": f"{spec.n_levels}, each of {spec.n_codes} codes",
    "frames": f"{spec.frame_rate_hz:g} a second",
    "bits": f"{spec.bits_per_s:.0f} a second",
    "licence": spec.licence,
    "source": spec.source,
  }
  if bundle.decoder:
    rows |= {"decoder": bundle.decoder.spec.source, "its licence": bundle.decoder.spec.licence}
  steps = (128, 64, 32, 32, *[16] * spec.n_levels)[: spec.n_levels]
  settings = {
    "data.path": "TOKENS",
    "data.codec": out,
    "data.batch_size": max(32 // spec.n_levels, 1) * spec.n_levels,
    "model.n_levels": spec.n_levels,
    "model.n_codes": spec.n_codes,
    "sample.steps": f"'{','.join(map(str, steps))}'",
  }
  train = ["python -m stemgen_jax.train --config configs/slakh.py --workdir RUN"]
  train += [f"--config.{name}={value}" for name, value in settings.items()]
  table = "\n".join(f"{name:<12} {value}" for name, value in rows.items())
  return f"""{out}
{table}

Next:
  python -m data_prep.tokenize --corpus slakh --root MUSIC --codec {out} --out TOKENS
  {CONTINUED.join(train)}"""


def parser() -> argparse.ArgumentParser:
  """Returns the command line's parser."""
  parser = build_parser(__doc__)
  parser.add_argument(
    "--from", required=True, metavar="PATH", dest="path", help="file, folder, or OWNER/NAME"
  )
  parser.add_argument("--out", required=True, type=Path, metavar="BUNDLE", help="the new folder")
  parser.add_argument("--levels", type=int, help="how many to keep; all if not given")
  parser.add_argument("--licence", metavar="TEXT", help="of the weights, where it is not known")
  parser.add_argument(
    "--decoder",
    metavar="PATH",
    help="a Vocos for the same tokens, as charactr/vocos-encodec-24khz, that decodes them",
  )
  return parser


def main(argv: list[str] | None = None) -> None:
  """Runs the command line."""
  arguments = parser().parse_args(argv)
  bundle = convert_codec(
    arguments.path, arguments.out, arguments.levels, arguments.licence, arguments.decoder
  )
  print(describe(bundle, arguments.out))


if __name__ == "__main__":
  sys.exit(run_cli(main))
