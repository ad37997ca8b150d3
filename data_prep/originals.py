# SPDX-License-Identifier: Apache-2.0
r"""Writes the stems of a dataset's songs as audio, as the codec would hear them: a second ceiling.

Example:
  python -m data_prep.originals --root my_songs --data shards/mine --split test --out originals
  python -m stemgen_jax.evaluate --data shards/mine --originals originals --out report

Shards hold no audio, so a model can only be held against true stems that went through the codec.
DIR/SONG/00.wav and so on are float files at the codec's rate and channels, in the order of the
dataset's rows.
"""

import sys
from pathlib import Path

from data_prep.corpora import AUTO, CORPORA, open_corpus
from data_prep.corpora.types import Corpus
from data_prep.tokens.tokenizer import read_stems
from stemgen_jax.audio.files import write_audio
from stemgen_jax.data.records import Dataset
from stemgen_jax.errors import UserError, run_cli
from stemgen_jax.shell.flags import build_parser
from stemgen_jax.shell.folders import keep_what_is_read, make_folder
from stemgen_jax.shell.progress import make_bars


def write_originals(corpus: Corpus, dataset: Dataset, split: str, out: Path) -> Path:
  """Writes the songs of a split to `out`, and returns it.

  Raises:
    UserError: if a song is not in the corpus, has other stems there, or cannot be read.
  """
  tracks = {track.id: track for track in corpus.tracks()}
  source, lacking = dataset.source(split), dataset.metadata.settings.get("failed", {})
  stems = {}
  for song, count in zip(source.songs, source.stems, strict=True):
    known = tracks[song].stems if song in tracks else ()
    stems[song] = [stem for stem in known if f"{song}/{stem.name}" not in lacking]
    if len(stems[song]) != count:
      raise UserError(
        f"--root must hold the music that --data was made of; got {len(stems[song])} stems of"
        f" {song} there, {count} in the dataset. Give that folder and its --corpus."
      )
  metadata = dataset.metadata
  for song in make_bars().track(stems, description="songs"):
    found = read_stems(stems[song], metadata.sample_rate_hz, metadata.channels)
    for why in found.left_out.values():
      raise UserError(why)
    audio = found.audio
    make_folder(out / song, "--out")
    paths = [out / song / f"{row:02d}.wav" for row in range(len(audio))]
    read = {f"{file.path}": file.path for stem in stems[song] for file in stem.files}
    keep_what_is_read(read, paths)
    for path, samples in zip(paths, audio, strict=True):
      write_audio(path, samples, metadata.sample_rate_hz, "FLOAT")
  return out


def main(argv: list[str] | None = None) -> None:
  """Writes the stems of a dataset as they were before the codec, and prints their folder."""
  parser = build_parser(__doc__)
  add = parser.add_argument
  add("--root", required=True, help="the corpus' folder")
  add("--corpus", default=AUTO, choices=(AUTO, *CORPORA), help="its layout (default auto)")
  add("--data", required=True, help="the dataset that was made of it")
  add("--split", default="test", help="whose songs (default test)")
  add("--out", required=True, type=Path, metavar="DIR")
  args = parser.parse_args(argv)
  corpus = open_corpus(args.corpus, args.root)
  print(write_originals(corpus, Dataset.open(args.data), args.split, args.out))


if __name__ == "__main__":
  sys.exit(run_cli(main))
