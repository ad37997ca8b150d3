# SPDX-License-Identifier: Apache-2.0
"""Writes rendered songs as Slakh2100 lays out its tracks.

`TrackNNNNN/{metadata.yaml, mix.flac, stems/SNN.flac, MIDI/SNN.mid}`; a track appears by one
rename, so a folder that exists is whole.
"""

import hashlib
from pathlib import Path

import mido
import numpy as np
import yaml

from data_prep.music.parts import Part, Song, inst_class, program_name
from data_prep.music.render import MIX_LUFS, render_song
from stemgen_jax.audio.files import write_audio
from stemgen_jax.shell.folders import appearing

_TICKS = 480
_DRUM_PROGRAM = 128  # what Slakh2100 writes for any drum kit


def write_track(
  song: Song,
  folder: Path,
  soundfont: Path,
  rate_hz: int,
  studio: np.random.Generator | None = None,
) -> float:
  """Renders a song into `folder` and returns the seconds of stem audio written.

  Args:
    folder: `<out>/<split>/<track>`, must not exist; `<out>/.<track>.partial` is used meanwhile.
    studio: as `render_song`'s.

  Raises:
    UserError: if the SoundFont lacks a program that the song uses.
  """
  partial = folder.parent.parent / f".{folder.name}.partial"
  folder.parent.mkdir(parents=True, exist_ok=True)
  with appearing(folder, partial):
    (partial / "stems").mkdir(parents=True)
    (partial / "MIDI").mkdir()
    audio = render_song(song, soundfont.read_bytes(), rate_hz, studio)
    stems = {}
    for index, (part, pcm, lufs) in enumerate(
      zip(song.parts, audio.stems, audio.lufs, strict=True)
    ):
      name = f"S{index:02d}"
      stems[name] = _describe(part, soundfont.name, lufs, pcm is not None)
      if pcm is not None:
        _write_pcm(partial / "stems" / f"{name}.flac", pcm, rate_hz)
      _write_midi(part, song, partial / "MIDI" / f"{name}.mid")
    _write_pcm(partial / "mix.flac", audio.mix, rate_hz)
    metadata = {
      "UUID": hashlib.md5(f"{folder.name}:{song.source}".encode()).hexdigest(),
      "audio_dir": "stems",
      "lmd_midi_dir": song.source,
      "midi_dir": "MIDI",
      "normalization_factor": MIX_LUFS,
      "normalized": True,
      "overall_gain": audio.gain,
      "stems": stems,
    }
    (partial / "metadata.yaml").write_text(yaml.safe_dump(metadata), encoding="utf-8")
  return song.length_s * sum(pcm is not None for pcm in audio.stems)


def _describe(part: Part, font_name: str, lufs: float, rendered: bool) -> dict:
  return {
    "audio_rendered": rendered,
    "inst_class": inst_class(part.program, part.is_drum),
    "integrated_loudness": lufs,
    "is_drum": part.is_drum,
    "midi_program_name": program_name(part.program, part.is_drum),
    "midi_saved": True,
    "plugin_name": font_name,
    "program_num": _DRUM_PROGRAM if part.is_drum else part.program,
  }


def _write_pcm(path: Path, pcm: np.ndarray, rate_hz: int) -> None:
  write_audio(path, (pcm / np.float32(2**15))[None].astype(np.float32), rate_hz)  # exactly these


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
