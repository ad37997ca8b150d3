# SPDX-License-Identifier: Apache-2.0
"""A stem's audio: sums of files, streams of an mp4, and files that are cut or no audio."""

import sys

import numpy as np
import pytest
import soundfile
from small_trees import write_streams, write_tone

from data_prep.corpora.stem_audio import measure_stem, read_stem
from data_prep.corpora.types import AudioFile, Stem
from stemgen_jax.audio.files import measure_duration, read_audio, read_blocks
from stemgen_jax.errors import UserError


def stem(*paths, stream=None):
  return Stem("a", tuple(AudioFile(path, stream) for path in paths), {})


def test_files_are_summed_and_padded(tmp_path):
  one = write_tone(tmp_path / "one.wav", 0.25, seconds=0.5)
  two = write_tone(tmp_path / "two.flac", 0.5, seconds=1.0, channels=2)
  samples, rate_hz = read_stem(stem(one, two))
  assert samples.shape == (2, 8000)
  assert rate_hz == 8000
  assert np.allclose(samples[:, :4000], 0.75, atol=1e-4)
  assert np.allclose(samples[:, 4000:], 0.5, atol=1e-4)
  assert measure_stem(stem(one, two)) == (1.0, 8000, 2)
  assert read_stem(stem(one))[0].shape == (1, 4000)


def test_other_rates_are_brought_to_the_first(tmp_path):
  one = write_tone(tmp_path / "one.wav", 0.25, seconds=1.0)
  two = write_tone(tmp_path / "two.wav", 0.5, seconds=1.0, rate=16000)
  samples, rate_hz = read_stem(stem(one, two))
  assert (samples.shape, rate_hz) == ((1, 8000), 8000)
  assert np.allclose(samples[:, 500:-500], 0.75, atol=1e-3)
  assert read_stem(stem(two, one))[0].shape == (1, 16000)


def test_streams_of_an_mp4(tmp_path):
  path = write_streams(tmp_path / "a.stem.mp4", [0.1, 0.2, 0.4])
  for stream, value in enumerate([0.1, 0.2, 0.4]):
    samples, rate_hz = read_stem(stem(path, stream=stream))
    assert rate_hz == 44100
    assert samples.dtype == np.float32
    assert samples.shape[0] == 2
    assert 44100 <= samples.shape[1] < 44100 + 2048  # AAC's last block
    assert np.abs(samples[:, 4410:40000]).max() == pytest.approx(value, rel=0.05)
    seconds, rate_hz, channels = measure_stem(stem(path, stream=stream))
    assert seconds == pytest.approx(1.0, abs=0.05)
    assert (rate_hz, channels) == (44100, 2)
  with pytest.raises(UserError, match=r"a.stem.mp4, audio stream 3 with 3 audio streams"):
    read_stem(stem(path, stream=3))


def test_m4a(tmp_path):
  path = write_streams(tmp_path / "a.m4a", [0.3])
  assert np.abs(read_stem(stem(path))[0]).max() == pytest.approx(0.3, rel=0.1)


def cut(path, part=0.6):
  data = path.read_bytes()
  path.write_bytes(data[: int(len(data) * part)])
  return path


@pytest.mark.parametrize("part", [0.6, 0.98])
@pytest.mark.parametrize(
  ("name", "options"),
  [
    ("a.wav", {}),
    ("a.wav", {"subtype": "FLOAT"}),
    ("a.wav", {"format": "WAVEX"}),
    ("a.wav", {"format": "RF64"}),
    ("a.aiff", {}),
    ("a.flac", {}),
  ],
)
def test_cut_files_are_named(tmp_path, name, options, part):
  path = tmp_path / name
  noise = np.random.default_rng(0).uniform(-0.5, 0.5, (8001, 1))
  soundfile.write(path, noise, 8000, **options)
  assert read_audio(path)[0].shape == (1, 8001)
  cut(path, part)
  for read in (lambda: read_stem(stem(path)), lambda: list(read_blocks(path, 4000, 1))):
    with pytest.raises(UserError, match=f"audio file must be whole; got path={path}: it"):
      read()
  if name != "a.flac":  # whose header says nothing of its bytes
    with pytest.raises(UserError, match="must be whole"):
      measure_duration(path)


def test_wav_of_open_length_and_with_chunks_is_whole(tmp_path):
  path = write_tone(tmp_path / "a.wav", seconds=1.0)
  data = path.read_bytes()
  place = data.index(b"data") + 4
  path.write_bytes(data[:place] + b"\xff" * 4 + data[place + 4 :])  # as FFmpeg writes to a pipe
  assert read_audio(path)[0].shape == (1, 8000)
  odd = b"LIST\x03\0\0\0abc\0"  # a chunk of odd size is padded
  path.write_bytes(data[: place - 4] + odd + data[place - 4 :] + b"junk\xff\xff\0\0")
  assert read_audio(path)[0].shape == (1, 8000)
  path.write_bytes(data[: place - 4] + odd + data[place - 4 : -10])
  with pytest.raises(UserError, match="its end lacks 10 bytes"):
    read_audio(path)


@pytest.mark.parametrize("part", [0.05, 0.5, 0.95])
def test_cut_mp4_is_named(tmp_path, part):
  path = cut(write_streams(tmp_path / "a.stem.mp4", [0.1, 0.2]), part)
  with pytest.raises(UserError, match=f"must be whole.*got path={path}, audio stream 1"):
    read_stem(stem(path, stream=1))


def test_cut_mp4_with_its_index_first_is_named(tmp_path):
  av = pytest.importorskip("av")
  path, moved = write_streams(tmp_path / "a.mp4", [0.1], seconds=2.0), tmp_path / "b.mp4"
  with (
    av.open(str(path)) as source,
    av.open(str(moved), "w", options={"movflags": "faststart"}) as target,
  ):
    stream = target.add_stream_from_template(source.streams.audio[0])
    for packet in source.demux(source.streams.audio[0]):
      if packet.dts is not None:
        packet.stream = stream
        target.mux(packet)
  assert read_stem(stem(moved, stream=0))[0].shape[1] >= 88200
  data = moved.read_bytes()
  with av.open(str(moved)) as source:
    packets = [packet.pos for packet in source.demux() if packet.pos]
  for end in (packets[len(packets) // 2], int(len(data) * 0.6)):  # between packets, and inside one
    moved.write_bytes(data[:end])
    with pytest.raises(UserError, match=f"must be whole.*got path={moved}, audio stream 0"):
      read_stem(stem(moved, stream=0))


def test_nan_in_an_mp4_is_named(tmp_path):
  av = pytest.importorskip("av")
  path = tmp_path / "a.m4a"
  with av.open(str(path), "w", format="mov") as container:
    stream = container.add_stream("pcm_f32le", rate=8000, layout="mono")
    pcm = np.array([[0, np.nan] * 4000], np.float32)
    frame = av.AudioFrame.from_ndarray(pcm, format="flt", layout="mono")
    frame.rate = 8000
    container.mux([*stream.encode(frame), *stream.encode(None)])
  with pytest.raises(UserError, match=f"got path={path} with 4000 NaN"):
    read_stem(stem(path))


def test_no_audio_is_named(tmp_path, monkeypatch):
  wav, mp4 = tmp_path / "a.wav", tmp_path / "a.mp4"
  for path in (wav, mp4):
    with pytest.raises(UserError, match=f"audio file must exist; got path={path}"):
      read_stem(stem(path))
    for content in (b"", b"no audio"):
      path.write_bytes(content)
      for read in (read_stem, measure_stem):
        with pytest.raises(UserError, match=f"audio file must .*{path}"):
          read(stem(path))
  soundfile.write(wav, np.zeros((0, 1)), 8000)
  with pytest.raises(UserError, match=f"at least one sample; got path={wav}"):
    read_stem(stem(wav))
  soundfile.write(wav, np.array([0, np.nan, np.inf]), 8000, subtype="FLOAT")
  with pytest.raises(UserError, match=f"got path={wav} with 2 NaN"):
    read_stem(stem(write_tone(tmp_path / "b.wav"), wav))
  monkeypatch.setitem(sys.modules, "av", None)
  with pytest.raises(UserError, match=f"got path={mp4} without it. Run pip install av"):
    read_stem(stem(mp4))
