# SPDX-License-Identifier: Apache-2.0
"""What a codec's training run shows: figures of the round trip, TensorBoard, clips to listen to."""

from pathlib import Path

import numpy as np
from jaxtyping import Float
from tensorboardX import SummaryWriter

from data_prep.codecs.torch_codec import TorchCodec
from stemgen_jax.audio.files import write_audio
from stemgen_jax.audio.silence import AUDIBLE
from stemgen_jax.codec.fidelity import evaluate

LOOK_CROPS = 8  # of the held-out crops that a look on the way measures

Audio = Float[np.ndarray, "B channels samples"]


class RunLog:
  """Means of the losses, figures and clips: WORKDIR/tensorboard and WORKDIR/listen."""

  def __init__(self, workdir: Path):
    self._workdir, self._window = workdir, {}
    self._writer = SummaryWriter(str(workdir / "tensorboard"))

  def add(self, figures: dict[str, float]) -> None:
    """Adds one step's losses; not every step has every one."""
    for name, value in figures.items():
      self._window.setdefault(name, []).append(value)

  def flush(self, step: int, perplexity: list[float]) -> str:
    """Writes the means since the last flush, and each level's perplexity; returns them as text."""
    means = {name: float(np.mean(values)) for name, values in self._window.items()}
    self._window = {}
    for name, value in means.items():
      self._writer.add_scalar(f"train/{name}", value, step)
    for level, value in enumerate(perplexity, start=1):
      self._writer.add_scalar(f"perplexity/level_{level}", value, step)
    self._writer.flush()
    return "  ".join(f"{name} {value:.4g}" for name, value in means.items())

  def look(self, step: int, audio: Audio, clips: int) -> str:
    """Measures the bundle in the workdir on held-out crops and writes the first ones as clips.

    Returns:
      The figures with all levels, as text.
    """
    codec, audio = TorchCodec(self._workdir / "bundle"), audio[: max(LOOK_CROPS, clips)]
    figures = round_trip(codec, audio)
    for name, values in figures.items():
      for level, value in enumerate(values, start=1):
        self._writer.add_scalar(f"held_out/{name}/levels_{level}", value, step)
    made = codec.decode(codec.encode(audio[:clips])) if clips else audio[:0]
    folder, rate_hz = self._workdir / "listen", codec.spec.sample_rate
    folder.mkdir(exist_ok=True)
    for i, (clip, original) in enumerate(zip(made, audio[:clips], strict=True), start=1):
      clip = clip[:, : original.shape[1]].clip(-1, 1)
      write_audio(folder / f"step_{step:06d}_clip{i}.wav", clip, rate_hz)
      self._writer.add_audio(f"clip_{i}/step", clip.T, step, rate_hz)
      if not (path := folder / f"original_clip{i}.wav").exists():
        write_audio(path, original, rate_hz)
        self._writer.add_audio(f"clip_{i}/original", original.T, step, rate_hz)
    self._writer.flush()
    return "  ".join(f"{name} {values[-1]}" for name, values in figures.items())

  def close(self) -> None:
    """Closes the writer."""
    self._writer.close()


def round_trip(codec: TorchCodec, audio: Audio) -> dict[str, list[float]]:
  """Returns figures of a codec on crops, one for each number of levels kept.

  `mel_distance_db` (mean) and `si_sdr_db` (median over crops that sound) are of the reconstruction
  from the first 1, 2, ... levels; `perplexity` and `used_share` are of each level's codes.
  """
  found = evaluate(codec, audio)
  audible = np.abs(audio).max(axis=(1, 2)) > AUDIBLE
  figures = {
    "mel_distance_db": found.mel_distance_db.mean(axis=1),
    "si_sdr_db": np.median(found.si_sdr_db[:, audible], axis=1),
    "perplexity": found.perplexity,
    "used_share": found.used_share,
  }
  return {name: np.round(values, 3).tolist() for name, values in figures.items()}
