# SPDX-License-Identifier: Apache-2.0
"""The floors of an evaluation: stems that did not listen, are out of time, or are no music."""

import librosa
import numpy as np

from stemgen_jax.audio.files import Samples, convert_audio
from stemgen_jax.types import Int

TEMPO_BPM = 120.0  # where the music has no beat
_TEMPO_HZ = 22_050


def find_others(
  rows: dict[str, np.ndarray], pool: dict[str, np.ndarray]
) -> Int[np.ndarray, "B T Q"]:
  """Returns a stem of another song for each window: of its category where the pool has one.

  Windows take the candidates in turn, so that the same few stems do not stand for all songs.
  """
  found = []
  for i, (song, kind) in enumerate(zip(rows["song"], rows["conditions"], strict=True)):
    others = np.flatnonzero(pool["song"] != song)
    same = others[(pool["conditions"][others] == kind).all(axis=1)]
    choice = same if len(same) else others
    found.append(pool["target"][choice[i % len(choice)]])
  return np.stack(found)


def draw_chance(
  codes: Int[np.ndarray, "n _ Q"], shape: tuple[int, ...], rng: np.random.Generator
) -> Int[np.ndarray, "B T Q"]:
  """Returns codes drawn one by one, each level's as often as it has them in `codes`."""
  flat = codes.reshape(-1, codes.shape[-1])
  levels = [rng.choice(flat[:, q], shape[:-1]) for q in range(shape[-1])]
  return np.stack(levels, axis=-1).astype(np.int32)


def shift_half_beat(stem: Samples, context: Samples, rate_hz: int) -> Samples:
  """Returns the stem turned round by half a beat of the music that it and its context make."""
  mono = convert_audio(stem + context, rate_hz, _TEMPO_HZ, 1)[0]
  found = float(np.squeeze(librosa.beat.beat_track(y=mono, sr=_TEMPO_HZ)[0])) if mono.any() else 0.0
  tempo_bpm = found if found > 0 else TEMPO_BPM
  return np.roll(stem, round(30.0 / tempo_bpm * rate_hz), axis=-1)
