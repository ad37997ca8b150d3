# SPDX-License-Identifier: Apache-2.0
"""How hazy a sound is: how much there is between its notes, and between and above their partials.

A weak model smears notes: where the spectrogram of a recorded stem is black, there is noise. It is
what the eye sees first, and what no distance of embeddings or of descriptors tells. A part with
more notes is brighter too, so that the figure says something only beside the true stem's.
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
