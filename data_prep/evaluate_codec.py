# SPDX-License-Identifier: Apache-2.0
"""Reports how good codecs are on held-out songs, level by level, beside Opus on the same clips.

Example:
  python -m data_prep.evaluate_codec --codec stemgen_jax/codec/demo_bundle --roots music --out eval

Full mixes and single stems apart; each clip is compared with the original in mono at one rate. OUT
gets codec.json (rows), codec.md (the table), pairs/*.wav (before and after) and codec.html. Files
that cannot be read are named and left out, and the exit code is then 3.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float
from rich.table import Table

from data_prep.codec_training.clips import MIX, STEM, Clip, choose_pairs, draw_clips
from data_prep.codec_training.fad import add_fad, load_embeddings, tell_fad
from data_prep.codecs import opus
from data_prep.codecs.torch_codec import TorchCodec
from data_prep.convert_codec import find_codec
from stemgen_jax.audio.files import Samples, write_audio
from stemgen_jax.codec.fidelity import evaluate, mel_distance_db, si_sdr_db
from stemgen_jax.errors import UserError, find_broken, run_cli
from stemgen_jax.pages.page import NARROW, describe_track, render
from stemgen_jax.shell.flags import build_parser
from stemgen_jax.shell.folders import make_folder, write_text
from stemgen_jax.shell.progress import make_console, say

OPUS_KBPS = (6, 12)
RESAMPLES = 2000
KINDS = {MIX: "full mixes", STEM: "single stems"}
PIECES = {MIX: "a full mix", STEM: "a single stem"}
HEADINGS = (
  "material", "codec", "levels", "kbit/s", "mel distance, dB", "SI-SDR, dB", "perplexity", "used",
)  # fmt: skip


def measure(
  codecs: Mapping[str, TorchCodec], clips: list[Clip], rate_hz: int, seconds: float
) -> list[dict]:
  """Returns a row for each kind of material and each number of levels or Opus bit rate.

  A row's `mel_distance_db` and `si_sdr_db` are those of `summarise`; `perplexity` and `used_share`
  are of the row's last level.
  """
  rows = []
  for kind in KINDS:
    chosen = [clip for clip in clips if clip.kind == kind]
    if not chosen:
      continue
    songs = [clip.song for clip in chosen]
    counts = {"kind": kind, "clips": len(chosen), "songs": len(set(songs)), "rate_hz": rate_hz}
    reference = np.concatenate([clip.convert(rate_hz, 1, seconds) for clip in chosen])
    for name, codec in codecs.items():
      print(f"{name} on {len(chosen)} {KINDS[kind]} ...", file=sys.stderr, flush=True)
      for row in _measure_codec(codec, chosen, reference, rate_hz, seconds):
        rows.append({**counts, "codec": name, **row})
    for row in _measure_opus(reference, songs, rate_hz):
      rows.append({**counts, **row})
  return rows


def _measure_codec(
  codec: TorchCodec, clips: list[Clip], reference: opus.Clips, rate_hz: int, seconds: float
) -> Iterator[dict]:
  spec = codec.spec
  audio = np.stack([clip.convert(spec.sample_rate, spec.channels, seconds) for clip in clips])
  found = evaluate(codec, audio, reference, rate_hz)
  songs = [clip.song for clip in clips]
  for i in range(spec.n_levels):
    yield {
      "levels": i + 1,
      "nominal_bits_per_s": round(spec.bits_per_s * (i + 1) / spec.n_levels, 1),
      "bits_per_s": round(float(found.bits_per_s[i]), 1),
      "mel_distance_db": summarise(found.mel_distance_db[i], songs),
      "si_sdr_db": summarise(found.si_sdr_db[i], songs),
      "perplexity": round(float(found.perplexity[i]), 1),
      "used_share": round(float(found.used_share[i]), 3),
      "codec_rate_hz": codec.decoded_rate_hz,
      "licence": spec.licence,
      "fingerprint": codec.fingerprint,
    }


def _measure_opus(reference: opus.Clips, songs: list[str], rate_hz: int) -> Iterator[dict]:
  encoder = opus.find_encoder()
  for kbps in OPUS_KBPS:
    row = {"codec": f"Opus {kbps}", "nominal_bits_per_s": kbps * 1000.0}
    if encoder is None:
      yield {**row, "note": opus.MISSING}
      continue
    try:
      made = opus.run_opus(reference, rate_hz, kbps, encoder)
    except subprocess.CalledProcessError as error:
      yield {**row, "note": f"not measured: {encoder} failed ({error.stderr.decode()[-200:]})"}
      continue
    pairs = list(zip(made.audio, reference, strict=True))
    yield {
      **row,
      "bits_per_s": round(made.bits_per_s, 1),
      "mel_distance_db": summarise([mel_distance_db(*pair, rate_hz) for pair in pairs], songs),
      "si_sdr_db": summarise([si_sdr_db(*pair) for pair in pairs], songs),
      "encoder": encoder,
      "shift_samples": made.shift_samples,
    }


def summarise(values: Float[np.ndarray, " B"] | list[float], songs: list[str]) -> dict[str, list]:
  """Returns mean and median over songs, each with the 95 % interval that resampling songs gives.

  Args:
    values: one for each clip.
    songs: the song of each; clips of a song are averaged first, for they are not independent.
  """
  values, names = np.asarray(values), np.asarray(songs)
  each = np.array([values[names == song].mean() for song in sorted(set(songs))])
  draws = each[np.random.default_rng(0).integers(len(each), size=(RESAMPLES, len(each)))]
  found = {}
  for name, statistic in (("mean", np.mean), ("median", np.median)):
    interval = np.quantile(statistic(draws, axis=1), (0.025, 0.975))
    found[name] = [round(float(value), 2) for value in (statistic(each), *interval)]
  return found


def tabulate(rows: list[dict]) -> list[list[str]]:
  """Returns the table's cells, in the order of HEADINGS."""
  return [
    [
      KINDS[row["kind"]],
      row["codec"],
      str(row.get("levels", "")),
      _name_rate(row),
      *([row["note"], ""] if "note" in row else _distances(row)),
      f"{row['perplexity']:.0f}" if "perplexity" in row else "",
      f"{row['used_share']:.0%}" if "used_share" in row else "",
    ]
    for row in rows
  ]


def _distances(row: dict) -> tuple[str, str]:
  form = "{:.2f} ({:.2f} to {:.2f})".format
  si_sdr_db = row["si_sdr_db"]["median"]  # which has far outliers
  return form(*row["mel_distance_db"]["mean"]), form(*si_sdr_db)


def _name_rate(row: dict) -> str:
  nominal = row["nominal_bits_per_s"] / 1000
  real = row.get("bits_per_s", row["nominal_bits_per_s"]) / 1000
  return f"{real:.2f}" if abs(real - nominal) < 0.005 else f"{real:.2f} (nominal {nominal:g})"


def explain(rows: list[dict], seconds: float, split: str, seed: int) -> list[str]:
  """Returns what a reader of the table must know, one sentence group an item."""
  counts = {KINDS[row["kind"]]: row for row in rows}
  material = ", ".join(f"{r['clips']} of {name} ({r['songs']} songs)" for name, r in counts.items())
  notes = [
    f"Clips of {seconds:g} s from the {split} split: {material}, chosen by seed {seed}; mean mel"
    f" distance and median SI-SDR over songs (95 % bootstrap intervals), in mono at"
    f" {rows[0]['rate_hz']} Hz. Smaller distance and larger SI-SDR are better.",
    "Mel distance: mean difference in dB over windows of 128 to 2048 samples. Perplexity and used"
    " share are of the row's last level, over the clips of the row.",
    "Codec kbit/s: the codes as made, uncompressed. Opus kbit/s: the packets alone, in variable"
    " bit rate, from audio at the rate of the comparison. At 6 kbit/s Opus keeps little above"
    " 4 kHz, which counts against it wherever the comparison reaches higher.",
  ]
  shifts = sorted({row["shift_samples"] for row in rows if "shift_samples" in row})
  if shifts:
    encoder = next(row["encoder"] for row in rows if "encoder" in row)
    notes.append(
      f"Opus by {encoder}, aligned by cross-correlation: shifts of {', '.join(map(str, shifts))}"
      " samples were found and corrected."
    )
  notes += tell_fad(rows, KINDS)
  for name in dict.fromkeys(row["codec"] for row in rows if "fingerprint" in row):
    row = next(row for row in rows if row["codec"] == name)
    notes.append(
      f"{name}: {row['codec_rate_hz']} Hz, licence {row['licence']}, fingerprint"
      f" {row['fingerprint'][:16]}."
    )
  return notes


def play_pair(
  clip: Clip, codecs: Mapping[str, TorchCodec], rate_hz: int, seconds: float
) -> Iterator[tuple[str, Samples, int]]:
  """Yields (name, samples, rate) of the original, of each codec with all levels, and of Opus."""
  original = clip.convert(rate_hz, 1, seconds)
  yield "original", original, rate_hz
  for name, codec in codecs.items():
    audio = clip.convert(codec.spec.sample_rate, codec.spec.channels, seconds)[None]
    made = codec.decode(codec.encode(audio), codec.scales(audio))
    yield name, made[0, :, : round(seconds * codec.decoded_rate_hz)], codec.decoded_rate_hz
  if encoder := opus.find_encoder():
    made = opus.run_opus(original, rate_hz, OPUS_KBPS[0], encoder)
    yield f"opus_{OPUS_KBPS[0]}k", made.audio, rate_hz


def write_results(
  out: Path, rows: list[dict], notes: list[str], pairs: list[tuple[Clip, list]]
) -> None:
  """Writes codec.json, codec.md, codec.html and pairs/*.wav; `pairs` holds `play_pair`'s yield."""
  write_text(out / "codec.json", json.dumps(rows, indent=1) + "\n")
  lines = [HEADINGS, ["---"] * len(HEADINGS), *tabulate(rows)]
  table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
  write_text(out / "codec.md", table + "\n" + "".join(f"{note}\n" for note in notes))
  groups = []
  (out / "pairs").mkdir(exist_ok=True)
  for i, (clip, versions) in enumerate(pairs, start=1):
    tracks, what = [], clip.instrument or clip.kind
    for name, samples, rate_hz in versions:
      file = f"{i}_{what}_{clip.song.replace('/', '-')}_{clip.file}_{name}.wav"
      write_audio(out / "pairs" / file, samples, rate_hz)
      tracks.append(describe_track(name, f"{rate_hz} Hz", samples, rate_hz, NARROW))
    heading = f"{clip.song}, {clip.file}, from {clip.start_s:.1f} s"
    groups.append({"heading": heading, "text": PIECES.get(what, what), "tracks": tracks})
  page = render("codec.html", headings=HEADINGS, table=tabulate(rows), notes=notes, groups=groups)
  write_text(out / "codec.html", page)


def load_codecs(bundles: list[Path]) -> dict[str, TorchCodec]:
  """Returns codecs by short names: the bundle's folder, or its parent's if that says "bundle"."""
  short = [b.resolve().parent.name if b.name == "bundle" else b.resolve().name for b in bundles]
  names = short if len(set(short)) == len(short) else [f"{i}_{n}" for i, n in enumerate(short, 1)]
  return {name: TorchCodec(bundle) for name, bundle in zip(names, bundles, strict=True)}


def _check(arguments) -> None:
  rules = [
    (1 <= arguments.seconds <= 600, "--seconds must be 1 to 600", arguments.seconds),
    (arguments.clips > 0, "--clips must be 1 or more", arguments.clips),
    (arguments.songs >= 0, "--songs must be 0 (all) or more", arguments.songs),
    (8000 <= arguments.rate <= 48_000, "--rate must be 8000 to 48000 Hz", arguments.rate),
    (arguments.seed >= 0, "--seed must be 0 or more", arguments.seed),
  ]
  if broken := find_broken(rules):
    raise UserError(". ".join(broken) + ". Choose another.")


def main(argv: list[str] | None = None) -> int:
  """Measures the codecs, and prints the table and its notes; returns 3 if files were left out."""
  parser = build_parser(__doc__)
  parser.add_argument("--codec", required=True, nargs="+", help="bundles, or OWNER/NAME")
  parser.add_argument("--roots", required=True, nargs="+", help="folders of songs, Slakh's layout")
  parser.add_argument("--split", default="test")
  parser.add_argument("--out", required=True, type=Path)
  parser.add_argument("--seconds", type=float, default=10.0, help="length of a clip")
  parser.add_argument("--clips", type=int, default=2, help="of each song's mix, and of its stems")
  parser.add_argument("--songs", type=int, default=0, help="most songs of a root; 0 for all")
  parser.add_argument("--rate", type=int, default=16_000, help="of the comparison, in Hz, at most")
  parser.add_argument("--seed", type=int, default=0, help="of the choice of clips")
  parser.add_argument("--embedding", action="append", default=[], help="of FAD, as musicnn")
  arguments = parser.parse_args(argv)
  _check(arguments)
  embeddings = load_embeddings(arguments.embedding)
  codecs = load_codecs([Path(find_codec(codec)) for codec in arguments.codec])
  rate_hz = min(arguments.rate, *(codec.decoded_rate_hz for codec in codecs.values()))
  seconds = arguments.seconds
  choice = (arguments.clips, arguments.songs, arguments.seed)
  clips = draw_clips(arguments.roots, arguments.split, seconds, *choice, left_out := {})
  for why in left_out.values():
    print(f"left out: {why}", file=sys.stderr)
  if not clips:
    found = f"{len(left_out)} files that cannot be read" if left_out else "silence only"
    raise UserError(f"songs must sound somewhere; got {found}. Check the files under --roots.")
  make_folder(arguments.out, "--out")
  rows = measure(codecs, clips, rate_hz, seconds)
  if embeddings:
    add_fad(rows, codecs, clips, seconds, embeddings)
  pairs = [(c, list(play_pair(c, codecs, rate_hz, seconds))) for c in choose_pairs(clips)]
  notes = explain(rows, seconds, arguments.split, arguments.seed)
  write_results(arguments.out, rows, notes, pairs)
  _print(rows, notes)
  return 3 if left_out else 0


def _print(rows: list[dict], notes: list[str]) -> None:
  console = make_console()
  if not console.is_terminal:
    console.width = 140
  table = Table(*HEADINGS)
  for line in tabulate(rows):
    table.add_row(*line)
  console.print(table)
  for note in notes:
    say(console, note)


if __name__ == "__main__":
  sys.exit(run_cli(main))
