# SPDX-License-Identifier: Apache-2.0
"""`StemGen` with the demo codec, real music and an untrained model: what must hold of any model."""

import dataclasses
import json
import tracemalloc

import numpy as np
import pytest

from stemgen_jax.audio import alignment
from stemgen_jax.audio.alignment import compare_onsets, find_onsets, measure_seam
from stemgen_jax.audio.files import read_audio, write_audio, write_blocks
from stemgen_jax.audio.loudness import measure_lufs, measure_true_peak
from stemgen_jax.errors import UserError
from stemgen_jax.sampling import mixing, transcode
from stemgen_jax.sampling.job import draw_spans
from stemgen_jax.sampling.request import Request, resolve_settings
from stemgen_jax.sampling.request_files import build_request
from stemgen_jax.sampling.result import Result

RATE_HZ = 22_050


@pytest.fixture(scope="module")
def loop(music):
  """2.5 s of stereo at another rate than the codec's, a length that is no whole number of hops."""
  import soxr

  mono = soxr.resample(music[0], 16_000, RATE_HZ)[: int(2.503 * RATE_HZ)]
  return 0.5 * np.stack([mono, np.roll(mono, 7)]).astype(np.float32)


def test_takes_are_as_long_as_the_context_and_never_clip(stemgen, loop):
  say = {"sample_rate": RATE_HZ, "instrument": "bass", "takes": 2, "seed": 3}
  result = stemgen.generate(loop, **say, level=-6.0)
  own = stemgen.generate(loop, **say)  # as loud as the model meant it
  assert all(take["gain_db"] <= 0 for take in own.metadata["takes"])  # only peaks are held
  assert result.stems.shape == (2, 1, loop.shape[1])
  assert result.mixes.shape == (2, *loop.shape)
  assert (result.stems[0] != result.stems[1]).any()
  assert result.metadata["seed"] == 3
  for stem, mix, take in zip(result.stems, result.mixes, result.metadata["takes"], strict=True):
    wanted = measure_lufs(loop, RATE_HZ) - 6
    heard = np.repeat(stem, 2, axis=0)  # in both channels of the loop
    assert take["lufs"] == pytest.approx(measure_lufs(heard, RATE_HZ), abs=0.01)
    assert take["lufs"] <= wanted + 0.1
    if take["true_peak_dbtp"] < -1.05:  # not held back
      assert take["lufs"] == pytest.approx(wanted, abs=0.1)
    for audio in (stem, mix):
      assert measure_true_peak(audio, RATE_HZ) <= -0.99
    gain = 10 ** (take["mix_gain_db"] / 20)
    np.testing.assert_allclose(mix, gain * (loop + stem), atol=1e-5)
    assert np.isfinite(take["listening_score_nats"])


def test_the_same_seed_gives_the_same_stems_and_another_does_not(stemgen, loop):
  a, b, c = (
    stemgen.generate(loop, sample_rate=RATE_HZ, instrument="bass", seed=s) for s in (1, 1, 2)
  )
  np.testing.assert_array_equal(a.stems, b.stems)
  assert a.metadata == b.metadata
  assert (a.codes != c.codes).any()


def test_the_fast_preset_takes_a_quarter_of_the_steps(stemgen, loop):
  say = {"sample_rate": RATE_HZ, "instrument": "bass"}
  fast = stemgen.generate(loop, **say, preset="fast")
  assert fast.metadata["steps"] == (1, 1, 1, 1)
  again = stemgen.generate(loop, **say, steps=[1, 1, 1, 1])
  np.testing.assert_array_equal(fast.codes, again.codes)
  own = stemgen.generate(loop, **say, preset="fast", steps=(3, 2, 1, 1))
  assert own.metadata["steps"] == (3, 2, 1, 1)


def test_the_papers_presets_are_its_numbers(stemgen):
  found = resolve_settings({"preset": "paper"}, stemgen.config)
  assert found.steps == (128, 64, 32, 32)
  assert (found.w_c, found.w_s, found.w_r, found.temperature) == (0.1, 0.1, 1.0, 1.0)
  assert (found.guidance_mode, found.guidance) == (
    "independent",
    {"context": 3.0, "instrument": 3.0},
  )
  naive = resolve_settings({"preset": "naive"}, stemgen.config)
  assert (naive.guidance, naive.w_s, naive.steps) == ({}, 0.0, found.steps)


def test_a_loop_closes(stemgen, loop):
  result = stemgen.generate(loop, sample_rate=RATE_HZ, instrument="bass", loop=True, takes=3)
  assert result.stems.shape[2] == loop.shape[1]
  for stem, take in zip(result.stems, result.metadata["takes"], strict=True):
    assert take["seam"] == measure_seam(stem)
    # As the music goes on inside: the largest step there is far above the median too.
    inside = np.abs(np.diff(stem[0]))
    assert abs(stem[0, 0] - stem[0, -1]) <= np.quantile(inside[inside > 0], 0.999)


def test_the_seam_of_a_cut_sound_is_known_by_its_step():
  time_s = np.arange(16_000) / 16_000
  smooth = np.sin(2 * np.pi * 100 * time_s)[None].astype(np.float32)
  cut = smooth[:, :15_960]  # in the middle of a period
  assert measure_seam(smooth)["step"] < 2
  assert measure_seam(smooth)["slope"] < 2
  assert measure_seam(cut)["step"] > 5
  assert measure_seam(np.zeros((1, 100), np.float32)) == {"step": 0.0, "slope": 0.0}


def test_what_is_kept_is_kept_to_the_sample(stemgen, loop):
  stem = 0.4 * loop[:1, ::-1].copy()
  result = stemgen.generate(
    loop, sample_rate=RATE_HZ, instrument="bass", stem=stem, keep=[(0.0, 1.0), (2.0, 2.2)], takes=2
  )

  def at(seconds):
    return round(seconds * RATE_HZ)

  for new, take in zip(result.stems, result.metadata["takes"], strict=True):
    gain = 10 ** (take["gain_db"] / 20)
    for start, stop in ((0, at(1.0)), (at(2.0), at(2.2))):
      np.testing.assert_allclose(new[:, start:stop], gain * stem[:, start:stop], atol=1e-6)
    assert np.abs(new - gain * stem)[:, at(1.1) : at(1.9)].max() > 0.01
  first, second = result.codes
  np.testing.assert_array_equal(first[:50], second[:50])
  assert (first[50:100] != second[50:100]).any()


def test_old_and_new_fade_outside_of_what_is_kept():
  old, new = np.full((1, 500), 0.5, np.float32), np.zeros((2, 1000), np.float32)
  out = mixing.splice(new, old, [(0.2, 0.3), (0.4, 9.0)], 1000)  # a fade of 10 samples
  assert (out[:, 200:300] == 0.5).all()
  assert (out[:, 400:500] == 0.5).all()
  for start, stop in ((0, 190), (310, 390), (510, 1000)):
    assert not out[:, start:stop].any()
  assert (np.diff(out[:, 189:201]) > 0).all()
  assert (np.diff(out[:, 499:511]) < 0).all()  # its last sample, held


def test_a_variation_keeps_the_share_that_it_does_not_write_anew(stemgen, loop):
  stem = 0.4 * loop[:1, ::-1].copy()
  say = {"sample_rate": RATE_HZ, "instrument": "bass", "stem": stem}
  whole = stemgen.generate(loop, **say, keep=[(0.0, 9.0)]).codes[0]
  for share in (0.2, 0.7):
    for codes in stemgen.generate(loop, **say, vary=share, takes=2).codes:
      changed = (codes != whole).any(axis=1).mean()
      assert 0.5 * share < changed <= share + 0.01
  everything = stemgen.generate(loop, **say, vary=1.0).codes[0]
  np.testing.assert_array_equal(
    everything, stemgen.generate(loop, sample_rate=RATE_HZ, instrument="bass").codes[0]
  )


def test_a_variation_is_written_beat_by_beat():
  free = np.concatenate([np.arange(40), np.arange(100, 260)])
  for seed in range(20):
    chosen = np.sort(draw_spans(np.random.default_rng(seed), free, 60, 20))
    assert len(set(chosen)) == 60
    assert set(chosen) <= set(free)
    runs = np.split(chosen, np.flatnonzero(np.diff(chosen) > 1) + 1)
    assert 2 <= len(runs) <= 7  # not sixty lone frames
  spans = {tuple(draw_spans(np.random.default_rng(seed), free, 60, 20)) for seed in range(9)}
  assert len(spans) == 9


@pytest.mark.parametrize("gain_db", [12.0, -18.0])
def test_a_context_of_any_loudness_is_heard_as_the_corpus_was(stemgen, loop, gain_db):
  say = {"sample_rate": RATE_HZ, "instrument": "bass"}
  usual = stemgen.generate(loop, **say)
  other = stemgen.generate(loop * 10 ** (gain_db / 20), **say)
  np.testing.assert_array_equal(other.codes, usual.codes)
  before, after = (r.metadata["takes"][0] for r in (usual, other))
  assert before["context_gain_db"] - after["context_gain_db"] == pytest.approx(gain_db, abs=1e-3)
  gain = after["gain_db"] - before["gain_db"] + gain_db  # true peaks are held in either case
  np.testing.assert_allclose(other.stems, usual.stems * 10 ** (gain / 20), atol=1e-4)


def test_a_context_is_brought_to_the_loudness_of_training(stemgen):
  rng, codec = np.random.default_rng(0), stemgen.codec
  music = rng.normal(0, 0.05, (2, 32_000)).astype(np.float32)
  lufs = measure_lufs(music.mean(axis=0, keepdims=True), 16_000)
  assert transcode.normal_gain(codec, music, 16_000, -20.0) == pytest.approx(-20.0 - lufs, abs=0.01)
  assert transcode.normal_gain(codec, music, 16_000, None) == 0.0
  assert transcode.normal_gain(codec, 0 * music, 16_000, -20.0) == 0.0
  assert transcode.normal_gain(codec, 0.016 * music, 16_000, -20.0) == transcode.MOST_GAIN_DB


@pytest.mark.slow
def test_several_requests_share_batches_and_come_back_in_order(stemgen, loop):
  asked = [
    Request(context=loop, rate_hz=RATE_HZ, conditions={"instrument": name}, seed=seed, takes=takes)
    for seed, (name, takes) in enumerate([("bass", 2), ("drums", 1), ("piano", 3), ("guitar", 9)])
  ]
  other_rate = dataclasses.replace(asked[1], context=loop[:, ::2].copy(), rate_hz=RATE_HZ // 2)
  asked.insert(2, dataclasses.replace(other_rate, takes=1))
  asked.insert(2, dataclasses.replace(asked[0], context=loop[:, : loop.shape[1] // 2]))
  said = []
  jobs = [stemgen.plan(request) for request in asked]
  together = list(stemgen.run(jobs, most_rows=4, advance=said.append))
  assert sum("encoding" in words for words in said) == 5
  for request, job, result in zip(asked, jobs, together, strict=True):
    alone = next(stemgen.run([job]))
    assert len(result.stems) == request.takes
    assert result.stems.shape[2] == request.context.shape[1]
    assert result.metadata["conditions"] == alone.metadata["conditions"]
    assert (result.codes == alone.codes).mean() > 0.99  # rounding may differ with the batch


@pytest.mark.parametrize("devices", [2, 4])
def test_takes_over_devices_are_those_of_one(make_stemgen, stemgen, loop, devices):
  say = {"sample_rate": RATE_HZ, "instrument": "bass", "takes": 3}
  spread = make_stemgen(devices).generate(loop, **say)
  alone = stemgen.generate(loop, **say)
  np.testing.assert_array_equal(spread.codes, alone.codes)
  for one, two in zip(spread.metadata["takes"], alone.metadata["takes"], strict=True):
    assert one["listening_score_nats"] == pytest.approx(two["listening_score_nats"], abs=1e-4)


@pytest.mark.parametrize(
  ("context", "rate_hz"),
  [
    (np.zeros((1, 4000)), 16_000),  # digital silence
    (np.ones((2, 8000)), 48_000),  # clipped throughout
    (np.random.default_rng(0).normal(0, 4, (6, 30_000)), 44_100),  # far above full scale, 5.1
    (np.random.default_rng(0).normal(0, 0.1, 3000), 8000),  # below the codec's rate, one axis
    (np.full((1, 1), 0.5), 16_000),  # one sample: one frame
  ],
)
@pytest.mark.parametrize("round_about", [False, True])
def test_odd_contexts(stemgen, context, rate_hz, round_about):
  context = context.astype(np.float32)
  result = stemgen.generate(
    context, sample_rate=rate_hz, instrument="drums", loop=round_about, takes=2
  )
  channels, samples = np.atleast_2d(context).shape
  assert result.stems.shape == (2, 1, samples)
  assert result.mixes.shape == (2, channels, samples)
  json.dumps(result.metadata, allow_nan=False)
  for audio in (*result.stems, *result.mixes):
    assert np.isfinite(audio).all()
    assert measure_true_peak(audio, rate_hz) <= -0.99


@pytest.mark.parametrize(
  ("changes", "complaint"),
  [
    ({"takes": 0}, "takes must be at least 1; got 0"),
    ({"takes": True}, "takes must be a whole number; got True"),
    ({"seed": False}, "seed must be a whole number; got False"),
    ({"temperature": True}, "True is no number"),
    ({"steps": (2.5, 1, 1, 1)}, "2.5 is no whole number"),
    ({"steps": (99_999, 1, 1, 1)}, "steps must be at most 10000 a level"),
    ({"takes": 100_000_000}, "takes must be at most 64 .* another seed.; got 100000000"),
    ({"seed": 2**32}, "seed must lie in"),
    ({"vary": 0.5}, "must be given with an existing stem"),
    ({"keep": [(0.0, 1.0)]}, "must be given with an existing stem"),
    ({"stem": np.zeros(10, np.float32)}, "stem must be given with what becomes of it"),
    ({"stem": np.zeros(0, np.float32), "vary": 0.5}, "stem must hold at least one sample"),
    ({"stem": np.zeros(10, np.float32), "keep": [(2.0, 1.0)]}, "earlier to a later.*2 s to 1 s"),
    ({"stem": np.zeros(10, np.float32), "keep": [(99.0, 100.0)]}, r"inside the context's 2.50 s"),
    ({"stem": np.zeros(10, np.float32), "vary": 1.5}, "vary must lie in"),
    ({"level": float("nan")}, r"level must lie in \[-40, 20\] LU, or be none; got nan"),
    ({"level": 1e9}, r"level must lie in \[-40, 20\] LU, or be none; got 1000000000.0"),
    ({"context": np.zeros((1, 0), np.float32)}, "context must hold at least one sample"),
    ({"context": np.zeros((1, 9), np.int16)}, "must be floats"),
    ({"context": np.full(9, np.nan, np.float32)}, "must be finite"),
    ({"sample_rate": 0}, "sample_rate must be positive"),
    ({"instrument": "kazoo"}, "instrument must be one of"),
    ({"conditions": {"genre": "jazz"}}, "conditions must name sources"),
    ({"temperatur": 1.0}, "settings must be among"),
    ({"steps": (1, 2)}, "4 positive numbers"),
    ({"temperature": "hot"}, "settings must be of the kinds.*'hot'"),
    ({"guidance": {"genre": 1.0}}, r"guidance must name sources.*got \['genre'\]"),
    ({"guidance": {"context": float("inf")}}, "must be finite"),
    ({"guided_levels": -1}, "must not be negative"),
    ({"preset": "slow"}, "preset must be one of"),
  ],
)
def test_a_mistake_is_one_clear_line(stemgen, loop, changes, complaint):
  asked = {"context": loop, "sample_rate": RATE_HZ, "instrument": "bass"} | changes
  with pytest.raises(UserError, match=complaint):
    stemgen.generate(asked.pop("context"), **asked)


def test_onsets_of_a_late_copy_are_late_by_as_much(music):
  late = np.pad(music, ((0, 0), (480, 0)))  # 30 ms
  onsets = find_onsets(music, 16_000)
  assert len(onsets) >= 6
  found = compare_onsets(find_onsets(late, 16_000), onsets)
  assert found.offset_ms == pytest.approx(30, abs=6)
  assert found.matched >= 0.8 * found.stem
  assert compare_onsets(np.zeros(0), onsets).offset_ms is None
  assert find_onsets(np.zeros((1, 100), np.float32), 16_000).size == 0


def test_onsets_are_found_alike_in_blocks_and_at_once(music, monkeypatch):
  song = np.tile(music, 3)
  whole = find_onsets(song, 16_000)
  monkeypatch.setattr(alignment, "BLOCK_HOPS", 200)
  found = compare_onsets(find_onsets(song, 16_000), whole)
  assert len(whole) > 20
  assert found.matched >= 0.95 * max(found.stem, found.context)
  assert found.offset_ms == pytest.approx(0, abs=0.1)


def test_long_music_is_never_copied_whole(tmp_path, monkeypatch):
  """What is held beside the music is a few blocks of it, whatever its length."""
  monkeypatch.setattr(alignment, "BLOCK_HOPS", 200)
  rng = np.random.default_rng(0)
  context = rng.uniform(-0.5, 0.5, (2, 300 * RATE_HZ)).astype(np.float32)
  stem = context[:1].copy()
  heard = mixing.Context(context, RATE_HZ, -20.0)
  takes = [mixing.mix_stem(stem, heard)]
  made = Result(stem[None], context, np.zeros((1, 1, 1), int), RATE_HZ, {}, takes, list)
  write_audio(tmp_path / "a.wav", context[:, :100], RATE_HZ)
  find_onsets(context[:, :RATE_HZ], RATE_HZ)  # imports and compiles
  for work in (
    lambda: find_onsets(context, RATE_HZ),
    lambda: mixing.place_stem(stem, heard, -6.0),
    lambda: mixing.mix_stem(stem, heard),
    lambda: write_audio(tmp_path / "a.wav", context, RATE_HZ),
    lambda: write_blocks(tmp_path / "b.wav", made.mix_blocks(0), RATE_HZ, 2),
  ):
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < context.nbytes / 2
  np.testing.assert_allclose(read_audio(tmp_path / "b.wav")[0], made.mixes[0], atol=1e-4)


def test_what_the_codec_gives_back_lies_where_it_was(stemgen, music):
  """There is no delay between a context's samples and a stem's."""
  heard = transcode.encode(stemgen.codec, music, 16_000)
  back = transcode.decode(stemgen.codec, heard.codes, heard)[0]
  lags = range(-40, 41)
  likeness = [np.dot(music[0, 1000:-1000], np.roll(back, lag)[1000:-1000]) for lag in lags]
  assert abs(lags[int(np.argmax(likeness))]) <= 1


@pytest.mark.parametrize("value", [[], 3, None, {"a": 1}])
def test_a_condition_is_a_word(stemgen, value):
  with pytest.raises(UserError, match=r"conditions must be words; got 'instrument'="):
    build_request({"silence_s": 0.1, "instrument": value})
  with pytest.raises(UserError, match="preset must be one of"):
    resolve_settings({"preset": []}, stemgen.config)
