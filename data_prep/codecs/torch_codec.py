# SPDX-License-Identifier: Apache-2.0
"""The codec in PyTorch: a bundle run through the `encodec` package's own modules.

A bundle's decoder of the Vocos kind, if it has one, is run by `torch_vocos`.

The only file that imports `encodec`. That package imports torchaudio, which its model never calls
and which is not to be had for every build of torch: while it loads, an empty module stands in.
"""

import importlib
import os
import sys
import types
import warnings

import numpy as np
import torch
from jaxtyping import Float, Int

from data_prep.codecs.torch_vocos import build_vocos
from stemgen_jax.codec.architecture import CodecSpec
from stemgen_jax.codec.bundle import load_bundle
from stemgen_jax.codec.segments import DEFAULT_SCALE, cut_audio, measure_scale, overlap_add

try:
  importlib.import_module("torchaudio")
except (ImportError, OSError):  # absent, or built for another torch
  sys.modules["torchaudio"] = types.ModuleType("torchaudio")
  importlib.import_module("encodec")
  del sys.modules["torchaudio"]  # others ask whether it is there

from encodec.model import EncodecModel
from encodec.modules import conv
from encodec.modules.seanet import SEANetDecoder, SEANetEncoder
from encodec.quantization.vq import ResidualVectorQuantizer

TRAINING_ONLY = ("inited", "cluster_size", "embed_avg")  # codebook buffers left out of a bundle


class TorchCodec:
  """A bundle's codec, in inference mode: NumPy in, NumPy out."""

  def __init__(self, bundle: str | os.PathLike, device: str = "cpu"):
    loaded = load_bundle(bundle)
    self.spec, self.fingerprint, self._device = loaded.spec, loaded.fingerprint, device
    self._model = build_model(loaded.spec)
    load_weights(self._model, loaded.weights)
    self._model.eval().to(device)
    own = loaded.decoder
    self._vocos = build_vocos(own.spec, own.weights).eval().to(device) if own else None
    self.decoded_rate_hz = own.spec.sample_rate if own else loaded.spec.sample_rate

  @torch.inference_mode()
  def encode(self, audio: Float[np.ndarray, "B channels samples"]) -> Int[np.ndarray, "B T Q"]:
    """Returns the int32 codes of audio at the codec's rate, T = spec.frames(samples).

    What does not fit the device's memory at once is encoded by halves.
    """
    try:
      segments = self._model.encode(torch.from_numpy(audio).to(self._device, torch.float32))
      codes = torch.cat([codes for codes, _ in segments], dim=2)
      return codes.transpose(1, 2).to("cpu", torch.int32).numpy()
    except torch.OutOfMemoryError:
      if len(audio) == 1:
        raise
    return np.concatenate([self.encode(half) for half in np.array_split(audio, 2)])

  def scales(
    self, audio: Float[np.ndarray, "B channels samples"]
  ) -> Float[np.ndarray, "B segments"] | None:
    """Returns the RMS of each segment of audio; None if the codec does not normalise."""
    if not self.spec.normalize:
      return None
    pieces = cut_audio(self.spec, [audio])
    return np.stack([measure_scale(piece) for piece in pieces], axis=1)

  @torch.inference_mode()
  def decode(
    self,
    codes: Int[np.ndarray, "B T levels"],
    scales: Float[np.ndarray, "B segments"] | None = None,
  ) -> Float[np.ndarray, "B channels samples"]:
    """Returns float32 audio at decoded_rate_hz: T frames, or with segments as long as they reach.

    `scales` are those of `scales`; a normalising codec without them decodes at DEFAULT_SCALE.
    """
    indices = torch.from_numpy(codes).to(self._device, torch.int64).transpose(1, 2)
    if self._vocos is not None:
      vectors = self._model.quantizer.decode(indices.transpose(0, 1))
      return self._vocos(vectors)[:, None].cpu().numpy()
    if self.spec.segment_s is None:
      return self._model.decode([(indices, None)]).cpu().numpy()
    parts = indices.split(self.spec.segment_counts(indices.shape[2]), dim=2)
    audio = []
    for i, part in enumerate(parts):
      scale = None
      if self.spec.normalize:
        given = np.full((len(codes), 1), DEFAULT_SCALE) if scales is None else scales[:, i : i + 1]
        scale = torch.from_numpy(given).to(self._device, torch.float32)
      audio.append(self._model._decode_frame((part, scale)).cpu().numpy())
    # encodec's own overlap-add fails where the last segment is shorter than what it overlaps.
    return np.concatenate(list(overlap_add(self.spec, audio)), axis=-1)


def build_model(spec: CodecSpec) -> EncodecModel:
  """Returns a freshly initialised EncodecModel of the architecture."""
  common = {
    "channels": spec.channels,
    "dimension": spec.dimension,
    "n_filters": spec.n_filters,
    "n_residual_layers": spec.n_residual_layers,
    "ratios": list(spec.ratios),
    "norm": spec.norm,
    "kernel_size": spec.kernel_size,
    "last_kernel_size": spec.last_kernel_size,
    "residual_kernel_size": spec.residual_kernel_size,
    "dilation_base": spec.dilation_base,
    "causal": spec.causal,
    "pad_mode": spec.pad_mode,
    "true_skip": spec.true_skip,
    "compress": spec.compress,
    "lstm": spec.lstm,
  }
  with warnings.catch_warnings():  # torch deprecates the weight_norm that encodec is built on
    warnings.simplefilter("ignore", FutureWarning)
    return EncodecModel(
      SEANetEncoder(**common),
      SEANetDecoder(**common),
      ResidualVectorQuantizer(dimension=spec.dimension, n_q=spec.n_levels, bins=spec.n_codes),
      target_bandwidths=[],  # every level is always used
      sample_rate=spec.sample_rate,
      channels=spec.channels,
      normalize=spec.normalize,
      segment=spec.segment_s,
      overlap=spec.overlap,
    )


def load_weights(model: EncodecModel, weights: dict[str, np.ndarray]) -> None:
  """Puts a bundle's tensors into the model; its codebooks then count as trained."""
  state = {name: torch.from_numpy(array) for name, array in weights.items()}
  for name, value in model.state_dict().items():
    if name.endswith(TRAINING_ONLY):
      codebook = state[name.rpartition(".")[0] + ".embed"]
      state[name] = codebook.clone() if name.endswith("embed_avg") else torch.ones_like(value)
  model.load_state_dict(state)


def read_weights(model: EncodecModel) -> dict[str, np.ndarray]:
  """Returns the model's tensors as a bundle stores them."""
  state = model.state_dict()
  return {k: v.float().cpu().numpy() for k, v in state.items() if not k.endswith(TRAINING_ONLY)}


def pad_by_joining() -> None:
  """Makes encodec pad by concatenation from now on: same numbers, training runs twice as fast.

  Torch's own reflection padding falls back to float32 under autocast and is slow on CPU; it took
  half of a training step (16 filters, bfloat16, one Zen 4 core).
  """
  conv.pad1d = _pad1d


def _pad1d(x: torch.Tensor, paddings: tuple[int, int], mode: str = "zero", value: float = 0.0):
  left, right = paddings
  if mode != "reflect" or x.shape[-1] <= max(left, right):
    return _slow_pad1d(x, paddings, mode, value)
  parts = [x[..., 1 : left + 1].flip(-1)] if left else []
  parts += [x, x[..., -right - 1 : -1].flip(-1)] if right else [x]
  return torch.cat(parts, dim=-1) if len(parts) > 1 else x


_slow_pad1d = conv.pad1d
