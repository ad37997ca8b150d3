# SPDX-License-Identifier: Apache-2.0
"""The tempo and the bars of a sound, and a loop of whole bars cut out of it."""

import dataclasses
import re
from pathlib import Path

import numpy as np

from stemgen_jax.audio.files import Samples, find_subtype, measure_audio, read_blocks
from stemgen_jax.errors import UserError
from stemgen_jax.looper.document import LOOP_S, RATE_HZ, Song

HEARD_S = 90.0  # from which the tempo is found
MOST_WHOLE_S, GOOD_LOOP_S = 30.0, 16.0  # a whole file that is kept; what is cut from a longer one
MOST_S, MOST_CHANNELS, MOST_HZ = 600.0, 8, 384_000
_ENDING = re.compile(r"\.(wav|flac|ogg|oga|mp3|aiff?|m4a)$", re.IGNORECASE)


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
      f" fewer and at most {MOST_HZ} samples a second; '{name}' has {seconds:.1f} s, {channels}"
      f" channel(s), {rate_hz} samples a second."
    )
  return seconds


def _reason(error: UserError, path: Path) -> str:
  text = str(error).replace(str(path), "it").rstrip(".")
  _, _, after = text.partition("; got ")
  if told := re.search(r"\(([^)]+)\)", after):  # the decoder's own words
    return told[1].rstrip(".")
  words = after.replace("path=it", "").strip(" :,()")
  return "it holds no sound" if words in ("", "with none") else words


def read_part(path: Path, start_s: float, song: Song, name: str) -> Samples:
  """Returns a loop's samples out of a sound at RATE_HZ, mono or stereo.

  A sound that ends before the loop does goes round, if its whole bars do so evenly; after the end
  of any other there is silence.

  Args:
    path: of the sound.
    start_s: where in it the loop begins.
    song: gives the loop's length and its bars.
    name: what its sender calls the sound.

  Raises:
    UserError: if it cannot be read.
  """
  length = song.loop_samples
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
  bars = _count_held(samples.shape[1] / RATE_HZ, song)
  period = round(length * bars / song.bars) if bars else length
  samples = np.pad(samples, ((0, 0), (0, max(0, period - samples.shape[1]))))
  return refit(samples[:, :period], length)


def _count_held(seconds: float, song: Song) -> int:
  """Returns how many whole bars of a loop a sound holds, if they go round evenly; else 0."""
  bars = int(seconds * RATE_HZ * song.bars / song.loop_samples + 0.02)
  return bars if bars and song.bars % bars == 0 else 0


def choose_subtype(path: Path) -> str:
  """Returns how a loop cut from a file is stored: as finely as the file was."""
  return "PCM_16" if find_subtype(path) == "PCM_16" else "FLOAT"


def load() -> None:
  """Loads and compiles what finds tempos, once: librosa takes seconds for it."""
  from stemgen_jax.looper import tempo

  clicks = np.zeros(4 * tempo.RATE_HZ, np.float32)
  clicks[:: tempo.RATE_HZ // 2] = 0.5
  tempo.find_pulse(clicks, 4.0, may_loop=True)


def title(name: str) -> str:
  """Returns the name of a sound file without the ending that says how it is stored."""
  return _ENDING.sub("", name) or name


def find_song(path: Path, name: str, seconds: float, before: Song) -> tuple[Song, bool]:
  """Returns the song that a session's first sound makes, and whether its tempo was heard.

  A file that is as long as whole bars of four beats is taken for a loop and kept whole. Of others
  the first bars are cut: so many, a power of two, as make a loop that is good to play with. Where
  no tempo is heard, that of `before` holds, and its bars too if it has begun.

  Args:
    path: of the sound.
    name: what its sender calls it.
    seconds: how long the sound is.
    before: what the page shows so far.

  Raises:
    UserError: if it is too short to be a loop.
  """
  from stemgen_jax.looper import tempo

  if seconds < LOOP_S[0]:
    raise UserError(
      f"A session must begin with {LOOP_S[0]} s of sound or more; '{name}' has {seconds:.2f} s."
    )
  heard, have = [], 0
  for block in read_blocks(path, tempo.RATE_HZ, 1):
    heard.append(block[0])
    have += block.shape[1]
    if have >= HEARD_S * tempo.RATE_HZ:
      break
  mono = np.concatenate(heard)[: round(HEARD_S * tempo.RATE_HZ)]
  pulse = tempo.find_pulse(mono, seconds, may_loop=seconds <= MOST_WHOLE_S)
  if pulse is None:
    found = dataclasses.replace(before, name=title(name), offset_s=0.0)
    if not before.loop_samples:
      found = dataclasses.replace(found, bars=_count_bars(seconds, found.bar_s))
    return found.begin(), False
  if pulse.bars is not None:
    return Song(title(name), pulse.tempo_bpm, tempo.BEATS, pulse.bars).begin(), True
  bar_s = tempo.BEATS * 60 / pulse.tempo_bpm
  first_s = pulse.first_s if seconds - pulse.first_s >= bar_s else 0.0
  bars = _count_bars(seconds - first_s, bar_s)
  tempo_bpm = round(pulse.tempo_bpm, 2)
  return Song(title(name), tempo_bpm, tempo.BEATS, bars, round(first_s, 4)).begin(), True


def _count_bars(seconds: float, bar_s: float) -> int:
  """Returns how many bars are cut of so many seconds: a power of two, good to play with."""
  fits = max(1, int((seconds + 0.01) / bar_s))
  return 2 ** int(np.log2(min(fits, max(1, int(GOOD_LOOP_S / bar_s)))))


def place(
  song: Song, name: str, seconds: float, latency_s: float | None
) -> tuple[float, str | None]:
  """Returns where in a sound the loop of a song begins, and in words what it takes of the sound.

  Args:
    song: that is there already.
    name: of the sound.
    seconds: how long it is.
    latency_s: of a recording, by how much it comes too late; None for a file.
  """
  if latency_s is not None:
    return latency_s, None
  loop_s = song.loop_samples / RATE_HZ
  start_s = song.offset_s if seconds >= song.offset_s + 0.99 * loop_s else 0.0
  return start_s, _tell_fit(name, seconds, start_s, song)


def refit(samples: Samples, length: int) -> Samples:
  """Returns a loop with another length: cut, or played on."""
  return np.take(samples, range(length), axis=1, mode="wrap")


def tell(found: Song, seconds: float, heard: bool) -> str:
  """Returns in words what was found in a sound of so many seconds, and whether it was heard."""
  bars = "1 bar" if found.bars == 1 else f"{found.bars} bars"
  if not heard:
    return (
      f"No tempo was heard in '{found.name}': the loop has {bars} at {found.tempo_bpm:.1f} beats a"
      " minute, as the page had it. Set the tempo and the bars that you want."
    )
  cut = found.loop_samples / RATE_HZ
  words = f"{bars} at {found.tempo_bpm:.1f} beats a minute found"
  if seconds - cut > 0.05:
    words += f"; {cut:.1f} s of {seconds:.1f} s make the loop, from {found.offset_s:.2f} s on"
  return words + ". Correct them if they are wrong."


def _tell_fit(name: str, seconds: float, start_s: float, song: Song) -> str | None:
  """Returns in words what a loop takes of a sound that is longer or shorter; None if it fits."""
  left_s, loop_s = seconds - start_s, song.loop_samples / RATE_HZ
  if left_s > loop_s + 0.05:
    return (
      f"'{name}' lasts {seconds:.1f} s: the loop takes {loop_s:.1f} s, from {start_s:.2f} s on."
    )
  if left_s < 0.99 * loop_s:
    if bars := _count_held(left_s, song):
      times = song.bars // bars
      part = "its first bar" if bars == 1 else f"its first {bars} bars"
      return f"'{name}' lasts {seconds:.1f} s: the loop plays {part} {times} times."
    return f"'{name}' lasts {seconds:.1f} s: the rest of the loop of {loop_s:.1f} s is silence."
  return None
