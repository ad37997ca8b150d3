# SPDX-License-Identifier: Apache-2.0
"""Opus as a yardstick for codecs: audio through `opusenc` or `ffmpeg`, and the bits it took.

Decoding is libsndfile's, which drops the encoder's delay (pre-skip); `find_shift` finds the rest.
"""

import dataclasses
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float

from stemgen_jax.audio.files import convert_audio, read_audio

MISSING = "not measured: no opusenc or ffmpeg"
ENCODERS = {
  "opusenc": ("opusenc", "--quiet", "--bitrate", "{kbps}", "{source}", "{target}"),
  "ffmpeg": (
    "ffmpeg",
    "-v",
    "error",
    "-nostdin",
    "-y",
    "-i",
    "{source}",
    "-ac",
    "1",
    "-c:a",
    "libopus",
    "-b:a",
    "{kbps}k",
    "{target}",
  ),
}
_GRANULE_HZ = 48_000  # an Ogg Opus page counts its samples at this rate, whatever the input's
_MOST_SHIFT_S = 0.03  # an Opus frame and its look-ahead

Clips = Float[np.ndarray, "B samples"]


@dataclasses.dataclass(frozen=True)
class Opus:
  """Clips as Opus gave them back."""

  audio: Clips
  bits_per_s: float  # of the packets, without the container
  shift_samples: int  # by which the decoder was late, corrected
  encoder: str


def find_encoder() -> str | None:
  """Returns the name of the program that can write Opus, None if there is none."""
  if shutil.which("opusenc"):
    return "opusenc"
  if shutil.which("ffmpeg"):
    listed = subprocess.run(
      ["ffmpeg", "-hide_banner", "-encoders"], capture_output=True, text=True, check=False
    )
    if "libopus" in listed.stdout:
      return "ffmpeg"
  return None


def run_opus(clips: Clips, rate_hz: int, kbps: int, encoder: str) -> Opus:
  """Returns mono clips after Opus at a nominal bit rate, aligned with what went in.

  Raises:
    subprocess.CalledProcessError: if the encoder fails.
  """
  decoded, bits, seconds = np.zeros_like(clips), 0, 0.0
  with tempfile.TemporaryDirectory() as folder:
    source, target = Path(folder, "clip.wav"), Path(folder, "clip.opus")
    for clip, out in zip(clips, decoded, strict=True):
      soundfile.write(source, clip.clip(-1, 1), rate_hz, subtype="PCM_16")
      words = (w.format(kbps=kbps, source=source, target=target) for w in ENCODERS[encoder])
      subprocess.run(list(words), check=True, capture_output=True)
      clip_bits, clip_s = count_bits(target.read_bytes())
      bits, seconds = bits + clip_bits, seconds + clip_s
      samples = convert_audio(*read_audio(target), rate_hz, 1)[0, : len(out)]
      out[: len(samples)] = samples
  shift = find_shift(decoded, clips, round(_MOST_SHIFT_S * rate_hz))
  return Opus(move(decoded, -shift), bits / seconds, shift, encoder)


def count_bits(data: bytes) -> tuple[int, float]:
  """Returns the bits of an Ogg Opus file's audio packets, and the seconds that they last.

  Source: RFC 3533 section 6 (pages), RFC 7845 section 3 (the two headers have pages of their own)
  and section 4 (granule positions).
  """
  position, total, last, pre_skip = 0, 0, 0, 0
  audio = False  # the headers end with the page on which OpusTags ends
  while data[position : position + 4] == b"OggS":
    count = data[position + 26]
    lacing = data[position + 27 : position + 27 + count]
    body = position + 27 + count
    if data[body : body + 8] == b"OpusHead":
      pre_skip = int.from_bytes(data[body + 10 : body + 12], "little")
    elif audio:
      total += sum(lacing)
      last = int.from_bytes(data[position + 6 : position + 14], "little", signed=True)
    else:
      audio = lacing[-1] < 255
    position = body + sum(lacing)
  return 8 * total, (last - pre_skip) / _GRANULE_HZ


def find_shift(estimates: Clips, clips: Clips, most: int) -> int:
  """Returns by how many samples (-most..most) the estimates lag behind, one number for all clips.

  The cross-correlations of all clips are summed: one clip of steady tones would fit at many shifts.
  """
  size = 2 * max(clips.shape[1], most + 1)
  spectra = (
    np.fft.rfft(x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-9), size)
    for x in (estimates, clips)
  )
  estimate, clip = spectra
  correlation = np.fft.irfft((estimate * clip.conj()).sum(axis=0), size)
  lags = np.arange(-most, most + 1)
  return int(lags[correlation[lags].argmax()])


def move(clips: Clips, samples: int) -> Clips:
  """Returns clips moved later by a number of samples (earlier if negative), filled with silence."""
  moved = np.zeros_like(clips)
  if samples >= 0:
    moved[:, samples:] = clips[:, : clips.shape[1] - samples]
  else:
    moved[:, :samples] = clips[:, -samples:]
  return moved
