# SPDX-License-Identifier: Apache-2.0
"""Doom's music: the lumps of a WAD file, and the MUS format they may be in.

Bytes in, timed channel messages out; no file is opened here. A malformed input is a ValueError
that says what is wrong, for the caller to name the file.
"""

import struct

import mido

from data_prep.music.parts import DRUM_CHANNEL, Event

MUS_MAGIC = b"MUS\x1a"
MIDI_MAGIC = b"MThd"
_TICKS_HZ = 140
_MUS_DRUM_CHANNEL = 15
# MUS controllers 1 to 9 as MIDI controllers: bank, modulation, volume, pan, expression, reverb,
# chorus, sustain pedal, soft pedal. Controller 0 is the program.
_CONTROLLERS = (0, 1, 7, 10, 11, 91, 93, 64, 67)
# MUS system events 10 to 14: sounds off, notes off, mono, poly, reset controllers.
_SYSTEM = (120, 123, 126, 127, 121)


def music_lumps(wad: bytes) -> list[tuple[str, bytes]]:
  """Returns (name, content) of every lump of a WAD that holds MUS or MIDI music.

  Raises:
    ValueError: if the bytes are no WAD, or end before its directory or a lump does.
  """
  if wad[:4] not in (b"IWAD", b"PWAD") or len(wad) < 12:
    raise ValueError("no IWAD or PWAD header")
  count, directory = struct.unpack_from("<II", wad, 4)
  if directory + 16 * count > len(wad):
    raise ValueError(f"the directory of {count} lumps passes the end of the file")
  lumps = []
  for index in range(count):
    start, size, raw = struct.unpack_from("<II8s", wad, directory + 16 * index)
    name = raw.split(b"\0")[0].decode("ascii", "replace")
    if size and start + size > len(wad):
      raise ValueError(f"lump {name} passes the end of the file")
    if size and wad[start : start + 4] in (MUS_MAGIC, MIDI_MAGIC):
      lumps.append((name, wad[start : start + size]))
  return lumps


def read_mus(lump: bytes) -> list[Event]:
  """Returns the timed messages of a MUS lump, programs included, drums on MIDI's channel.

  Raises:
    ValueError: if the bytes are no MUS score, or end before it does.
  Source: the Doom MUS format: 140 ticks a second; an event byte holds last-before-a-delay (bit 7),
    kind (bits 4-6) and channel (bits 0-3); delays are seven bits a byte, high first.
  """
  if lump[:4] != MUS_MAGIC or len(lump) < 16:
    raise ValueError("no MUS header")
  start = struct.unpack_from("<H", lump, 6)[0]
  body = iter(lump[start:])
  events: list[Event] = []
  volumes = [127] * 16
  ticks = 0
  try:
    while True:
      head = next(body)
      kind, channel = head >> 4 & 7, head & 15
      if kind == 6:
        return events
      message = _read_event(kind, channel, body, volumes)
      if message is not None:
        events.append((ticks / _TICKS_HZ, message))
      if head & 0x80:
        ticks += _read_delay(body)
  except StopIteration:
    raise ValueError("the MUS score ends without its end mark") from None


def _read_event(kind: int, channel: int, body, volumes: list[int]) -> mido.Message | None:
  to = _midi_channel(channel)
  if kind == 0:
    return mido.Message("note_off", channel=to, note=next(body) & 127)
  if kind == 1:
    note = next(body)
    if note & 0x80:
      volumes[channel] = next(body) & 127
    return mido.Message("note_on", channel=to, note=note & 127, velocity=volumes[channel])
  if kind == 2:
    return mido.Message("pitchwheel", channel=to, pitch=64 * (next(body) - 128))
  if kind == 3:
    number = next(body)
    if 10 <= number < 15:
      return mido.Message("control_change", channel=to, control=_SYSTEM[number - 10])
    return None
  if kind == 4:
    number, value = next(body), min(next(body), 127)
    if number == 0:
      return mido.Message("program_change", channel=to, program=value)
    if number <= len(_CONTROLLERS):
      control = _CONTROLLERS[number - 1]
      return mido.Message("control_change", channel=to, control=control, value=value)
    return None
  if kind == 5:
    return None
  raise ValueError(f"MUS event kind {kind} is unknown")


def _midi_channel(channel: int) -> int:
  """Returns MIDI's number for a MUS channel: 15 are drums, MIDI's drum channel is stepped over."""
  if channel == _MUS_DRUM_CHANNEL:
    return DRUM_CHANNEL
  return channel + (channel >= DRUM_CHANNEL)


def _read_delay(body) -> int:
  delay = 0
  while True:
    byte = next(body)
    delay = delay << 7 | byte & 127
    if not byte & 0x80:
      return delay
