# SPDX-License-Identifier: Apache-2.0
"""A published Vocos becomes a bundle's decoder: its numbers, and what is refused."""

import numpy as np
import pytest
import torch
from published_codecs import published
from torch.nn import functional

from data_prep import convert_codec
from data_prep.codecs.torch_codec import TorchCodec
from data_prep.codecs.vocos_format import CODEBOOKS
from stemgen_jax import codec as jax_codec
from stemgen_jax.errors import UserError, run_cli

pytestmark = pytest.mark.torch
DIM, LAYERS, BANDWIDTHS = 12, 2, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """EnCodec's 24 kHz and a Vocos of its codebooks, in the published layouts, of random weights."""
  torch.manual_seed(0)
  root = tmp_path_factory.mktemp("published")
  encodec = published("24khz")
  for level in encodec.quantizer.vq.layers:
    level._codebook.embed.normal_()
  torch.save(encodec.state_dict(), root / "encodec_24khz.th")
  books = torch.cat([level.codebook for level in encodec.quantizer.vq.layers[:16]])

  def norm(name):
    rows = {"scale": 1 + 0.3 * torch.randn(BANDWIDTHS, DIM), "shift": torch.randn(BANDWIDTHS, DIM)}
    return {f"{name}.{kind}.weight": value for kind, value in rows.items()}

  def layer(name, *shape):
    return {f"{name}.weight": 0.2 * torch.randn(*shape), f"{name}.bias": torch.randn(shape[0])}

  state = {CODEBOOKS: books, "head.istft.window": torch.hann_window(1280)}
  state |= layer("backbone.embed", DIM, 128, 7) | norm("backbone.norm")
  for i in range(LAYERS):
    at = f"backbone.convnext.{i}"
    state |= layer(f"{at}.dwconv", DIM, 1, 7) | norm(f"{at}.norm")
    state |= layer(f"{at}.pwconv1", 3 * DIM, DIM) | layer(f"{at}.pwconv2", DIM, 3 * DIM)
    state[f"{at}.gamma"] = torch.full((DIM,), 0.5)
  state |= layer("backbone.final_layer_norm", DIM) | layer("head.out", 1282, DIM)
  state["head.out.bias"] *= 0.1
  (root / "vocos").mkdir()
  torch.save(state, root / "vocos/pytorch_model.bin")
  (root / "vocos/README.md").write_text("---\nlicense: mit\n---\nA card.\n")
  return root


def convert(folder, out, levels=8, decoder="vocos/pytorch_model.bin"):
  source = folder / "encodec_24khz.th"
  return convert_codec.convert_codec(source, out, levels, "as published", folder / decoder)


def decode_as_published(state, codes, row):
  """The published forward pass, written out: x [1, dimension, T] to audio."""
  books = state[CODEBOOKS].reshape(-1, 1024, 128)
  x = sum(books[q][codes[..., q]] for q in range(codes.shape[-1])).transpose(1, 2)

  def norm(x, name):
    y = functional.layer_norm(x.transpose(1, 2), (DIM,), eps=1e-6)
    y = y * state[f"{name}.scale.weight"][row] + state[f"{name}.shift.weight"][row]
    return y.transpose(1, 2)

  def of(name):
    return state[f"{name}.weight"], state[f"{name}.bias"]

  x = norm(functional.conv1d(x, *of("backbone.embed"), padding=3), "backbone.norm")
  for i in range(LAYERS):
    at = f"backbone.convnext.{i}"
    y = norm(functional.conv1d(x, *of(f"{at}.dwconv"), padding=3, groups=DIM), f"{at}.norm")
    y = functional.gelu(functional.linear(y.transpose(1, 2), *of(f"{at}.pwconv1")))
    y = functional.linear(y, *of(f"{at}.pwconv2")) * state[f"{at}.gamma"]
    x = x + y.transpose(1, 2)
  y = functional.layer_norm(x.transpose(1, 2), (DIM,), *of("backbone.final_layer_norm"), eps=1e-6)
  magnitude, phase = functional.linear(y, *of("head.out")).transpose(1, 2).chunk(2, dim=1)
  spectrum = magnitude.exp().clip(max=100) * torch.exp(1j * phase)
  window = torch.hann_window(1280)
  frames = torch.fft.irfft(spectrum, 1280, dim=1) * window[None, :, None]
  length, sizes = (frames.shape[2] - 1) * 320 + 1280, {"kernel_size": (1, 1280), "stride": (1, 320)}
  total = functional.fold(frames, (1, length), **sizes)[:, 0, 0, 480:-480]
  squares = window.square().expand(1, frames.shape[2], -1).transpose(1, 2)
  return total / functional.fold(squares, (1, length), **sizes)[:, 0, 0, 480:-480]


@pytest.mark.parametrize(("levels", "row"), [(2, 0), (8, 2)])
def test_it_decodes_as_published_at_the_bandwidth_of_its_levels(folder, tmp_path, levels, row):
  bundle = convert(folder, tmp_path / "bundle", levels)
  assert bundle.decoder is not None
  assert (bundle.decoder.spec.n_fft, bundle.decoder.spec.hop_samples) == (1280, 320)
  assert bundle.decoder.spec.licence.startswith("mit")
  codes = np.random.default_rng(0).integers(0, 1024, (2, 33, levels)).astype(np.int32)
  state = torch.load(folder / "vocos/pytorch_model.bin")
  wanted = decode_as_published(state, torch.from_numpy(codes).long(), row).numpy()
  for codec in (jax_codec.load(tmp_path / "bundle"), TorchCodec(tmp_path / "bundle")):
    found = codec.decode(codes)[:, 0]
    np.testing.assert_allclose(found, wanted, atol=2e-2 * wanted.std())  # weights are float16


def test_the_tokens_stay_the_same_and_a_bundle_is_replaced(folder, tmp_path):
  plain = convert_codec.convert_codec(folder / "encodec_24khz.th", tmp_path / "a", 8, "x")
  other = convert_codec.convert_codec(
    folder / "encodec_24khz.th", tmp_path / "a", 8, "x", folder / "vocos/pytorch_model.bin"
  )
  assert other.fingerprint == plain.fingerprint
  assert plain.decoder is None
  assert convert(folder, tmp_path / "a").decoder is not None


def change(folder, tmp_path, edit, card=True):
  state = torch.load(folder / "vocos/pytorch_model.bin")
  edit(state)
  torch.save(state, tmp_path / "pytorch_model.bin")
  if card:
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
  return tmp_path / "pytorch_model.bin"


@pytest.mark.parametrize(
  ("edit", "levels", "message"),
  [
    (lambda s: s.pop("head.out.bias"), 8, "lacks head.out.bias"),
    (lambda s: s.pop("backbone.convnext.1.pwconv1.bias"), 8, "must be whole; .* without"),
    (lambda s: s[CODEBOOKS].mul_(1.1), 8, "trained on other codebooks"),
    (lambda s: None, 3, r"--levels must be one of \(2, 4, 8, 16\) with --decoder"),
  ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(
  folder, tmp_path, edit, levels, message
):
  path = change(folder, tmp_path, edit)
  with pytest.raises(UserError, match=message):
    convert(folder, tmp_path / "bundle", levels, path)
  assert not (tmp_path / "bundle").exists()


def test_mistakes_of_the_command_line_are_one_line(folder, tmp_path, capsys):
  words = ["--from", str(folder / "encodec_24khz.th"), "--licence", "x", "--levels", "8", "--out"]
  bare = change(folder, tmp_path, lambda state: None, card=False)
  for decoder, message in ((bare, "licence of the decoder"), (tmp_path / "none.bin", "--decoder")):
    flags = [*words, str(tmp_path / "bundle"), "--decoder", str(decoder)]
    assert run_cli(lambda flags=flags: convert_codec.main(flags)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
