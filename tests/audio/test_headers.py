# SPDX-License-Identifier: Apache-2.0
"""Sound files whose headers lie are read to their end; what is really cut is said."""

import struct

import numpy as np
import pytest
import soundfile

from stemgen_jax.audio.files import measure_audio, measure_duration, read_audio, read_blocks
from stemgen_jax.errors import UserError

RATE_HZ = 22_050


def tone(seconds, channels=1, rate_hz=RATE_HZ):
  t = np.arange(round(seconds * rate_hz)) / rate_hz
  pitches_hz = 220 * (1 + np.arange(channels))
  return (0.3 * np.sin(2 * np.pi * t[:, None] * pitches_hz)).astype(np.float32)


def make(path, sound, rate_hz=RATE_HZ, **options):
  soundfile.write(path, sound, rate_hz, **options)
  return bytearray(path.read_bytes())


def check(path, sound, rate_hz=RATE_HZ, atol=1e-4):
  """All ways to read a file agree, and give the sound."""
  samples, found_hz = read_audio(path)
  assert (found_hz, samples.shape) == (rate_hz, sound.T.shape)
  np.testing.assert_allclose(samples, sound.T, atol=atol)
  assert measure_duration(path) == pytest.approx(len(sound) / rate_hz)
  blocks = np.concatenate(list(read_blocks(path, rate_hz, sound.shape[1])), axis=1)
  np.testing.assert_array_equal(blocks, samples)


SIZES = (0, 1, 36, 4096, 0x7FFFF000, 0x7FFFFFFF, 0x7FFFFFDB, 0x80000000, 0xFFFFFFFF, 0xFFFFFFDB)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_a_wav_whose_size_nobody_knew(tmp_path, size, subtype):
  sound = tone(0.5, channels=2)
  content = make(tmp_path / "a.wav", sound, subtype=subtype, format="WAV")
  at = content.index(b"data") + 4
  content[at : at + 4] = struct.pack("<I", size)
  content[4:8] = struct.pack("<I", min(size + 36, 2**32 - 1))
  (tmp_path / "a.wav").write_bytes(content)
  check(tmp_path / "a.wav", sound)


def test_chunks_behind_the_sound_are_no_sound(tmp_path):
  sound = tone(0.2)
  content = make(tmp_path / "a.wav", sound, format="WAV")
  for more in (
    b"LIST\x04\0\0\0INFO",
    b"id3 \x03\0\0\0abc\0",
    b"\0",
    b"bext\x02\0\0\0xxLIST\0\0\0\0",
  ):
    (tmp_path / "a.wav").write_bytes(content + more)
    check(tmp_path / "a.wav", sound)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("subtype", "channels"), [("PCM_16", 2), ("PCM_24", 1)])
def test_chunks_behind_a_sound_of_unknown_size_are_no_sound(tmp_path, size, subtype, channels):
  """As of ffmpeg, which writes to a pipe and tells its name at the end."""
  sound = tone(0.5, channels)  # of 24 bits an odd number of bytes
  content = make(tmp_path / "a.wav", sound, subtype=subtype, format="WAV")
  whole = read_audio(tmp_path / "a.wav")[0]
  at = content.index(b"data") + 4
  content = content[: at + 4 + whole.size * {"PCM_16": 2, "PCM_24": 3}[subtype]]
  content += bytes(len(content) % 2)
  content[at : at + 4] = struct.pack("<I", size)
  content[4:8] = struct.pack("<I", min(size + 36, 2**32 - 1))
  about = b"INFOISFT\x0e\0\0\0Lavf58.29.100\0"
  for more in (b"LIST" + struct.pack("<I", len(about)) + about, b"id3 \x03\0\0\0abc\0cue \0\0\0\0"):
    (tmp_path / "a.wav").write_bytes(content + more)
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav")[0], whole, atol=1e-4)
    assert measure_duration(tmp_path / "a.wav") == pytest.approx(len(sound) / RATE_HZ)


@pytest.mark.parametrize("lost", [1, 1000])
def test_what_is_cut_is_said(tmp_path, lost):
  content = make(tmp_path / "a.wav", tone(0.2), format="WAV")
  (tmp_path / "a.wav").write_bytes(content[:-lost])
  with pytest.raises(UserError, match=f"must be whole; .* its end lacks {lost} bytes"):
    read_audio(tmp_path / "a.wav")


@pytest.mark.parametrize("size", [0x7FFE0000, 0x90000000])
def test_a_large_size_that_is_meant_is_no_placeholder(tmp_path, size):
  content = make(tmp_path / "a.wav", tone(0.2), format="WAV")
  at = content.index(b"data") + 4
  content[at : at + 4] = struct.pack("<I", size)
  (tmp_path / "a.wav").write_bytes(content)
  with pytest.raises(UserError, match="must be whole"):
    read_audio(tmp_path / "a.wav")


def test_a_cut_file_of_more_than_four_gigabytes_is_said_to_be_cut(tmp_path):
  content = make(tmp_path / "a.wav", tone(0.2), format="RF64")
  at = content.index(b"ds64") + 8
  content[at : at + 16] = struct.pack("<QQ", 5 * 2**30, 5 * 2**30 - 100)
  (tmp_path / "a.wav").write_bytes(content)
  with pytest.raises(UserError, match="must be whole"):
    read_audio(tmp_path / "a.wav")


@pytest.mark.parametrize("name", [b"RF64", b"BW64"])
@pytest.mark.parametrize("known", [True, False])
def test_sixty_four_bit_sizes(tmp_path, name, known):
  sound = tone(0.3)
  content = make(tmp_path / "a.wav", sound, format="RF64")
  content[:4] = name
  if not known:  # as a recorder leaves it that lost power
    at = content.index(b"ds64") + 8
    content[at : at + 16] = bytes(16)
  (tmp_path / "a.wav").write_bytes(content)
  check(tmp_path / "a.wav", sound)


@pytest.mark.parametrize("seconds", [0.1, 0.5, 12.3])
@pytest.mark.parametrize(("channels", "rate_hz"), [(1, 22_050), (2, 48_000), (1, 11_111)])
def test_a_flac_that_does_not_say_its_length(tmp_path, seconds, channels, rate_hz):
  sound = tone(seconds, channels, rate_hz)
  content = make(tmp_path / "a.flac", sound, rate_hz)
  packed = int.from_bytes(content[18:26], "big")
  assert packed & (1 << 36) - 1 == len(sound)
  content[18:26] = (packed >> 36 << 36).to_bytes(8, "big")
  (tmp_path / "a.flac").write_bytes(content)
  check(tmp_path / "a.flac", sound, rate_hz)
  (tmp_path / "a.flac").write_bytes(content[:-9])
  with pytest.raises(UserError, match="neither says its length nor ends with a whole frame"):
    read_audio(tmp_path / "a.flac")


@pytest.fixture(scope="module")
def mp3(tmp_path_factory):
  """An MP3 of variable bit rate: its bytes without a Xing frame, and how long it sounds."""
  path = tmp_path_factory.mktemp("mp3") / "a.mp3"
  rng = np.random.default_rng(0)
  sound = np.concatenate([0.3 * rng.normal(size=(RATE_HZ, 1)), tone(4.0), tone(1.0)])
  content = make(
    path, np.clip(sound, -1, 1), format="MP3", bitrate_mode="VARIABLE", compression_level=0.3
  )
  first = content.index(b"Xing") - 4 - 9  # MPEG 2, mono: nine bytes of side information
  following = content.index(content[first : first + 2], first + 4)
  return bytes(content[following:]), len(sound)


@pytest.mark.parametrize("tag", [b"", b"ID3\x03\0\0\0\0\0\x0a" + bytes(10)])
def test_an_mp3_without_its_length(tmp_path, mp3, tag):
  content, length = mp3
  (tmp_path / "a.mp3").write_bytes(tag + content)
  samples, _ = read_audio(tmp_path / "a.mp3")
  assert abs(samples.shape[1] - length) < 3 * 1152
  assert np.abs(samples[0, -RATE_HZ // 2 :]).max() > 0.2  # the last note


def test_joined_mp3s(tmp_path, mp3):
  content, length = mp3
  whole = make(tmp_path / "b.mp3", tone(2.0), format="MP3")
  (tmp_path / "a.mp3").write_bytes(bytes(whole) + bytes(whole) + b"TAG" + bytes(125))
  samples, _ = read_audio(tmp_path / "a.mp3")
  assert abs(samples.shape[1] - 4 * RATE_HZ) < 6 * 1152
  (tmp_path / "a.mp3").write_bytes(content + content)
  samples, _ = read_audio(tmp_path / "a.mp3")
  assert abs(samples.shape[1] - 2 * length) < 6 * 1152


ID3 = b"ID3\x03\0\0\0\0\x10\0" + bytes(range(256)) * 8


@pytest.mark.parametrize("between", [b"", b"TAG" + bytes(125), ID3, bytes(range(128)) * 20])
@pytest.mark.parametrize("behind", [b"", b"TAG" + bytes(125), b"APETAGEX" + bytes(range(128)) * 9])
def test_joined_mp3s_are_read_without_a_word_of_the_librarys(tmp_path, capfd, between, behind):
  parts = [bytes(make(tmp_path / "a.mp3", tone(s), format="MP3")) for s in (2.0, 3.0)]
  (tmp_path / "a.mp3").write_bytes(ID3 + parts[0] + between + parts[1] + behind)
  samples, _ = read_audio(tmp_path / "a.mp3")
  assert abs(samples.shape[1] - 5 * RATE_HZ) < 6 * 1152
  assert capfd.readouterr().err == ""


def test_joined_mp3s_that_are_not_alike_are_refused(tmp_path):
  one = make(tmp_path / "a.mp3", tone(2.0), format="MP3")
  other = make(tmp_path / "a.mp3", tone(3.0, 2, 44_100), 44_100, format="MP3")
  (tmp_path / "a.mp3").write_bytes(one + other)
  with pytest.raises(UserError, match=r"must be alike; .* of 2 files with 22050 Hz"):
    read_audio(tmp_path / "a.mp3")


def test_a_flac_whose_header_counts_too_few_samples_is_read_to_its_end(tmp_path):
  sound = tone(1.0)
  content = bytearray(make(tmp_path / "a.flac", sound))
  packed = int.from_bytes(content[18:26], "big")
  content[18:26] = ((packed >> 36 << 36) + 9000).to_bytes(8, "big")
  (tmp_path / "a.flac").write_bytes(content)
  check(tmp_path / "a.flac", sound, RATE_HZ)


JOINABLE = ["a.wav", "a.flac", "a.aiff", "a.ogg", "a.au", "a.w64", "a.caf"]


@pytest.mark.parametrize("name", JOINABLE)
@pytest.mark.parametrize("seconds", [(0.3, 0.5), (0.4, 0.4, 0.1)])
def test_files_joined_end_to_end(tmp_path, name, seconds):
  sounds = [tone(s, channels=2) for s in seconds]
  parts = [bytes(make(tmp_path / name, sound)) for sound in sounds]
  whole = []
  for part in parts:
    (tmp_path / name).write_bytes(part)
    whole.append(read_audio(tmp_path / name)[0].T)
  (tmp_path / name).write_bytes(b"".join(parts))
  check(tmp_path / name, np.concatenate(whole), atol=0)
  seconds = measure_audio(tmp_path / name)[0]
  assert seconds == pytest.approx(sum(map(len, sounds)) / RATE_HZ)


def test_joined_wavs_whose_sizes_nobody_knew(tmp_path):
  sound = tone(0.3)
  content = make(tmp_path / "a.wav", sound, format="WAV")
  at = content.index(b"data") + 4
  for size in (0, 0x7FFFF000, 0xFFFFFFFF):
    content[at : at + 4] = struct.pack("<I", size)
    (tmp_path / "a.wav").write_bytes(content * 3)
    check(tmp_path / "a.wav", np.tile(sound, (3, 1)))


def test_a_joined_flac_that_ends_as_its_header_says_is_found_as_it_is_read(tmp_path):
  content = bytes(make(tmp_path / "a.flac", tone(0.3)))
  (tmp_path / "a.flac").write_bytes(content + content)
  assert measure_duration(tmp_path / "a.flac") == pytest.approx(0.6)
  assert read_audio(tmp_path / "a.flac")[0].shape[1] == round(0.6 * RATE_HZ)


def test_joined_files_that_are_not_alike_are_refused(tmp_path):
  one, other = make(tmp_path / "a.wav", tone(0.1)), make(tmp_path / "b.wav", tone(0.1, 2), 8_000)
  (tmp_path / "a.wav").write_bytes(one + other)
  with pytest.raises(UserError, match=r"must be alike; got path=.*a.wav, of 2 files with 8000 Hz"):
    read_audio(tmp_path / "a.wav")


@pytest.mark.parametrize("name", [*JOINABLE, "a.mp3"])
def test_a_joined_file_whose_end_is_cut_is_said(tmp_path, name):
  content = bytes(make(tmp_path / name, tone(1.0)))
  (tmp_path / name).write_bytes(content + content[: len(content) // 2])
  if name == "a.mp3":  # a half MP3 is a shorter one
    assert read_audio(tmp_path / name)[0].shape[1] > 1.4 * RATE_HZ
    (tmp_path / name).write_bytes(content[: len(content) // 2])
  with pytest.raises(UserError, match="must be whole"):
    read_audio(tmp_path / name)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "MP3", "AIFF", "RF64"])
def test_a_header_that_ends_in_the_middle_is_one_line(tmp_path, kind):
  content = make(tmp_path / "whole", tone(0.1), format=kind)
  for length in (3, 11, 13, 21, 30, 40):
    (tmp_path / "a.wav").write_bytes(content[:length])
    with pytest.raises(UserError, match="audio file must"):
      read_audio(tmp_path / "a.wav")


BIG_ENDIAN = {"a.aiff": b"SSND", "a.au": b".snd", "a.caf": b"data", "a.wav": b"data"}


def shrink(content, name, size):
  """Writes a size of sound into a header that is less than what follows."""
  at = content.index(BIG_ENDIAN[name]) + (8 if name == "a.au" else 4)
  if name == "a.caf":
    content[at : at + 8] = struct.pack(">q", size)
  else:
    content[at : at + 4] = struct.pack(">I", size)
  if name == "a.aiff":  # the number of frames too
    frames_at = content.index(b"COMM") + 10
    content[frames_at : frames_at + 4] = struct.pack(">I", size // 4)


@pytest.mark.parametrize("size", [1000, 0, -1])
@pytest.mark.parametrize("name", BIG_ENDIAN)
def test_other_formats_whose_size_is_less_than_what_they_hold(tmp_path, name, size):
  sound = tone(0.5, channels=2)
  options = {"format": "WAV", "endian": "BIG"} if name == "a.wav" else {}  # which is RIFX
  content = make(tmp_path / name, sound, subtype="PCM_16", **options)
  if size >= 0 or name == "a.caf":
    shrink(content, name, size if name != "a.aiff" or size else 1000)
  (tmp_path / name).write_bytes(content)
  check(tmp_path / name, sound)
  (tmp_path / name).write_bytes(make(tmp_path / name, sound, subtype="PCM_16", **options)[:-5000])
  with pytest.raises(UserError, match="must be whole"):
    read_audio(tmp_path / name)


ID3 = b"ID3\x04\0\0\0\0\0\x0a" + bytes(10)
APE = b"APETAGEX" + struct.pack("<IIII", 2000, 32, 0, 0) + bytes(8)
TAGS = {"id3v1": b"TAG" + b"x" * 125, "ape": APE, "id3": ID3, "xml": b"<?xml version='1.0'?>"}


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("name", ["a.wav", "a.aiff", "a.flac"])
def test_tags_behind_a_sound_are_no_sound(tmp_path, name, tag):
  sound = tone(0.3)
  (tmp_path / name).write_bytes(make(tmp_path / name, sound, subtype="PCM_16") + TAGS[tag])
  check(tmp_path / name, sound)


@pytest.mark.parametrize("behind", ["", "id3v1", "ape", "zeros"])
def test_tags_around_a_flac_that_does_not_say_its_length(tmp_path, behind):
  sound = tone(0.5)
  content = make(tmp_path / "a.flac", sound)
  content[21] &= 0xF0
  content[22:26] = bytes(4)
  alone = APE[:12] + struct.pack("<I", 32) + APE[16:]  # nothing but its footer
  more = {"": b"", "zeros": bytes(500), "id3v1": TAGS["id3v1"], "ape": alone}[behind]
  (tmp_path / "a.flac").write_bytes(ID3 + content + more)
  check(tmp_path / "a.flac", sound)


def test_tags_before_a_wav_whose_size_nobody_knew(tmp_path):
  sound = tone(0.5)
  content = make(tmp_path / "a.wav", sound, format="WAV")
  at = content.index(b"data") + 4
  content[at : at + 4] = struct.pack("<I", 4000)
  (tmp_path / "a.wav").write_bytes(ID3 + content)
  check(tmp_path / "a.wav", sound)


def test_an_mp3_whose_first_frame_is_damaged(tmp_path, mp3):
  content, seconds = mp3
  path = tmp_path / "a.mp3"
  path.write_bytes(b"\0\0\xff\xfe" + content[4:])
  found = read_audio(path)[0].shape[1] / RATE_HZ
  assert found == pytest.approx(seconds / RATE_HZ, abs=0.2)
  assert measure_duration(path) == pytest.approx(found, abs=0.1)
