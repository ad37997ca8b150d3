# SPDX-License-Identifier: Apache-2.0
"""A recording through the codec from file to file, block by block, and back at its loudness."""

import numpy as np
import pytest
import soundfile
from test_codec_stream import CAUSAL, SEGMENTS, random_codec

from stemgen_jax import codec as jax_codec
from stemgen_jax.audio import files as audio_files
from stemgen_jax.audio.files import convert_audio, read_audio, read_blocks, write_audio
from stemgen_jax.codec.__main__ import main
from stemgen_jax.codec.segments import DEFAULT_SCALE
from stemgen_jax.errors import UserError
from stemgen_jax.sampling.transcode import STEM_SCALE, choose_scales, encode


@pytest.fixture
def recording(music, tmp_path):
  """Three seconds of stereo at 44.1 kHz."""
  path = tmp_path / "song.wav"
  sides = convert_audio(music, 16_000, 44_100, 2) * np.array([[0.9], [0.5]], np.float32)
  write_audio(path, sides[:, : 3 * 44_100], 44_100)
  return path


@pytest.mark.parametrize(("rate_hz", "channels"), [(16_000, 1), (44_100, 2), (48_000, 2)])
def test_blocks_of_a_file_are_the_file(recording, rate_hz, channels, monkeypatch):
  monkeypatch.setattr(audio_files, "BLOCK_S", 0.7)
  blocks = list(read_blocks(recording, rate_hz, channels))
  assert len(blocks) == 5
  whole = convert_audio(*read_audio(recording), rate_hz, channels)
  joined = np.concatenate(blocks, axis=1)
  assert joined.shape == whole.shape == (channels, 3 * rate_hz)
  np.testing.assert_allclose(joined, whole, atol=1e-5)


def test_recording_is_heard_as_the_codec_has_it(recording, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(audio_files, "BLOCK_S", 0.7)
  codec = jax_codec.load()
  spec = codec.spec
  heard = convert_audio(*read_audio(recording), spec.sample_rate, spec.channels)
  for words, levels in (([], spec.n_levels), (["--levels", "1"], 1)):
    out = tmp_path / "heard.wav"
    main([str(recording), "--out", str(out), *words])
    found, rate_hz = soundfile.read(out, always_2d=True)
    samples = 3 * codec.decoded_rate_hz
    assert (rate_hz, found.shape) == (codec.decoded_rate_hz, (samples, spec.channels))
    expected = codec.decode(codec.encode(heard[None])[..., :levels])[0, :, :samples]
    np.testing.assert_allclose(found.T, expected.clip(-1, 1), atol=1e-3)
    line = capsys.readouterr().out
    assert line.startswith(f"{out}: 3.0 s, {spec.frames(heard.shape[1])} frames of {levels} codes")
    assert f"{spec.bits_per_s * levels / spec.n_levels:.0f} bit/s" in line
  assert sorted(path.name for path in tmp_path.iterdir()) == ["heard.wav", "song.wav"]


@pytest.mark.parametrize("ending", ["wav", "FLAC", "ogg", "mp3", "aiff", "caf"])
def test_lossy_and_other_files_are_written(recording, tmp_path, ending):
  out = tmp_path / f"heard.{ending}"
  main([str(recording), "--out", str(out)])
  assert read_audio(out)[0].shape[1] == pytest.approx(
    3 * jax_codec.load().decoded_rate_hz, abs=2400
  )


def test_users_mistakes(recording, tmp_path):
  for words, text in (
    (["--out", "a.wav", "--levels", "9"], "--levels must be 1 to"),
    (["--out", "a.mp9"], "--out must end in one of .wav, .*.mp3.*; got a.mp9"),
    (["--out", "a.raw"], "--out must end in one of .wav"),
    (["--out", str(tmp_path / "no/a.wav")], "--out must lie in a folder that exists"),
    (["--out", "a.wav", "--codec", str(tmp_path)], "codec bundle must be a folder"),
    (["--out", str(recording)], "recording must not be a file that this command writes"),
  ):
    with pytest.raises(UserError, match=text):
      main([str(recording), *words])
  broken = tmp_path / "nan.wav"
  soundfile.write(broken, np.full(100, np.nan, np.float32), 16_000, subtype="FLOAT")
  with pytest.raises(UserError, match="must be finite"):
    main([str(broken), "--out", str(tmp_path / "a.wav")])


def test_a_stem_takes_its_loudness_from_the_context(tmp_path):
  codec = random_codec(SEGMENTS, tmp_path / "b")
  context = np.full((2, 4000), 0.2, np.float32)
  context[:, 1980:] = 0  # the first segment ends 20 samples later
  scales = choose_scales(encode(codec, context, SEGMENTS.sample_rate))
  assert scales.shape == (1, len(SEGMENTS.segments(4000)))
  first = 0.2 * np.sqrt(1980 / 2000)
  np.testing.assert_allclose(scales[:, 0], STEM_SCALE * first, rtol=1e-4)
  np.testing.assert_allclose(scales[:, 1:], DEFAULT_SCALE)
  whole = random_codec(CAUSAL, tmp_path / "c")
  assert choose_scales(encode(whole, context[:1], CAUSAL.sample_rate)) is None
