# SPDX-License-Identifier: Apache-2.0
"""Embeddings of audio, to measure distances between: the codec's, musicnn's, or one that is given.

`load_embedding` names the choices. Models come from files that the user has; none is downloaded.
"""

import dataclasses
import functools
import importlib
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float

from stemgen_jax.codec import Codec
from stemgen_jax.errors import UserError
from stemgen_jax.evaluate.metrics import musicnn, vggish

AT_ONCE = 8  # windows of a batch

Samples = Float[np.ndarray, " samples"]
Embeddings = Float[np.ndarray, "n D"]


@dataclasses.dataclass(frozen=True)
class Embedding:
  """Mono audio at `rate_hz` in, one vector every `seconds` out; what is left at the end is dropped.

  `name` says which in a table ("FAD-<name>"); `least_samples` is how much audio one vector needs.
  """

  name: str
  rate_hz: int
  seconds: float
  least_samples: int
  embed: Callable[[Samples], Embeddings] = dataclasses.field(repr=False)

  def __call__(self, samples: Samples) -> Embeddings:
    """Returns the embeddings of audio; too short audio is padded by silence to one window."""
    missing = max(0, self.least_samples - len(samples))
    return self.embed(np.pad(samples, (0, missing)).astype(np.float32))


def load_embedding(spec: str, codec: Codec | None) -> Embedding:
  """Returns the embedding of that name.

  Args:
    spec: "encodec" for the codec's latents; "musicnn", or "musicnn=PATH" of its wheel or folder;
      "vggish=FILE" of weights; "NAME=FILE.onnx" for any model of a waveform, [1, samples] or
      [samples], to [D] or [n, D], with {"rate_hz": ..., "seconds": ...} in FILE.json.
    codec: for "encodec"; None where that is not to be had.

  Raises:
    UserError: if there is no such embedding, or its files cannot be used.
  """
  name, given, file = spec.partition("=")
  path = Path(file) if file else None
  if path is not None and path.suffix == ".onnx" and name:
    return load_onnx(name, path)
  if name == "encodec" and not given and codec is not None:
    return embed_latents(codec)
  if name == "musicnn" and (path is not None or not given):
    hop, apply = musicnn.WINDOW_FRAMES * musicnn.HOP, musicnn.apply_musicnn
    network = functools.partial(apply, musicnn.load_musicnn(path))
    return Embedding(
      name,
      musicnn.RATE_HZ,
      hop / musicnn.RATE_HZ,
      hop - musicnn.HOP,
      lambda samples: in_batches(network, musicnn.cut_musicnn(samples)),
    )
  if name == "vggish" and path is not None:
    hop, apply = vggish.WINDOW_FRAMES * vggish.HOP, vggish.apply_vggish
    network = functools.partial(apply, vggish.load_vggish(path))
    return Embedding(
      name,
      vggish.RATE_HZ,
      hop / vggish.RATE_HZ,
      hop - vggish.HOP + vggish.FRAME,
      lambda samples: in_batches(network, vggish.cut_vggish(samples)),
    )
  raise UserError(
    f"an embedding must be encodec, musicnn, musicnn=PATH, vggish=FILE or NAME=FILE.onnx;"
    f" got {spec!r}. Choose one of them."
  )


def embed_latents(codec: Codec) -> Embedding:
  """Returns the codec's latents, averaged over each second, as an embedding ("encodec")."""
  second, spec = round(codec.spec.frame_rate_hz), codec.spec
  window = second * spec.hop_samples

  def embed(samples: Samples) -> Embeddings:
    latents = codec.latents(np.repeat(samples[None, None], spec.channels, axis=1))[0]
    count = len(latents) // second
    return latents[: count * second].reshape(count, second, -1).mean(axis=1)

  return Embedding("encodec", spec.sample_rate, window / spec.sample_rate, window, embed)


def load_onnx(name: str, path: Path) -> Embedding:
  """Returns a model of the user's, run by onnxruntime, as an embedding.

  Raises:
    UserError: if onnxruntime is missing, or the model or the JSON beside it cannot be used.
  """
  if not path.is_file():
    raise UserError(f"an embedding's model must be a file; got {path}, none. Check the path.")
  rate_hz, seconds = read_window(path.with_suffix(".json"))
  try:
    import onnxruntime

    states = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
  except ImportError as error:
    raise UserError(
      f"onnxruntime must be installed to run {path}; got none. Run `pip install onnxruntime`."
    ) from error
  try:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
  except (states.Fail, states.InvalidProtobuf, states.InvalidGraph, states.NoSuchFile) as error:
    raise UserError(
      f"an embedding must be a model that onnxruntime reads; got path={path} ({error})."
      " Export it again."
    ) from error
  inputs = session.get_inputs()
  if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(inputs[0].shape) not in (1, 2):
    found = ", ".join(f"{node.name} {node.type} {node.shape}" for node in inputs)
    raise UserError(
      f"an embedding's model must have one input, float32 of [samples] or [1, samples]; got"
      f" {found} in {path}. Export it with the waveform alone as its input."
    )
  window, lead = round(rate_hz * seconds), (1,) * (len(inputs[0].shape) - 1)

  def embed(samples: Samples) -> Embeddings:
    found = []
    for piece in samples[: len(samples) // window * window].reshape(-1, window):
      try:
        output = np.asarray(session.run(None, {inputs[0].name: piece.reshape(*lead, window)})[0])
      except (states.InvalidArgument, states.RuntimeException, states.Fail) as error:
        raise UserError(
          f"an embedding's model must take {window} samples; got path={path} ({error})."
          f" Correct {path.with_suffix('.json')}, or export the model again."
        ) from error
      if output.ndim not in (1, 2):
        raise UserError(
          f"an embedding's model must return [D] or [n, D] first; got shape={output.shape} from"
          f" {path}. Export it with the embeddings as its first output."
        )
      found.append(np.atleast_2d(output))
    return np.concatenate(found).astype(np.float32)

  return Embedding(name, rate_hz, seconds, window, embed)


def read_window(path: Path) -> tuple[int, float]:
  """Returns the sample rate in Hz and the seconds of a window, as a model's JSON file gives them.

  Raises:
    UserError: if the file is missing, or gives anything but two positive numbers.
  """
  try:
    fields = json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError) as error:
    raise UserError(
      f'{path} must be a JSON file like {{"rate_hz": 48000, "seconds": 10}}; got {error}.'
      " Write it beside the model."
    ) from error
  if isinstance(fields, dict) and fields.keys() == {"rate_hz", "seconds"}:
    rate_hz, seconds = fields["rate_hz"], fields["seconds"]
    whole = type(rate_hz) is int and rate_hz > 0
    if whole and type(seconds) in (int, float) and 1 / rate_hz <= seconds < math.inf:
      return rate_hz, float(seconds)
  raise UserError(
    f'{path} must give a positive whole "rate_hz" and positive "seconds", and no more; got'
    f' {json.dumps(fields)}. Write it like {{"rate_hz": 48000, "seconds": 10}}.'
  )


def in_batches(network: Callable, windows: Float[np.ndarray, "n _frames _bands"]) -> Embeddings:
  """Returns what a network makes of windows, AT_ONCE at a time: few shapes are compiled.

  The last batch is filled up to a power of two.
  """
  found = []
  for start in range(0, len(windows), AT_ONCE):
    batch = windows[start : start + AT_ONCE]
    size = 1 << (len(batch) - 1).bit_length()
    padded = np.pad(batch, ((0, size - len(batch)), (0, 0), (0, 0)))
    found.append(np.asarray(network(padded))[: len(batch)])
  return np.concatenate(found)
