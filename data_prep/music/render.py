# SPDX-License-Identifier: Apache-2.0
"""Songs to audio: one mono stem a part through tinysoundfont, offline, and their loudness.

Stems are 16-bit integers and the mix is their integer sum, so it is exact and never clips.
"""

import dataclasses
import functools
from pathlib import Path

import numpy as np
import pretty_midi
import tinysoundfont
from jaxtyping import Float, Int16

from data_prep.music.parts import Message, Part, Song
from data_prep.music.production import produce
from stemgen_jax.audio.loudness import measure_lufs
from stemgen_jax.errors import UserError

Mono = Float[np.ndarray, " samples"]
Pcm = Int16[np.ndarray, " samples"]

MIX_LUFS = -16.0
_PEAK = 0.95
_FULL_SCALE = 32767
_BANK_SELECT = (0, 32)


def default_soundfont() -> Path:
  """Returns the path of the General MIDI SoundFont that pretty_midi ships (TimGM6mb, GPL-2)."""
  return Path(pretty_midi.__file__).with_name("TimGM6mb.sf2")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rendered:
  """A song's audio.

  Attributes:
    stems: one for each part; None where it never sounds.
    lufs: each stem's loudness; minus infinity where it never sounds.
    gain: factor that brought the mix to its loudness.
  """

  stems: tuple[Pcm | None, ...]
  lufs: tuple[float, ...]
  mix: Pcm
  gain: float


def check_soundfont(path: Path) -> None:
  """Does nothing if the file is a SoundFont.

  Raises:
    UserError: if it is missing or tinysoundfont cannot load it.
  """
  if not path.is_file():
    raise UserError(f"--soundfont must be a file that exists; got {path}.")
  try:
    tinysoundfont.Synth().sfload(path.read_bytes())
  except RuntimeError as error:
    raise UserError(f"--soundfont must be a SoundFont 2 file; got {path} ({error}).") from error


def render_song(
  song: Song, soundfont: bytes, rate_hz: int, studio: np.random.Generator | None = None
) -> Rendered:
  """Returns a song's stems and mix, the mix at MIX_LUFS, or lower where its peak would pass 0.95.

  Args:
    studio: draws what is done to each part as it is produced; None leaves the SoundFont's sound.

  Raises:
    UserError: if the SoundFont lacks a program that the song uses.
  """
  raw: list[Mono | None] = []
  lufs: list[float] = []
  for part in song.parts:
    sound = render_part(part, soundfont, rate_hz, song.length_s) if part.has_notes else None
    if sound is not None and studio is not None:
      sound = produce(sound, rate_hz, studio)
    loudness = float("-inf") if sound is None else measure_lufs(sound[None], rate_hz)
    if sound is not None and part.level_db is not None and np.isfinite(loudness):
      sound *= np.float32(10 ** ((part.level_db - loudness) / 20))
      loudness = part.level_db
    raw.append(sound if sound is not None and sound.any() else None)
    lufs.append(loudness)
  silence = np.zeros(round(song.length_s * rate_hz), np.float32)
  sounding = [sound for sound in raw if sound is not None] or [silence]
  mix = np.sum(sounding, axis=0)
  gain = _PEAK / max(1e-9, *(float(np.abs(sound).max()) for sound in [mix, *sounding]))
  loudness = measure_lufs(mix[None], rate_hz)
  gain = min(gain, 10 ** ((MIX_LUFS - loudness) / 20)) if np.isfinite(loudness) else 1.0
  stems = tuple(None if sound is None else _to_pcm(sound, gain) for sound in raw)
  pcm = [stem for stem in stems if stem is not None] or [_to_pcm(silence, gain)]
  return Rendered(
    stems=stems,
    lufs=tuple(loudness + 20 * float(np.log10(gain)) for loudness in lufs),
    mix=np.asarray(np.sum(pcm, axis=0, dtype=np.int16)),
    gain=gain,
  )


def _to_pcm(sound: Mono, gain: float) -> Pcm:
  return np.rint(sound * np.float32(gain * _FULL_SCALE)).astype(np.int16)


def render_part(part: Part, soundfont: bytes, rate_hz: int, length_s: float) -> Mono:
  """Returns one part's sound, both sides of the stereo field averaged to mono.

  Raises:
    UserError: if the SoundFont lacks the part's program.
  """
  synth, font = _open_synth(soundfont, rate_hz)
  # A part begins as in a new synthesiser: what still rang of the last one fades within 0.1 s.
  synth.soundfonts[font].reset()
  synth.generate_simple(rate_hz // 10)
  synth.soundfonts[font].reset()
  for channel in {message.channel for _, message in part.events}:
    try:
      synth.program_select(channel, font, 0, part.program, part.is_drum)
    except RuntimeError as error:
      kind = "drum kit" if part.is_drum else "program"
      raise UserError(
        f"the SoundFont must hold every General MIDI {kind}; got {kind}={part.program}, which it"
        " lacks. Give a General MIDI SoundFont with --soundfont."
      ) from error
  total = round(length_s * rate_hz)
  sound = np.zeros((total, 2), np.float32)
  done = 0
  for time_s, message in part.events:
    at = min(round(time_s * rate_hz), total)
    if at > done:
      synth.generate_simple(at - done, sound[done:at].data.cast("B"))
      done = at
    _send(synth, message)
  if done < total:
    synth.generate_simple(total - done, sound[done:].data.cast("B"))
  return sound.mean(axis=1)


@functools.lru_cache(maxsize=2)
def _open_synth(soundfont: bytes, rate_hz: int) -> tuple[tinysoundfont.Synth, int]:
  """Returns a synthesiser with a SoundFont, and its number: a compressed one takes long to read."""
  synth = tinysoundfont.Synth(samplerate=rate_hz)
  return synth, synth.sfload(soundfont)


def _send(synth: tinysoundfont.Synth, message: Message) -> None:
  """Passes one channel message on; programs and banks were set when the part began."""
  if message.type == "note_on":
    synth.noteon(message.channel, message.note, message.velocity)
  elif message.type == "note_off":
    synth.noteoff(message.channel, message.note)
  elif message.type == "control_change" and message.control not in _BANK_SELECT:
    synth.control_change(message.channel, message.control, message.value)
  elif message.type == "pitchwheel":
    synth.pitchbend(message.channel, message.pitch + 8192)
