# SPDX-License-Identifier: Apache-2.0
"""Sound in and out: channels, formats, names in any bytes, and disks without room."""

import fractions
import functools
import os
import re
import resource
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stemgen_jax.audio.files import (
  convert_audio,
  find_subtype,
  measure_duration,
  read_audio,
  read_blocks,
  to_mono,
  write_audio,
)
from stemgen_jax.audio.sound import Sound
from stemgen_jax.errors import UserError


@pytest.fixture
def tone():
  return 0.3 * np.sin(np.arange(4000) / 9).astype(np.float32)[None]


def test_channels_are_averaged(tone):
  np.testing.assert_allclose(to_mono(np.concatenate([tone, 0 * tone])), tone / 2)
  np.testing.assert_array_equal(to_mono(tone), tone)
  assert convert_audio(tone, 10, 10, 2).shape == (2, 4000)


@pytest.mark.parametrize("gain", [-1.0, -0.98, -0.8, -0.6])
def test_channels_that_cancel_are_not_silence(tone, gain):
  np.testing.assert_array_equal(to_mono(np.concatenate([tone, gain * tone])), tone)


def test_one_channel_of_many_is_heard(tone):
  many = np.concatenate([0 * tone] * 15 + [tone])
  np.testing.assert_allclose(to_mono(many), tone / 16)


def test_silence_stays_silence(tone):
  assert not to_mono(np.zeros((2, 100), np.float32)).any()


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_what_was_read_is_written_again(tmp_path, subtype):
  rng = np.random.default_rng(0)
  soundfile.write(tmp_path / "a.wav", rng.uniform(-1, 1, (3000, 2)), 8000, subtype=subtype)
  assert find_subtype(tmp_path / "a.wav") == subtype
  samples, rate_hz = read_audio(tmp_path / "a.wav")
  write_audio(tmp_path / "b.wav", samples, rate_hz, subtype)
  assert (tmp_path / "b.wav").read_bytes()[-3000:] == (tmp_path / "a.wav").read_bytes()[-3000:]
  np.testing.assert_array_equal(read_audio(tmp_path / "b.wav")[0], samples)


def test_what_is_above_full_scale_is_not_clipped(tmp_path, tone):
  write_audio(tmp_path / "a.wav", 10 * tone, 8000)
  np.testing.assert_array_equal(read_audio(tmp_path / "a.wav")[0], 10 * tone)


@pytest.fixture
def small_disk(tmp_path):
  """A folder in which no file grows beyond 20 kB: what a full disk is to one that writes."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  (tmp_path / "full").mkdir()
  resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
  yield tmp_path / "full"
  resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg"])
def test_a_full_disk_is_one_line_and_leaves_nothing(small_disk, name):
  noise = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 100_000)).astype(np.float32)
  subtype = "VORBIS" if name == "a.ogg" else "PCM_16"
  write_audio(small_disk / name, noise[:, :400], 22_050, subtype)
  before = (small_disk / name).read_bytes()
  full = rf"the disk must have room for .*/full/{name}; got a full one \(File too large\)"
  with pytest.raises(UserError, match=full):
    write_audio(small_disk / name, noise, 22_050, subtype)
  assert [p.name for p in small_disk.iterdir()] == [name]
  assert (small_disk / name).read_bytes() == before


def test_a_file_in_any_bytes_is_read_and_written(tmp_path):
  path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/na\xefve [v1].wav"))
  write_audio(path, np.full((1, 100), 0.25, np.float32), 8_000)
  assert read_audio(path)[0].shape == (1, 100)
  assert find_subtype(path) == "PCM_16"


def test_links_to_nothing_and_addresses_are_named(tmp_path):
  (tmp_path / "a.wav").symlink_to(tmp_path / "gone.wav")
  with pytest.raises(UserError, match=r"must exist; got path=.*a.wav, a link to nothing"):
    read_audio(tmp_path / "a.wav")
  os.mkfifo(tmp_path / "pipe.wav")
  for path in (tmp_path / "pipe.wav", Path("/dev/null")):
    with pytest.raises(UserError, match=rf"got path={path}, which is no regular file. Copy"):
      read_audio(path)
  with pytest.raises(
    UserError, match=r"audio file must be a path of this machine; got gs://b/a.wav"
  ):
    read_audio(Path("gs://b/a.wav"))


def test_a_page_that_is_called_mp3_is_refused_without_a_librarys_notes(tmp_path, capfd):
  path = tmp_path / "song.mp3"
  path.write_text("<html>not found</html>" * 100)
  with pytest.raises(UserError, match=r"that libsndfile reads .*song.mp3 \(Format not recognised"):
    read_audio(path)
  assert capfd.readouterr() == ("", "")
  noise = np.random.default_rng(0).uniform(-0.5, 0.5, 8000)
  soundfile.write(path, noise, 16_000)
  whole = path.read_bytes()
  path.write_bytes(bytes(3000) + whole)  # as some streams begin
  assert read_audio(path)[0].shape[1] >= 8000
  for size in (300, len(whole) // 2):
    path.write_bytes(whole[:size])
    with pytest.raises(UserError, match="must be whole"):
      read_audio(path)
  path.write_bytes(whole[:-100])  # of the last frame: nothing that is heard
  assert read_audio(path)[0].shape[1] >= 6000
  soundfile.write(path, noise, 16_000, format="WAV")
  assert read_audio(path)[0].shape[1] == 8000
  assert not re.search("Xing|warning", capfd.readouterr().err)


def write_m4a(path, samples, rate_hz):
  av = pytest.importorskip("av", reason="m4a is read with it")
  with av.open(str(path), "w") as container:
    stream = container.add_stream("aac", rate=rate_hz)
    stream.layout = "stereo"
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = rate_hz, 0, fractions.Fraction(1, rate_hz)
    for packet in [*stream.encode(frame), *stream.encode(None)]:
      container.mux(packet)


def test_m4a_is_read_where_pyav_is(tmp_path, monkeypatch):
  time_s = np.arange(2 * 44_100) / 44_100
  sound = 0.3 * np.sin(2 * np.pi * 440 * time_s * np.array([[1], [2]])).astype(np.float32)
  write_m4a(tmp_path / "a.m4a", sound, 44_100)
  samples, rate_hz = read_audio(tmp_path / "a.m4a")
  assert rate_hz == 44_100
  assert samples.shape == sound.shape  # neither the encoder's delay nor what fills its last frame
  blocks = np.concatenate(list(read_blocks(tmp_path / "a.m4a", 44_100, 2)), axis=1)
  np.testing.assert_array_equal(blocks, samples)
  near = slice(20_000, 60_000)
  assert np.corrcoef(samples[0, near], sound[0, near])[0, 1] > 0.98  # in time
  assert measure_duration(tmp_path / "a.m4a") == pytest.approx(2, abs=0.1)
  monkeypatch.setitem(sys.modules, "av", None)
  with pytest.raises(
    UserError, match=r"m4a files must be read with PyAV; .*a.m4a .*pip install av"
  ):
    read_audio(tmp_path / "a.m4a")


def test_containers_that_do_not_say_their_length_are_counted(tmp_path):
  sound = 0.3 * np.sin(np.arange(3 * 44_100) / 20 * np.array([[1], [2]])).astype(np.float32)
  for name in ("a.mka", "a.aac", "a.mp4"):
    write_m4a(tmp_path / name, sound, 44_100)
    found = read_audio(tmp_path / name)[0].shape[1]
    assert found == pytest.approx(sound.shape[1], abs=4096)
    assert measure_duration(tmp_path / name) * 44_100 == pytest.approx(found, abs=4096)
  (tmp_path / "sent.wav").write_bytes((tmp_path / "a.mp4").read_bytes())  # whatever its name says
  assert read_audio(tmp_path / "sent.wav")[0].shape == sound.shape
  whole = (tmp_path / "a.mp4").read_bytes()
  (tmp_path / "a.mp4").write_bytes(2 * whole)
  with pytest.raises(UserError, match=r"one by one; got .*a.mp4, of 2 files"):
    read_audio(tmp_path / "a.mp4")
  (tmp_path / "a.mp4").write_bytes(b"")
  with pytest.raises(UserError, match=r"must hold sound; got .*a.mp4, an empty file"):
    read_audio(tmp_path / "a.mp4")
  soundfile.write(tmp_path / "b.m4a", sound.T, 44_100, format="WAV")
  (tmp_path / "b.m4a").write_bytes((tmp_path / "b.m4a").read_bytes()[:-9000])
  with pytest.raises(UserError, match=r"must be whole; got .*b.m4a: its end lacks 9000 bytes"):
    read_audio(tmp_path / "b.m4a")


def test_a_header_that_tells_of_days_is_one_line(tmp_path, monkeypatch):
  soundfile.write(tmp_path / "a.flac", np.zeros(100), 8000)
  monkeypatch.setattr(Sound, "__init__", functools.partialmethod(open_long, Sound.__init__))
  with pytest.raises(UserError, match=r"must fit in memory; got path=.*a.flac, whose header"):
    read_audio(tmp_path / "a.flac")


def open_long(self, begin, name, files):
  """Opens a sound as it is, but for its length."""
  begin(self, name, files)
  self.frames = 2**60
