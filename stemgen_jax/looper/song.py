# SPDX-License-Identifier: Apache-2.0
"""The tempo and the bars of a sound, and a loop of whole bars cut out of it."""

from pathlib import Path

import numpy as np

from stemgen_jax.audio.files import Samples, find_subtype, measure_audio, read_blocks
from stemgen_jax.errors import UserError
from stemgen_jax.looper.document import RATE_HZ, Song

HEARD_S = 90.0  # from which the tempo is found
TEMPO_HZ, HOP_SAMPLES = 22_050, 512
WHOLE = 0.03  # a file within this share of whole bars is a loop already
MOST_WHOLE_S, GOOD_LOOP_S = 30.0, 16.0  # a whole file that is kept; what is cut from a longer one
MOST_S, MOST_CHANNELS, MOST_HZ = 600.0, 8, 384_000


def check(path: Path, name: str) -> float:
  """Returns the seconds of a sound that was sent.

  Raises:
    UserError: if it is none, or more than the looper takes; it says `name`, and no path.
  """
  try:
    seconds, rate_hz, channels = measure_audio(path)
  except UserError as error:
    raise UserError(
      f"'{name}' cannot be read as sound (wav, flac, ogg or mp3): {_reason(error, path)}."
    ) from error
  if seconds > MOST_S or channels > MOST_CHANNELS or rate_hz > MOST_HZ:
    raise UserError(
      f"A sound must last at most {MOST_S / 60:.0f} minutes, with {MOST_CHANNELS} channels or"
      f" fewer; '{name}' has {seconds:.0f} s, {channels} channels, {rate_hz} Hz."
    )
  return seconds


def _reason(error: UserError, path: Path) -> str:
  text = str(error).replace(str(path), "it").rstrip(".")
  _, _, after = text.partition("; got ")
  return (after or text).replace("path=it", "").strip(" :,()") or "it holds no sound"


def read_part(path: Path, start_s: float, length: int, name: str) -> Samples:
  """Returns `length` samples of a sound at RATE_HZ, mono or stereo; silence beyond its end.

  Raises:
    UserError: if it cannot be read.
  """
  try:
    channels = min(2, measure_audio(path)[2])
    start, blocks, have = round(start_s * RATE_HZ), [], 0
    for block in read_blocks(path, RATE_HZ, channels):
      part = block[:, max(0, start - have) : max(0, start + length - have)]
      blocks.append(part)
      have += block.shape[1]
      if have >= start + length:
        break
  except UserError as error:
    raise UserError(f"'{name}' cannot be read as sound: {_reason(error, path)}.") from error
  samples = np.concatenate(blocks, axis=1)
  return np.pad(samples, ((0, 0), (0, length - samples.shape[1])))


def choose_subtype(path: Path) -> str:
  """Returns how a loop cut from a file is stored: as finely as the file was."""
  return "PCM_16" if find_subtype(path) == "PCM_16" else "FLOAT"


def find_song(path: Path, name: str, seconds: float) -> Song:
  """Returns the tempo and bars of a sound, and where its first bar begins: bars of four beats.

  A file that is as long as whole bars at the tempo that is heard, or at one near it, is taken for a
  loop and kept whole. Of others the first bars are cut. librosa finds tempo and beats.
  """
  import librosa

  heard, have = [], 0
  for block in read_blocks(path, TEMPO_HZ, 1):
    heard.append(block[0])
    have += block.shape[1]
    if have >= HEARD_S * TEMPO_HZ:
      break
  mono = np.concatenate(heard)[: round(HEARD_S * TEMPO_HZ)]
  tempo, beats = librosa.beat.beat_track(y=mono, sr=TEMPO_HZ, hop_length=HOP_SAMPLES, units="time")
  tempo_bpm = float(np.atleast_1d(tempo)[0]) or 120.0
  while tempo_bpm < 70:
    tempo_bpm *= 2
  while tempo_bpm > 180:
    tempo_bpm /= 2
  bar_s = 4 * 60 / tempo_bpm
  bars = max(1, round(seconds / bar_s))
  whole_bpm = bars * 4 * 60 / seconds
  if seconds <= MOST_WHOLE_S and bars <= 64 and _is_whole(seconds, bar_s, bars, whole_bpm):
    return Song(name, whole_bpm, 4, bars).begin()
  offset_s = min(_first_bar(beats, bar_s), max(0.0, seconds - bar_s))
  fits = max(1, int((seconds - offset_s + 0.01) / bar_s))
  limit = max(1, int(GOOD_LOOP_S / bar_s))
  bars = 2 ** int(np.log2(min(fits, limit)))
  return Song(name, round(tempo_bpm, 2), 4, bars, round(offset_s, 4)).begin()


def _is_whole(seconds: float, bar_s: float, bars: int, whole_bpm: float) -> bool:
  if seconds < bar_s * (1 - WHOLE):  # less than a bar: any length is as good
    return 20 <= whole_bpm <= 400
  return abs(seconds / (bars * bar_s) - 1) <= WHOLE


def _first_bar(beats: np.ndarray, bar_s: float) -> float:
  """Returns where the first bar begins: at the first beat, or at one before it that was missed."""
  if not len(beats):
    return 0.0
  return float(beats[0] % (bar_s / 4))


def refit(samples: Samples, length: int) -> Samples:
  """Returns a loop with another length: cut, or played on."""
  return np.take(samples, range(length), axis=1, mode="wrap")
