# SPDX-License-Identifier: Apache-2.0
"""The bundle's files: whole in, whole out, and one clear line for each way they can be damaged."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from stemgen_jax.codec.architecture import CODEBOOK, CodecSpec, layers, tensor_shapes
from stemgen_jax.codec.bundle import SPEC_FILE, WEIGHTS_FILE, load_bundle, save_bundle
from stemgen_jax.errors import UserError

SMALL = CodecSpec(
  sample_rate=16_000,
  n_levels=3,
  n_codes=64,
  ratios=(5, 4, 2),
  dimension=16,
  n_filters=4,
  licence="none",
  source="a test",
)


def random_weights(spec):
  """Weights of any values."""
  rng = np.random.default_rng(0)
  return {k: rng.normal(size=v).astype(np.float32) for k, v in tensor_shapes(spec).items()}


def test_bundle_comes_back_as_it_was_saved(tmp_path):
  weights = random_weights(SMALL)
  save_bundle(tmp_path / "b", SMALL, weights)
  bundle = load_bundle(tmp_path / "b")
  assert bundle.spec == SMALL
  assert bundle.weights.keys() == weights.keys()
  for name, array in weights.items():
    np.testing.assert_array_equal(bundle.weights[name], array)
  weights[CODEBOOK.format(0)] += 1
  save_bundle(tmp_path / "b", SMALL, weights)  # replaces
  assert load_bundle(tmp_path / "b").fingerprint != bundle.fingerprint
  assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_half_precision_bundle_loads_as_float32(tmp_path):
  weights = random_weights(SMALL)
  save_bundle(tmp_path / "b", SMALL, weights, "float16")
  for name, array in load_bundle(tmp_path / "b").weights.items():
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, weights[name].astype(np.float16).astype(np.float32))


def test_unknown_side_is_refused():
  with pytest.raises(ValueError, match="encoder or decoder"):
    list(layers("both", SMALL))


class TestDamagedBundle:
  """Each fault is one line that names the file, and the tensor where there is one."""

  @pytest.fixture
  def bundle(self, tmp_path):
    save_bundle(tmp_path / "b", SMALL, random_weights(SMALL))
    return tmp_path / "b"

  def edit_spec(self, bundle, **fields):
    header = json.loads((bundle / SPEC_FILE).read_text())
    (bundle / SPEC_FILE).write_text(json.dumps(header | fields))

  def edit_weights(self, bundle, **arrays):
    weights = load_file(bundle / WEIGHTS_FILE) | arrays
    save_file({k: v for k, v in weights.items() if v is not None}, bundle / WEIGHTS_FILE)

  @pytest.mark.parametrize("name", [SPEC_FILE, WEIGHTS_FILE])
  def test_missing_file(self, bundle, name):
    (bundle / name).unlink()
    with pytest.raises(UserError, match=f"got no file .*{name}"):
      load_bundle(bundle)

  def test_missing_folder(self, tmp_path):
    with pytest.raises(UserError, match="must be a folder"):
      load_bundle(tmp_path / "nowhere")

  def test_weights_cut_short(self, bundle):
    path = bundle / WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match=f"whole safetensors file; got path=.*{WEIGHTS_FILE}"):
      load_bundle(bundle)

  @pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1, "ratios": [2]}', "\x00"])
  def test_description_is_not_one(self, bundle, text):
    (bundle / SPEC_FILE).write_text(text)
    with pytest.raises(UserError, match=f"must be JSON with the fields.*{SPEC_FILE}"):
      load_bundle(bundle)

  def test_newer_format(self, bundle):
    self.edit_spec(bundle, format=99)
    with pytest.raises(UserError, match="format=99"):
      load_bundle(bundle)

  @pytest.mark.parametrize(
    ("field", "value"),
    [
      ("n_codes", 100),
      ("channels", 3),
      ("n_levels", 0),
      ("sample_rate", 0),
      ("norm", "none"),
      ("ratios", []),
      ("segment_s", 0.0),
      ("overlap", 1.0),
      ("pad_mode", "wrap"),
      ("lstm", -1),
      ("n_residual_layers", -1),
    ],
  )
  def test_description_breaks_a_rule(self, bundle, field, value):
    self.edit_spec(bundle, **{field: value})
    with pytest.raises(UserError, match=f"not usable: {field} must"):
      load_bundle(bundle)

  @pytest.mark.parametrize(
    ("field", "value"), [("ratios", 5), ("ratios", None), ("n_codes", "many"), ("channels", [1])]
  )
  def test_description_has_a_value_of_another_kind(self, bundle, field, value):
    self.edit_spec(bundle, **{field: value})
    with pytest.raises(UserError, match=r"must be JSON with the fields|not usable: channels"):
      load_bundle(bundle)

  def test_tensor_missing(self, bundle):
    self.edit_weights(bundle, **{CODEBOOK.format(2): None})
    with pytest.raises(UserError, match=r"without quantizer\.vq\.layers\.2\._codebook\.embed"):
      load_bundle(bundle)

  def test_tensor_unknown(self, bundle):
    self.edit_weights(bundle, surplus=np.zeros(1, np.float32))
    with pytest.raises(UserError, match="with surplus"):
      load_bundle(bundle)

  def test_tensor_misshapen(self, bundle):
    self.edit_weights(bundle, **{CODEBOOK.format(1): np.zeros((64, 9), np.float32)})
    with pytest.raises(UserError, match=r"layers\.1\._codebook\.embed has shape \(64, 9\)"):
      load_bundle(bundle)

  def test_tensor_not_finite(self, bundle):
    self.edit_weights(bundle, **{CODEBOOK.format(1): np.full((64, 16), np.nan, np.float32)})
    with pytest.raises(UserError, match=r"NaN or infinity in quantizer\.vq\.layers\.1"):
      load_bundle(bundle)

  def test_nothing_is_saved_when_a_tensor_is_wrong(self, bundle, tmp_path):
    weights = load_bundle(bundle).weights
    shutil.rmtree(bundle)
    del weights[CODEBOOK.format(0)]
    with pytest.raises(UserError, match="without"):
      save_bundle(bundle, SMALL, weights)
    assert list(tmp_path.iterdir()) == []
