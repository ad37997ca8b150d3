# SPDX-License-Identifier: Apache-2.0
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import demo, mingus, slakh, slakh_pod
from stemgen_jax.model import arithmetic, sharding
from stemgen_jax.model.network import _drop, build, rotary_angles, rotate

B, T, Q, V = 8, 20, 4, 16
EVERY = tuple(range(Q))


@pytest.fixture
def inputs():
  keys = jax.random.split(jax.random.key(5), 2)
  return {
    "target": jax.random.randint(keys[0], (B, T, Q), 0, V + 1),
    "context": jax.random.randint(keys[1], (B, T, Q), 0, V),
    "conditions": jnp.arange(B)[:, None] % 3,
    "keep": jnp.ones((B, 2), bool),
  }


@pytest.fixture
def tiny(tiny_config):
  model = build(tiny_config().model)
  return model, model.init(jax.random.key(0))


def count_parameters(config):
  shapes = jax.eval_shape(build(config.model).init, jax.random.key(0))
  return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def test_published_sizes():
  config = slakh.get_config()
  assert 240e6 < count_parameters(config) < 265e6
  model, data = config.model, config.data
  assert (model.n_levels, model.n_codes, model.dim, model.n_heads) == (4, 2048, 1024, 16)
  assert data.crop_frames == 1000  # 20 s at 50 Hz
  assert count_parameters(demo.get_config()) < 8e6
  assert set(mingus.get_config().model.sources) == {"genre", "role"}


@pytest.mark.parametrize("config", [slakh, slakh_pod, mingus, demo])
def test_full_size_shapes(config):
  config = config.get_config()
  config.validate()
  model, size = build(config.model), config.model
  params = jax.eval_shape(model.init, jax.random.key(0))
  codes = jax.ShapeDtypeStruct((size.n_levels, config.data.crop_frames, size.n_levels), jnp.int32)
  conditions = jax.ShapeDtypeStruct((size.n_levels, len(size.sources)), jnp.int32)
  keep = jax.ShapeDtypeStruct((size.n_levels, 1 + len(size.sources)), bool)
  logits = jax.eval_shape(
    lambda p, t, c, n, k: model.read_asked(p, model.apply(p, t, c, n, k), EVERY),
    *(params, codes, codes, conditions, keep),
  )
  assert logits.shape == (size.n_levels, config.data.crop_frames, size.n_codes)
  assert logits.dtype == jnp.float32


def test_logits_of_asked_levels_and_of_one_level_are_slices_of_all(tiny, inputs):
  model, params = tiny
  features = model.apply(params, *inputs.values())
  everything = model.read_all(params, features)
  strided = model.read_asked(params, features, EVERY)
  for b in range(B):
    np.testing.assert_allclose(strided[b], everything[b, :, b % Q], atol=1e-5)
  uneven = model.read_asked(params, features, (0, 2, 0, 1))
  for b in range(B):
    np.testing.assert_allclose(uneven[b], everything[b, :, (0, 2, 0, 1)[b % 4]], atol=1e-5)
  for q in range(Q):
    one = model.read_level(params, features, jnp.int32(q))
    np.testing.assert_allclose(one, everything[:, :, q], atol=1e-5)


def test_a_dropped_source_is_not_heard_and_a_kept_one_is(tiny, inputs):
  model, params = tiny

  def run(keep, **changes):
    return model.apply(params, *(inputs | {"keep": keep} | changes).values())

  other = {"context": (inputs["context"] + 1) % V}
  kind = {"conditions": (inputs["conditions"] + 1) % 3}
  everything, nothing = jnp.ones((B, 2), bool), jnp.zeros((B, 2), bool)
  np.testing.assert_array_equal(run(nothing), run(nothing, **other, **kind))
  assert (run(everything) != run(everything, **other)).any()
  assert (run(everything) != run(everything, **kind)).any()
  unknown = {"conditions": jnp.full((B, 1), -1)}
  context_only = everything.at[:, 1].set(False)
  np.testing.assert_array_equal(run(everything, **unknown), run(context_only))


def test_attention_looks_both_ways(tiny, inputs):
  model, params = tiny
  features = model.apply(params, *inputs.values())
  late = inputs["context"].at[:, -1].add(1) % V
  changed = model.apply(params, *(inputs | {"context": late}).values())
  assert (features[:, 0] != changed[:, 0]).any()
  early = inputs["context"].at[:, 0].add(1) % V
  changed = model.apply(params, *(inputs | {"context": early}).values())
  assert (features[:, -1] != changed[:, -1]).any()


def test_dropout_keeps_the_mean():
  dropped = np.asarray(_drop(jnp.ones((4, 100, 50)), 0.25, jax.random.key(0)))
  np.testing.assert_allclose(np.unique(dropped), [0.0, 1 / 0.75], rtol=1e-6)
  assert abs(dropped.mean() - 1) < 0.02


def test_rotation_depends_on_the_distance_alone():
  cos, sin = rotary_angles(12, 8)
  q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 8))
  q, k = (rotate(jnp.broadcast_to(x, (1, 1, 12, 8)), cos, sin)[0, 0] for x in (q, k))
  scores = q @ k.T
  for distance in range(-3, 4):
    diagonal = jnp.diagonal(scores, distance)
    np.testing.assert_allclose(diagonal, diagonal[0] + jnp.zeros_like(diagonal), atol=1e-5)
  assert abs(scores[0, 0] - scores[0, 3]) > 1e-3


@pytest.mark.parametrize(
  "loop", [{"remat": "attention"}, {"remat": "matmuls"}, {"remat": "none"}, {"unroll": 2}]
)
def test_remat_and_unrolling_change_no_gradient(tiny_config, inputs, loop):
  def gradient(**loop):
    model = build(tiny_config(**loop).model)
    return jax.grad(lambda p: model.apply(p, *inputs.values()).std())(model.init(jax.random.key(0)))

  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), gradient(), gradient(**loop)
  )


def test_bfloat16_is_near_float32(tiny, tiny_config, inputs):
  model, params = tiny
  exact = model.apply(params, *inputs.values())
  low = build(tiny_config(compute_dtype="bfloat16").model)
  rough = low.apply(params, *inputs.values())
  assert rough.dtype == jnp.float32
  assert 0 < jnp.abs(rough - exact).max() < 0.05 * jnp.abs(exact).max()


def test_dropout_needs_a_key_and_follows_it(tiny_config, inputs):
  model = build(tiny_config(dropout=0.5).model)
  params = model.init(jax.random.key(0))
  plain = model.apply(params, *inputs.values())
  one = model.apply(params, *inputs.values(), jax.random.key(1))
  np.testing.assert_array_equal(one, model.apply(params, *inputs.values(), jax.random.key(1)))
  assert (one != plain).any()


def test_parameters_of_another_model_are_refused(tiny, inputs):
  model, params = tiny
  with pytest.raises(ValueError, match="params must hold"):
    model.apply({**params, "extra": jnp.zeros(1)}, *inputs.values())


def test_config_is_a_plain_dataclass():
  assert dataclasses.asdict(slakh.get_config())["model"]["n_layers"] == 20


@pytest.mark.parametrize(
  ("platform", "flags", "dtype"),
  [
    ("gpu", "", "bfloat16"),
    ("cpu", "flags : avx512f amx_bf16 amx_tile", "bfloat16"),
    ("cpu", "flags : avx512f avx512_bf16", "bfloat16"),
    ("cpu", "flags : avx512f avx512_vnni", "float32"),
    ("cpu", None, "float32"),
  ],
)
def test_a_model_samples_in_the_fastest_numbers_with_weights_cast_once(
  tiny, tiny_config, tmp_path, monkeypatch, platform, flags, dtype
):
  monkeypatch.setattr(arithmetic, "_CPU_FLAGS", tmp_path / "cpuinfo")
  monkeypatch.setattr(arithmetic, "_multiplies_short", arithmetic._multiplies_short.__wrapped__)
  if flags is not None:
    (tmp_path / "cpuinfo").write_text(flags)
  config, params = tiny_config(compute_dtype="bfloat16").model, tiny[1]
  model, cast = sharding.suit_platform(config, params, platform)
  assert model.compute_dtype == dtype
  assert {leaf.dtype.name for leaf in jax.tree.leaves(cast["blocks"])} == {dtype}
  assert cast["heads"] is params["heads"]  # logits stay float32


def test_the_compiler_knows_the_options_for_several_gpus():
  known = jax.jit(lambda x: 2 * x, compiler_options=sharding.GPU_OPTIONS)
  assert known(jnp.ones(1)) == 2
  with pytest.raises(Exception, match="No such compile option"):
    jax.jit(lambda x: 2 * x, compiler_options={"xla_gpu_no_such": "true"})(jnp.ones(1))
