# SPDX-License-Identifier: Apache-2.0
"""How hazy a sound is: how much there is between its notes, and between and above their partials.

A weak model smears notes: where the spectrogram of a recorded stem is black, there is noise. It is
what the eye sees first, and what no distance of embeddings or of descriptors tells. A part with
more notes is brighter too, so that the figures say something only beside the true stem's.
"""

import math

import librosa
import numpy as np

from stemgen_jax.audio.files import Samples, convert_audio
from stemgen_jax.evaluate.metrics.descriptors import (
  DEPTH_DB,
  MEL_BANDS,
  RATE_HZ,
  WINDOW_SAMPLES,
  is_silent,
)

LOW_HZ, HIGH_HZ = 40.0, 2000.0  # where fundamentals and first partials lie
LONG_SAMPLES = 8192  # 2.7 Hz a bin: a bass's partials lie apart
LOUD_DB = 30.0  # below the loudest frame; softer ones are not counted


def measure_haze(samples: Samples, rate_hz: int) -> float:
  """Returns the mean level of the cells of a sound's mel spectrogram, in dB; NaN for silence.

  0 dB is the loudest cell, and cells more than DEPTH_DB below it count as that: from -80 for one
  click to about -10 for white noise; plain notes with rests lie near -70, and noise 40 dB below
  them adds 9 dB.
  """
  mono = convert_audio(samples, rate_hz, RATE_HZ, 1)[0]
  if is_silent(mono):
    return math.nan
  mel = librosa.feature.melspectrogram(
    y=mono, sr=RATE_HZ, n_fft=WINDOW_SAMPLES, hop_length=WINDOW_SAMPLES // 4, n_mels=MEL_BANDS
  )
  return float(librosa.power_to_db(mel, ref=np.max, top_db=DEPTH_DB).mean())


def measure_flatness(samples: Samples, rate_hz: int) -> float:
  """Returns the spectral flatness between LOW_HZ and HIGH_HZ; NaN for silence.

  The median, over the frames that are loud enough, of the geometric over the arithmetic mean of
  power: 0 for lines with nothing between them, 0.56 for white noise. `measure_haze` sees
  what lies in most of the spectrum; this sees a low note that is a rumble instead of lines.
  """
  mono = convert_audio(samples, rate_hz, RATE_HZ, 1)[0]
  if is_silent(mono):
    return math.nan
  power = np.abs(librosa.stft(mono, n_fft=LONG_SAMPLES)) ** 2
  bins = librosa.fft_frequencies(sr=RATE_HZ, n_fft=LONG_SAMPLES)
  power = power[(bins >= LOW_HZ) & (bins < HIGH_HZ)]
  level_db = librosa.power_to_db(power.sum(axis=0), ref=np.max)
  loud = power[:, level_db > -LOUD_DB]
  return float(np.median(librosa.feature.spectral_flatness(S=loud, power=1.0)))
