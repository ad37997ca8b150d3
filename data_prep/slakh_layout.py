# SPDX-License-Identifier: Apache-2.0
"""Writes rendered songs as Slakh2100 lays out its tracks.

`TrackNNNNN/{metadata.yaml, mix.flac, stems/SNN.flac, MIDI/SNN.mid}`; a track appears by one
rename, so a folder that exists is whole.
"""

import hashlib
import os
import shutil
from pathlib import Path

import mido
import numpy as np
import soundfile
import yaml

from data_prep.music import Part, Song, inst_class, program_name
from data_prep.render import MIX_LUFS, integrated_loudness, render_song

_TICKS = 480
_DRUM_PROGRAM = 128  # what Slakh2100 writes for any drum kit


def write_track(song: Song, folder: Path, soundfont: bytes, font_name: str, rate_hz: int) -> float:
  """Renders a song into `folder` and returns the seconds of stem audio written.

  Args:
    folder: must not exist; `.<name>.partial` beside the split folders is used meanwhile.
    font_name: the SoundFont's file name, kept as Slakh's `plugin_name`.
  """
  partial = folder.parent.parent / f".{folder.name}.partial"
  shutil.rmtree(partial, ignore_errors=True)
  (partial / "stems").mkdir(parents=True)
  (partial / "MIDI").mkdir()
  pcm, gain = render_song(song, soundfont, rate_hz)
  stems = {}
  for index, (part, stem) in enumerate(zip(song.parts, pcm)):
    name = f"S{index:02d}"
    loudness = float("-inf") if stem is None else integrated_loudness(stem / 32768, rate_hz)
    stems[name] = _describe(part, font_name, loudness, stem is not None)
    if stem is not None:
      soundfile.write(partial / "stems" / f"{name}.flac", stem, rate_hz, subtype="PCM_16")
    _write_midi(part, song, partial / "MIDI" / f"{name}.mid")
  sounding = [stem for stem in pcm if stem is not None]
  silence = np.zeros(round(song.length_s * rate_hz), np.int32)
  mix = np.sum(sounding, axis=0, dtype=np.int32) if sounding else silence
  soundfile.write(partial / "mix.flac", mix.astype(np.int16), rate_hz, subtype="PCM_16")
  metadata = {
    "UUID": hashlib.md5(f"{folder.name}:{song.source}".encode()).hexdigest(),
    "audio_dir": "stems",
    "lmd_midi_dir": song.source,
    "midi_dir": "MIDI",
    "normalization_factor": MIX_LUFS,
    "normalized": True,
    "overall_gain": gain,
    "stems": stems,
  }
  (partial / "metadata.yaml").write_text(yaml.safe_dump(metadata), encoding="utf-8")
  folder.parent.mkdir(parents=True, exist_ok=True)
  os.replace(partial, folder)
  return len(sounding) * song.length_s


def _describe(part: Part, font_name: str, loudness: float, rendered: bool) -> dict:
  return {
    "audio_rendered": rendered,
    "inst_class": inst_class(part.program, part.is_drum),
    "integrated_loudness": loudness,
    "is_drum": part.is_drum,
    "midi_program_name": program_name(part.program, part.is_drum),
    "midi_saved": True,
    "plugin_name": font_name,
    "program_num": _DRUM_PROGRAM if part.is_drum else part.program,
  }


def _write_midi(part: Part, song: Song, path: Path) -> None:
  """Writes a part as a one-track MIDI file at the song's tempo."""
  tempo = mido.bpm2tempo(song.tempo_bpm)
  track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=tempo)])
  name = program_name(part.program, part.is_drum)
  track.append(mido.MetaMessage("track_name", name=name))
  ticks = 0
  for time_s, message in part.events:
    at = round(mido.second2tick(time_s, _TICKS, tempo))
    track.append(message.copy(time=at - ticks))
    ticks = at
  mido.MidiFile(type=0, ticks_per_beat=_TICKS, tracks=[track]).save(path)
