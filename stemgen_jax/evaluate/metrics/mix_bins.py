# SPDX-License-Identifier: Apache-2.0
"""What MIRDD looks at in one mix: its descriptors, each as the bins that the mix falls into.

The descriptors are StemGen's (PAPER.md, section 3.1), whose extractors are not public; ours
are Basic Pitch's notes, chords matched to them, and librosa. Two are left out: see LEFT_OUT.
It knows one mix; `mirdd` compares populations of them.
"""

import librosa
import numpy as np
from jaxtyping import Float, Int

from stemgen_jax.audio import alignment
from stemgen_jax.audio.files import Samples, convert_audio
from stemgen_jax.evaluate.metrics import notes
from stemgen_jax.evaluate.metrics.descriptors import RATE_HZ, hear_harmony, is_silent

# How many bins each descriptor has; the last of `key`, `pitch_range` and `mode_changes` holds mixes
# to which it does not apply.
BINS = {
  "key": 25,  # 12 major and 12 minor, C first
  "pitch_range": 16,  # by 6 semitones
  "pitch_classes": 13,  # 0 to 12
  "percussive_notes": 16,  # 0 to 14, and more
  "chord_labels": 13,  # 0 to 11, and more
  "mode_changes": 11,  # by tenths
  "pitches": 88,  # of a piano
  "note_pitch_classes": 12,
  "triads": 24,  # 12 major and 12 minor, C first
}
LEFT_OUT = {
  "beats a bar": "no downbeat tracker is at hand whose weights are openly licensed and packaged",
  "structure labels": "windows of some seconds lie inside one section of a song",
}
RANGE_SEMITONES, PERCUSSIVE_S = 6, 0.6
CHORD_FRAMES = 8  # of harmony, 93 ms, in one step of the search for chords
CHORD_STAYS = 0.9  # the chance that a step has the chord of the step before


def describe_mix(samples: Samples, rate_hz: int) -> dict[str, list[int]]:
  """Returns the bins that a mix falls into, for each descriptor of BINS.

  `pitches` and `note_pitch_classes` have one for each note, `triads` one for each stretch of a
  chord, and none where the mix has no pitch; the others have exactly one.

  Raises:
    UserError: if the network that finds notes is not installed.
  """
  mono = convert_audio(samples, rate_hz, RATE_HZ, 1)[0]
  bins = {name: [] for name in BINS}
  for name in ("key", "pitch_range", "mode_changes"):
    bins[name] = [BINS[name] - 1]
  bins |= {"pitch_classes": [0], "chord_labels": [0], "percussive_notes": [0]}
  if is_silent(mono):
    return bins
  most = count_together(find_percussive(mono), PERCUSSIVE_S)
  bins["percussive_notes"] = [min(most, BINS["percussive_notes"] - 1)]
  found = notes.find_notes(mono)
  harmony = hear_harmony(found, mono)
  if harmony is None:
    return bins
  pitches = notes.pick_notes(found)[:, 2]
  chords = find_chords(harmony.chords)
  bins["key"] = [int(harmony.keys.argmax())]
  if len(pitches):
    bins["pitch_range"] = [int(np.ptp(pitches)) // RANGE_SEMITONES]
  bins["pitch_classes"] = [len(set(pitches % 12))]
  bins["pitches"] = (pitches - notes.LOWEST).tolist()
  bins["note_pitch_classes"] = (pitches % 12).tolist()
  bins["chord_labels"] = [min(len(set(chords.tolist())), BINS["chord_labels"] - 1)]
  bins["triads"] = chords.tolist()
  if len(chords) > 1:
    share = float(np.mean(np.diff(chords // 12) != 0))
    bins["mode_changes"] = [min(int(10 * share), BINS["mode_changes"] - 2)]
  return bins


def find_percussive(mono: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " n"]:
  """Returns the onsets of a sound's percussive part, in seconds.

  Source: the part is librosa's, by median filters (Fitzgerald, DAFx 2010).
  """
  part = librosa.effects.percussive(mono)
  return np.zeros(0) if is_silent(part) else alignment.find_onsets(part[None], RATE_HZ)


def count_together(times_s: Float[np.ndarray, " n"], window_s: float) -> int:
  """Returns how many of rising times lie in one window at most."""
  last = np.searchsorted(times_s, times_s + window_s, side="left")
  return int((last - np.arange(len(times_s))).max(initial=0))


def find_chords(chances: Float[np.ndarray, "T 24"]) -> Int[np.ndarray, " n"]:
  """Returns the triads that follow one another, as numbers: 12 major, 12 minor, C first.

  The likeliest way through the chances of `Harmony.chords`, averaged over CHORD_FRAMES, if a chord
  stays for a step with the chance CHORD_STAYS (Viterbi, by librosa).
  """
  steps = len(chances) // CHORD_FRAMES
  means = chances[: steps * CHORD_FRAMES].reshape(steps, CHORD_FRAMES, -1).mean(axis=1)
  stays = librosa.sequence.transition_loop(means.shape[1], CHORD_STAYS)
  way = librosa.sequence.viterbi_discriminative(means.T, stays).astype(int)
  return way[np.insert(np.diff(way) != 0, 0, True)]
