# SPDX-License-Identifier: Apache-2.0
"""Self-contained HTML pages: players, pictures and templates, everything inside one file."""

import base64
import io
from pathlib import Path

import jinja2
import matplotlib
import numpy as np
import soundfile

matplotlib.use("agg")
from matplotlib import pyplot
from matplotlib.figure import Figure

from stemgen_jax.audio.files import Samples, convert_audio

NARROW = 4.0  # inches: the spectrogram of a player beside others
MOST_HZ = 24_000  # of an embedded player: half the size of a CD's rate, nothing lost below 12 kHz


def render(template: str, **values: object) -> str:
  """Returns a page of templates/; a name that the template asks for must be among the values.

  In HTML what the values hold is text and no markup; in Markdown it is left as it is.
  """
  loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
  environment = jinja2.Environment(
    loader=loader,
    autoescape=jinja2.select_autoescape(["html"]),
    trim_blocks=True,
    undefined=jinja2.StrictUndefined,
  )
  return environment.get_template(template).render(**values)


def embed_audio(samples: Samples, rate_hz: int) -> str:
  """Returns 16-bit FLAC of MOST_HZ or less as a data URI; every browser plays it."""
  samples = convert_audio(samples, rate_hz, min(rate_hz, MOST_HZ), len(samples))
  rate_hz = min(rate_hz, MOST_HZ)
  flac = io.BytesIO()
  soundfile.write(flac, np.clip(samples.T, -1, 1), rate_hz, format="FLAC", subtype="PCM_16")
  return _data_uri("audio/flac", flac.getvalue())


def embed_spectrogram(samples: Samples, rate_hz: int, width: float = 9.0) -> str:
  """Returns a picture of the mean channel up to 8 kHz, `width` inches wide, as a data URI."""
  figure, axes = pyplot.subplots(figsize=(width, 1.8), layout="constrained")
  mono = samples.mean(axis=0) + 1e-6 * np.random.default_rng(0).normal(size=samples.shape[1])
  axes.specgram(mono, NFFT=1024, noverlap=512, Fs=rate_hz, vmin=-130, vmax=-30)
  axes.set(ylim=(0, min(8000, rate_hz / 2)), xlabel="s", ylabel="Hz")
  return embed_figure(figure)


def embed_figure(figure: Figure) -> str:
  """Returns a figure as a PNG data URI, and closes it."""
  png = io.BytesIO()
  figure.savefig(png, format="png", dpi=85)
  pyplot.close(figure)
  return _data_uri("image/png", png.getvalue())


def describe_track(
  heading: str, text: str, samples: Samples, rate_hz: int, width: float = 9.0
) -> dict[str, str]:
  """Returns a player's heading, text, audio and spectrogram (both as data URIs)."""
  return {
    "heading": heading,
    "text": text,
    "audio": embed_audio(samples, rate_hz),
    "picture": embed_spectrogram(samples, rate_hz, width),
  }


def _data_uri(kind: str, data: bytes) -> str:
  return f"data:{kind};base64,{base64.b64encode(data).decode()}"
