# SPDX-License-Identifier: Apache-2.0
"""A corpus of constant tones in Slakh's layout, and a stand-in codec that tells what it heard."""

import numpy as np
import soundfile
import yaml

from data_prep.corpora import open_corpus
from data_prep.tokenize import tokenize_corpus
from data_prep.tokens.tokenizer import TokenSettings
from stemgen_jax.codec.architecture import CodecSpec

RATE, HOP = 4000, 40


class MeanCodec:
  """Level 0 is the frame's mean in thousandths plus 2000, level 1 the frame's index."""

  spec = CodecSpec(
    sample_rate=RATE, ratios=(8, 5), n_levels=2, n_codes=4096, licence="none", source="a test"
  )
  fingerprint = "0" * 64
  calls = 0

  def encode(self, audio):
    self.calls += 1
    assert audio.dtype == np.float32
    assert len(audio) <= 4
    means = audio.reshape(len(audio), -1, HOP).mean(-1)
    index = np.broadcast_to(np.arange(means.shape[1]), means.shape)
    return np.stack([np.round(means * 1000).astype(np.int32) + 2000, index], -1)


INSTRUMENTS = [("Drums", 128, 0.05), ("Bass", 33, 0.1), ("Piano", 0, 0.2), ("Strings", 48, 0.4)]


def write_song(root, split, name, seconds=3.0, rate=RATE, stems=INSTRUMENTS):
  folder = root / split / name
  (folder / "stems").mkdir(parents=True)
  entries = {}
  for i, (word, program, value) in enumerate(stems):
    entries[f"S{i:02d}"] = {
      "audio_rendered": True,
      "inst_class": word,
      "is_drum": word == "Drums",
      "program_num": program,
    }
    audio = np.full((round(seconds * rate), 1), value, np.float32)
    soundfile.write(folder / "stems" / f"S{i:02d}.flac", audio, rate)
  (folder / "metadata.yaml").write_text(yaml.safe_dump({"UUID": "x", "stems": entries}))
  return folder


def edit_stems(folder, **changes):
  path = folder / "metadata.yaml"
  content = yaml.safe_load(path.read_text())
  for name, change in changes.items():
    content["stems"].setdefault(name, {}).update(change)
  path.write_text(yaml.safe_dump(content))


SETTINGS = TokenSettings(clip_s=4.0, mixes=6, level_s=0.25, gain_jitter_db=0.0, mix_jitter_db=0.0)


def run(root, out, codec=None, **options):
  """Returns the dataset's folder; every track must succeed."""
  directory, failed = run_some(root, out, codec, **options)
  assert failed == {}
  return directory


def run_some(root, out, codec=None, make_codec=MeanCodec, **options):
  options = {"settings": SETTINGS, "shard_songs": 2, **options}
  make_codec = make_codec if codec is None else lambda: codec
  return tokenize_corpus(open_corpus("slakh", root), make_codec, out, **options)
