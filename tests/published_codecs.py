# SPDX-License-Identifier: Apache-2.0
"""Codec files as their publishers lay them out, with other weights: for the converter's tests."""

import re
import warnings

import numpy as np
import pytest
import torch

from data_prep.codecs.torch_codec import EncodecModel, build_model
from stemgen_jax.codec.architecture import CodecSpec

SMALL = CodecSpec(
  sample_rate=16_000, n_levels=4, n_codes=64, ratios=(5, 4, 2), dimension=16, n_filters=4,
  true_skip=True, causal=False, pad_mode="constant", licence="", source="",
)  # fmt: skip
AUDIOCRAFT = """
sample_rate: 32000
channels: 1
device: cuda
data: {train: "${oc.env:MUSIC}"}
compression_model: encodec
encodec:
  {autoencoder: seanet, quantizer: rvq, sample_rate: "${sample_rate}", channels: "${channels}",
   causal: false, renormalize: false}
seanet:
  dimension: 128
  channels: ${channels}
  causal: ${encodec.causal}
  n_filters: 64
  n_residual_layers: 1
  ratios: [8, 5, 4, 4]
  activation: ELU
  activation_params: {alpha: 1.0}
  norm: weight_norm
  norm_params: {}
  kernel_size: 7
  residual_kernel_size: 3
  last_kernel_size: 7
  dilation_base: 2
  pad_mode: constant
  true_skip: true
  compress: 2
  lstm: 2
  disable_norm_outer_blocks: 0
  decoder: {trim_right_ratio: 1.0, final_activation: null, final_activation_params: null}
  encoder: {}
rvq: {n_q: 4, q_dropout: false, bins: 2048, decay: 0.99, kmeans_init: true, kmeans_iters: 50,
      threshold_ema_dead_code: 2, orthogonal_reg_weight: 0.0}
"""


def sound(channels, samples):
  """Bursts of noise, no two alike, [1, channels, samples]."""
  rng = np.random.default_rng(0)
  envelope = np.repeat(rng.uniform(0.02, 1, -(-samples // 500)), 500)[:samples]
  return (rng.normal(size=(1, channels, samples)) * envelope / 4).astype(np.float32)


@torch.inference_mode()
def fill(codebooks, latents):
  """Fills the codebooks with what the levels before them leave of real latents, [D, frames]."""
  rng = np.random.default_rng(0)
  residual = latents.T
  for book in codebooks:
    rows = residual[rng.integers(len(residual), size=len(book))]
    noise = rows.std(0) * torch.from_numpy(rng.normal(size=rows.shape))
    book.copy_(residual.mean(0) + (rows - residual.mean(0)) / 2 + 0.1 * noise)
    residual = residual - book[torch.cdist(residual, book).argmin(1)]


def fill_package(model, audio):
  """Fills the codebooks of a model of the encodec package."""
  books = [layer._codebook for layer in model.quantizer.vq.layers]
  with torch.inference_mode():
    fill([book.embed for book in books], model.encoder(torch.from_numpy(audio))[0])
  for book in books:
    book.inited.fill_(1)
  return model.eval()


def published(name, audio=None):
  """Returns encodec_24khz or encodec_48khz with other weights; no codes without audio."""
  torch.manual_seed(0)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    model = getattr(EncodecModel, f"encodec_model_{name}")(pretrained=False)
  return model if audio is None else fill_package(model, audio)


SMALLER = (
  (r"ratios: .*", "ratios: [5, 4, 2]"),
  (r"dimension: 128", "dimension: 16"),
  (r"n_filters: 64", "n_filters: 4"),
  (r"bins: 2048", "bins: 64"),
)


def edit(*changes, text=AUDIOCRAFT):
  """Returns the config with patterns replaced, each of which must be there."""
  for pattern, replacement in changes:
    text, count = re.subn(pattern, replacement, text)
    assert count, pattern
  return text


def export(path, spec, text, nested=False):
  """Writes what audiocraft exports, and returns the model; its names are the encodec package's."""
  torch.manual_seed(0)
  model = fill_package(build_model(spec), sound(spec.channels, 8000))
  state = {"model": model.state_dict()} if nested else model.state_dict()
  torch.save({"best_state": state, "xp.cfg": text, "version": "1.3.0", "exported": True}, path)
  return model


SIZES = {
  "hidden_size": 16,
  "codebook_dim": 16,
  "num_filters": 4,
  "codebook_size": 64,
  "upsampling_ratios": [5, 4, 2],
}
KINDS = {  # what the published folders set; bandwidths for four levels of the small sizes
  "24khz": {"target_bandwidths": [7.2, 14.4]},
  "32khz": {
    "sampling_rate": 32_000,
    "use_causal_conv": False,
    "use_conv_shortcut": False,
    "target_bandwidths": [19.4],
  },
  "48khz": {
    "sampling_rate": 48_000,
    "audio_channels": 2,
    "normalize": True,
    "chunk_length_s": 1.0,
    "overlap": 0.01,
    "norm_type": "time_group_norm",
    "use_causal_conv": False,
    "target_bandwidths": [28.8],
  },
}


FULL_SIZES = {
  "24khz": {"target_bandwidths": [1.5, 3.0, 6.0, 12.0, 24.0]},
  "32khz": {
    "num_filters": 64,
    "codebook_size": 2048,
    "upsampling_ratios": [8, 5, 4, 4],
    "target_bandwidths": [2.2],
  },
  "48khz": {"target_bandwidths": [3.0, 6.0, 12.0, 24.0]},
}


def huggingface(folder, kind, sizes=SIZES, **options):
  """Writes a folder by `save_pretrained`, and returns its model."""
  transformers = pytest.importorskip("transformers", reason="it writes the folders")
  transformers.utils.logging.disable_progress_bar()
  torch.manual_seed(0)
  model = transformers.EncodecModel(transformers.EncodecConfig(**{**KINDS[kind], **sizes})).eval()
  with torch.inference_mode():
    latents = model.encoder(torch.from_numpy(sound(model.config.audio_channels, 8000)))
  fill([layer.codebook.embed for layer in model.quantizer.layers], latents[0])
  model.save_pretrained(folder, **options)
  return model
