# SPDX-License-Identifier: Apache-2.0
"""What a take looks like: its onsets, and its spectrogram as a PNG."""

import io
import threading

import numpy as np

from stemgen_jax.audio.alignment import find_onsets
from stemgen_jax.audio.files import Samples, to_mono

_drawing = threading.Lock()  # matplotlib draws one picture at a time


def list_onsets(samples: Samples, rate_hz: int) -> list[float]:
  """Returns when something begins in a sound, in seconds."""
  return [round(float(onset), 4) for onset in find_onsets(samples, rate_hz)]


def draw_spectrogram(samples: Samples, rate_hz: int) -> bytes:
  """Returns a PNG of a sound's mel spectrogram, without axes, its time from edge to edge."""
  import librosa
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  mono = to_mono(samples)[0]
  with _drawing:
    power = librosa.feature.melspectrogram(y=mono, sr=rate_hz, n_mels=96)
    level_db = librosa.power_to_db(power, ref=1.0, top_db=None)
    figure = Figure(figsize=(8, 1.6), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.imshow(
      np.clip(level_db, -60, 30), aspect="auto", origin="lower", cmap="magma", vmin=-60, vmax=30
    )
    png = io.BytesIO()
    figure.savefig(png, format="png")
  return png.getvalue()
