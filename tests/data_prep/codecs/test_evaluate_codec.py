# SPDX-License-Identifier: Apache-2.0
"""Figures of a codec on held-out songs, and Opus beside them."""

import json
import shutil

import numpy as np
import pytest
import soundfile
import torch
import yaml

from data_prep import evaluate_codec
from data_prep.codec_training import fad
from data_prep.codec_training import losses as codec_losses
from data_prep.codec_training.clips import MIX, STEM, choose_pairs, draw_clips
from data_prep.codecs import opus
from data_prep.evaluate_codec import summarise, tabulate
from stemgen_jax.codec import DEMO_BUNDLE, CodecSpec, fidelity
from stemgen_jax.errors import UserError, run_cli
from stemgen_jax.evaluate.metrics.embeddings import Embedding

pytestmark = pytest.mark.torch
RATE = 16_000
needs_opus = pytest.mark.skipif(opus.find_encoder() is None, reason=opus.MISSING)


def make_music(seconds, seed, rate=RATE):
  """Returns notes of a decaying sawtooth, one each half second."""
  rng = np.random.default_rng(seed)
  time_s = np.arange(round(seconds * rate)) / rate
  pitch = 110 * 2 ** (rng.integers(0, 24, len(time_s) * 2 // rate + 1) / 12)
  phase = np.cumsum(pitch[(time_s * 2).astype(int)]) / rate
  return (0.3 * (2 * (phase % 1) - 1) * np.exp(-4 * (time_s % 0.5))).astype(np.float32)


@pytest.fixture
def root(tmp_path):
  """Two songs of a mix and two stems, of which one is silent, at 22.05 kHz."""
  for i in range(2):
    folder = tmp_path / "music/test" / f"Track{i:05d}"
    (folder / "stems").mkdir(parents=True)
    stem = make_music(5, i, 22_050)
    for name, samples in (("mix", stem), ("stems/S00", stem), ("stems/S01", 0 * stem)):
      soundfile.write(folder / f"{name}.flac", samples, 22_050)
  return tmp_path / "music"


class RoundingCodec:
  """One frame a sample; level q holds the digit of weight 4^-q in base 4, so errors are known."""

  spec = CodecSpec(sample_rate=RATE, ratios=(1,), n_levels=3, n_codes=4, licence="none", source="x")
  decoded_rate_hz = RATE

  def encode(self, audio):
    whole = ((audio[:, 0] + 1) / 2 * 64).astype(int).clip(0, 63)
    return np.stack([whole // 16, whole // 4 % 4, whole % 4], axis=-1)

  def scales(self, audio):
    return None

  def decode(self, codes, scales):
    weights = 4.0 ** -np.arange(1, codes.shape[2] + 1)
    middle = weights[-1] / 2
    return np.float32(2 * ((codes * weights).sum(-1) + middle) - 1)[:, None]


def test_mel_distance_is_the_training_loss_in_decibels():
  clip, made = make_music(2, 0), make_music(2, 0) + 0.01 * make_music(2, 1)
  tensors = [torch.from_numpy(x)[None] for x in (made, clip)]
  assert fidelity.mel_distance_db(made, clip, RATE) == pytest.approx(
    float(codec_losses.mel_loss(*tensors, RATE)) * 20 / np.log(10), rel=1e-3
  )


def test_si_sdr_hears_neither_gain_nor_offset_and_is_always_finite():
  rng = np.random.default_rng(0)
  clip, noise = rng.normal(size=(2, 4000)).astype(np.float32)
  noise -= clip * (noise @ clip) / (clip @ clip)
  made = clip + noise * (0.1 * np.linalg.norm(clip) / np.linalg.norm(noise))
  assert fidelity.si_sdr_db(made, clip) == pytest.approx(20, abs=0.05)
  assert fidelity.si_sdr_db(3 * made + 0.5, clip) == pytest.approx(20, abs=0.05)
  assert fidelity.si_sdr_db(clip, clip) > 60
  for nothing in (0 * clip, 0 * clip + 0.1):
    assert np.isfinite(fidelity.si_sdr_db(nothing, clip))
    assert np.isfinite(fidelity.si_sdr_db(clip, nothing))


def test_each_level_helps_and_codes_and_bits_are_counted():
  clips = np.stack([make_music(1, seed) for seed in range(3)])[:, None]
  found = fidelity.evaluate(RoundingCodec(), clips)
  assert found.mel_distance_db.shape == found.si_sdr_db.shape == (3, 3)
  assert (np.diff(found.si_sdr_db, axis=0) > 3).all()
  assert (np.diff(found.mel_distance_db, axis=0) < 0).all()
  np.testing.assert_allclose(found.bits_per_s, [2 * RATE, 4 * RATE, 6 * RATE])
  # |samples| <= 0.3, so of the first digit only the middle two of four are seen
  assert found.used_share[0] == 0.5
  assert 1 < found.perplexity[0] <= 2


def test_perplexity_of_equally_common_codes_is_their_number():
  clip = np.tile((np.arange(64) + 0.5) / 32 - 1, 250).astype(np.float32)
  found = fidelity.evaluate(RoundingCodec(), clip[None, None])
  np.testing.assert_allclose(found.perplexity, 4, rtol=1e-6)
  assert fidelity.mel_distance_db(clip, clip, RATE) == 0


def test_a_reference_at_another_rate_is_what_counts():
  clip = make_music(1, 0)
  twice = np.repeat(clip, 2)[None]
  found = fidelity.evaluate(RoundingCodec(), clip[None, None], twice[:, :31_999], 2 * RATE)
  own = fidelity.evaluate(RoundingCodec(), clip[None, None])
  assert found.si_sdr_db[2, 0] > 5
  assert found.mel_distance_db[2, 0] > own.mel_distance_db[2, 0]  # the images above 8 kHz


def test_clips_are_drawn_alike_where_they_sound(root):
  clips = draw_clips([str(root)], "test", 2.0, 2, 0, 7)
  again = draw_clips([str(root)], "test", 2.0, 2, 0, 7)
  other = draw_clips([str(root)], "test", 2.0, 2, 0, 8)
  starts, same, others = ([clip.start_s for clip in found] for found in (clips, again, other))
  assert starts == same
  assert starts != others
  assert [(c.kind, c.song, c.file) for c in clips] == [
    (kind, f"music/Track{i:05d}", file)
    for i in range(2)
    for kind, file in ((MIX, "mix"), (MIX, "mix"), (STEM, "S00"))
  ]
  one = draw_clips([str(root)], "test", 2.0, 2, 1, 7)
  assert [clip.start_s for clip in one] == starts[:3]
  assert clips[0].samples.shape == (1, 44_100)
  assert clips[0].convert(RATE, 2, 3.0).shape == (2, 48_000)


def test_an_interval_is_over_songs():
  found = summarise([1, 3, 5, 5, 5, 5], ["a", "a", "b", "b", "b", "b"])
  assert found["mean"] == [3.5, 2.0, 5.0]
  assert summarise([2.0, 2.0], ["a", "b"])["median"] == [2, 2, 2]
  many = summarise(np.random.default_rng(0).normal(size=400), [str(i) for i in range(400)])["mean"]
  assert many[2] - many[1] == pytest.approx(2 * 1.96 / 20, rel=0.1)


def test_a_shift_is_found_and_undone():
  clips = np.stack([make_music(1, seed) for seed in range(2)])
  for shift in (-37, 0, 120):
    moved = opus.move(clips, shift)
    assert opus.find_shift(moved + 0.01, clips, 480) == shift
    np.testing.assert_array_equal(opus.move(moved, -shift)[:, 150:-150], clips[:, 150:-150])


@needs_opus
@pytest.mark.parametrize("encoder", ["opusenc", "ffmpeg"])
def test_opus_is_aligned_and_its_bits_are_those_of_the_packets(encoder, tmp_path):
  if not shutil.which(encoder):
    pytest.skip(f"no {encoder}")
  clips = np.stack([make_music(3, seed) for seed in range(2)])
  low, high = (opus.run_opus(clips, RATE, kbps, encoder) for kbps in (6, 48))
  assert abs(high.shift_samples) <= 1
  assert 3000 < low.bits_per_s < 9000
  assert 30_000 < high.bits_per_s < 120_000  # far above nominal: variable, and tones are hard
  for clip, made in zip(clips, high.audio, strict=True):
    assert fidelity.si_sdr_db(made, clip) > 10


def make_page(payload, granule):
  """Returns an Ogg page of one packet."""
  lacing = bytes([255] * (len(payload) // 255) + [len(payload) % 255])
  head = b"OggS\0\0" + granule.to_bytes(8, "little") + bytes(12) + bytes([len(lacing)])
  return head + lacing + payload


def test_bits_are_counted_without_headers_and_pre_skip():
  head = b"OpusHead\x01\x01" + (312).to_bytes(2, "little") + bytes(7)
  pages = [make_page(head, 0), make_page(b"OpusTags" + bytes(500), 0)]
  pages += [make_page(bytes(100), 24_000), make_page(bytes(300), 48_000 + 312)]
  assert opus.count_bits(b"".join(pages)) == (3200, 1.0)


@needs_opus
def test_the_command_leaves_its_files(root, tmp_path, capsys):
  words = ["--codec", DEMO_BUNDLE, "--roots", root, "--out", tmp_path / "out", "--seconds", 2]
  evaluate_codec.main([*map(str, words), "--clips", "1"])
  rows = json.loads((tmp_path / "out/codec.json").read_text())
  assert [(row["kind"], row["codec"], row.get("levels")) for row in rows] == [
    (kind, codec, levels)
    for kind in (MIX, STEM)
    for codec, levels in (
      *(("demo_bundle", i) for i in (1, 2, 3, 4)),
      ("Opus 6", None),
      ("Opus 12", None),
    )
  ]
  assert [row["bits_per_s"] for row in rows[:4]] == [500, 1000, 1500, 2000]
  assert rows[0]["songs"] == rows[0]["clips"] == 2
  assert 0 < rows[0]["used_share"] < 1
  made = sorted(path.name for path in (tmp_path / "out/pairs").iterdir())
  assert len(made) == 9
  assert made[0] == "1_mix_music-Track00000_mix_demo_bundle.wav"
  assert {round(soundfile.info(tmp_path / "out/pairs" / n).duration, 3) for n in made} == {2.0}
  page = (tmp_path / "out/codec.html").read_text()
  assert page.count("<audio") == page.count("data:audio/flac") == 9
  assert "http" not in page
  assert (tmp_path / "out/codec.md").read_text().count("| demo_bundle |") == 8
  assert "SI-SDR" in capsys.readouterr().out


def test_without_an_opus_encoder_the_rows_say_so(root, tmp_path, monkeypatch):
  monkeypatch.setenv("PATH", str(tmp_path))
  assert opus.find_encoder() is None
  words = ["--codec", DEMO_BUNDLE, "--roots", root, "--out", tmp_path / "out", "--seconds", 2]
  evaluate_codec.main([*map(str, words), "--songs", "1", "--clips", "1"])
  rows = json.loads((tmp_path / "out/codec.json").read_text())
  notes = [row["note"] for row in rows if row["codec"].startswith("Opus")]
  assert notes == ["not measured: no opusenc or ffmpeg"] * 4
  assert opus.MISSING in tabulate(rows)[-1]
  assert len(list((tmp_path / "out/pairs").iterdir())) == 4


@pytest.mark.parametrize(
  ("words", "complaint"),
  [
    (["--roots", "nowhere"], "must hold songs"),
    (["--codec", "nowhere"], "nowhere"),
    (["--split", "other"], "split=other"),
    (["--seconds", "0"], "--seconds must be 1 to 600"),
    (["--clips", "0"], "--clips must be 1 or more"),
    (["--songs", "-1"], "--songs must be 0 (all) or more"),
    (["--rate", "100"], "--rate must be 8000 to 48000 Hz"),
    (["--seed", "-1"], "--seed must be 0 or more"),
  ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(root, tmp_path, capsys, words, complaint):
  right = ["--codec", str(DEMO_BUNDLE), "--roots", str(root), "--out", str(tmp_path / "out")]
  assert run_cli(lambda: evaluate_codec.main([*right, *words])) == 2
  assert complaint in capsys.readouterr().err
  assert not (tmp_path / "out").exists()


def test_silent_songs_are_refused(root, tmp_path, capsys):
  for path in root.rglob("*.flac"):
    soundfile.write(path, np.zeros(44_100), 22_050)
  words = ["--codec", str(DEMO_BUNDLE), "--roots", str(root), "--out", str(tmp_path / "out")]
  assert run_cli(lambda: evaluate_codec.main(words)) == 2
  assert "silence only" in capsys.readouterr().err


def test_files_that_cannot_be_read_are_named_and_left_out(root, tmp_path, capsys):
  mix, stem = root / "test/Track00000/mix.flac", root / "test/Track00001/stems/S00.flac"
  mix.write_bytes(b"no sound")
  stem.write_bytes(stem.read_bytes()[:2000])
  words = ["--codec", DEMO_BUNDLE, "--roots", root, "--out", tmp_path / "out", "--seconds", 2]
  words = [*map(str, words), "--clips", "1"]
  assert run_cli(lambda: evaluate_codec.main(words)) == 3
  said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("left out: ")]
  assert len(said) == 2
  assert str(mix) in said[0]
  assert str(stem) in said[1]
  rows = json.loads((tmp_path / "out/codec.json").read_text())
  assert {(row["kind"], row["songs"]) for row in rows} == {(MIX, 1), (STEM, 1)}
  for path in root.rglob("*.flac"):
    path.write_bytes(b"no sound")
  assert run_cli(lambda: evaluate_codec.main(words)) == 2
  assert "got 6 files that cannot be read" in capsys.readouterr().err


def test_a_song_without_a_mix_gets_the_sum_of_its_stems(root):
  (root / "test/Track00000/mix.flac").unlink()
  whole = make_music(5, 0, 22_050)
  soundfile.write(root / "test/Track00000/stems/S01.flac", whole[:33_000] / 2, 22_050)
  clip = draw_clips([str(root)], "test", 5.0, 1, 1, 0)[0]
  assert (clip.kind, clip.file) == (MIX, "mix")
  whole[:33_000] *= 1.5
  np.testing.assert_allclose(clip.samples[0], whole, atol=1e-3)


def test_a_pair_is_of_a_bass_or_lead_and_one_of_drums_where_they_are_known(root):
  entries = {"S00": {"inst_class": "Piano", "program_num": 0}, "S01": {"is_drum": True}}
  (root / "test/Track00000/metadata.yaml").write_text(yaml.safe_dump({"stems": entries}))
  entries = {"S00": {"inst_class": "Bass", "program_num": 33}}
  (root / "test/Track00001/metadata.yaml").write_text(yaml.safe_dump({"stems": entries}))
  soundfile.write(root / "test/Track00000/stems/S01.flac", make_music(5, 9, 22_050), 22_050)
  pairs = choose_pairs(draw_clips([str(root)], "test", 2.0, 2, 0, 0))
  assert [(clip.instrument, clip.song[-1], clip.file) for clip in pairs] == [
    (None, "0", "mix"),
    ("bass", "1", "S00"),
    ("drums", "0", "S01"),
  ]


def test_a_codec_of_a_lower_rate_decides_the_comparison(root, tmp_path):
  own = shutil.ignore_patterns("decoder.*")
  shutil.copytree(DEMO_BUNDLE, tmp_path / "low", ignore=own)
  spec = json.loads((DEMO_BUNDLE / "codec.json").read_text())
  (tmp_path / "low/codec.json").write_text(json.dumps(spec | {"sample_rate": 8000}))
  words = ["--codec", tmp_path / "low", "--roots", root, "--out", tmp_path / "out", "--seconds", 2]
  evaluate_codec.main([*map(str, words), "--songs", "1", "--clips", "1"])
  rows = json.loads((tmp_path / "out/codec.json").read_text())
  assert {row["rate_hz"] for row in rows} == {8000}


class WholeCodec(RoundingCodec):
  """Changes nothing."""

  def encode(self, audio):
    return np.moveaxis(audio, 1, 2)

  def decode(self, codes, scales):
    return np.moveaxis(codes, 2, 1)


def weigh_bands(samples):
  """Returns the level of two bands in each half second."""
  spectrum = np.abs(np.fft.rfft(samples[: len(samples) // 8000 * 8000].reshape(-1, 8000)))
  return np.log10(1e-3 + np.stack([spectrum[:, :400].mean(1), spectrum[:, 400:].mean(1)], 1))


def test_fad_is_nothing_where_a_codec_changes_nothing(root, monkeypatch):
  bands = Embedding("bands", RATE, 0.5, 8000, weigh_bands)
  monkeypatch.setattr(fad, "load_embedding", lambda spec, codec: bands)
  clips = draw_clips([root], "test", 2.0, 2, 0, 0, {})
  codecs = {"whole": WholeCodec(), "rough": RoundingCodec()}
  rows = [{"codec": name, "levels": 3, "kind": STEM} for name in codecs]
  rows += [{"codec": "whole", "levels": 1, "kind": STEM}, {"codec": "Opus 6", "kind": STEM}]
  fad.add_fad(rows, codecs, clips, 2.0, fad.load_embeddings(["bands"]))
  whole, rough, *others = (row.get("fad") for row in rows)
  assert whole["bands"]["n"] == 4 * len([clip for clip in clips if clip.kind == STEM])
  assert whole["bands"]["distance"] == 0
  assert rough["bands"]["distance"] > 0.001
  assert others == [None, None]
  assert len(fad.tell_fad(rows, {STEM: "single stems"})) == 2
  with pytest.raises(UserError, match="codec's own latents"):
    fad.load_embeddings(["encodec"])
