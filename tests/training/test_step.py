# SPDX-License-Identifier: Apache-2.0
import functools
from types import SimpleNamespace
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from configs import slakh
from stemgen_jax.config import MeshConfig
from stemgen_jax.errors import UserError
from stemgen_jax.model import losses
from stemgen_jax.model.network import Model, build
from stemgen_jax.model.sharding import AXES, batch_share, build_mesh, put_batch, tree_shardings
from stemgen_jax.training import step
from stemgen_jax.training.checkpoint import abstract_like
from stemgen_jax.training.optim import build_schedule, mark_decayed, update_average

B, T, Q, V = 8, 20, 4, 16


@pytest.fixture
def batch():
  rng = np.random.default_rng(0)
  return {
    "target": rng.integers(0, V, (B, T, Q)).astype(np.int32),
    "context": rng.integers(0, V, (B, T, Q)).astype(np.int32),
    "conditions": rng.integers(0, 3, (B, 1)).astype(np.int32),
  }


def fake_model(apply):
  """A model whose features are already the logits that are asked for."""
  return Model(dict, apply, None, lambda params, features, asked: features, None)


def run_steps(config, batch, mesh, steps=3):
  model = build(config.model, mesh)
  init = functools.partial(step.init_state, config, model)
  shardings = jax.tree.map(lambda s: s.sharding, abstract_like(jax.eval_shape(init), mesh))
  state = jax.jit(init, out_shardings=shardings)()
  step_fn = step.jit_train_step(config, model, shardings)
  seen = []
  for _ in range(steps):
    state, metrics = step_fn(state, put_batch(batch, mesh))
    seen.append(float(metrics["loss"]))
  return state, seen


SINGLE = {}


@pytest.mark.parametrize("axes", [(8, 1, 1), (1, 8, 1), (2, 2, 2), (4, 1, 2), (1, 4, 2)])
def test_any_mesh_gives_the_single_device_loss_and_parameters(tiny_config, batch, axes):
  config = tiny_config()
  if not SINGLE:
    alone = build_mesh(MeshConfig(), jax.devices()[:1])
    SINGLE["state"], SINGLE["losses"] = run_steps(config, batch, alone)
  data, fsdp, tensor = axes
  mesh = build_mesh(MeshConfig(data=data, fsdp=fsdp, tensor=tensor))
  state, seen = run_steps(config, batch, mesh)
  np.testing.assert_allclose(seen, SINGLE["losses"], rtol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-4),
    *(jax.device_get((s.params, s.average)) for s in (state, SINGLE["state"])),
  )
  if fsdp * tensor > 1:  # the table is in force: a device holds its share only
    qkv = state.params["blocks"]["qkv"]
    assert qkv.addressable_shards[0].data.size == qkv.size // (fsdp * tensor)


@pytest.mark.parametrize(("devices", "loss"), [(2, "level"), (1, "all_masked")])
def test_accumulated_parts_give_the_gradient_of_the_whole_batch(tiny_config, batch, loss, devices):
  config = tiny_config()
  config.masking.loss = loss
  mesh = build_mesh(MeshConfig(), jax.devices()[:devices])
  whole, seen = run_steps(config, batch, mesh)
  config.optim.accumulate = 2
  parts, again = run_steps(config, batch, mesh)
  np.testing.assert_allclose(seen, again, rtol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), whole.params, parts.params
  )


def test_levels_are_asked_as_often_as_told(tiny_config, batch):
  config = tiny_config()
  assert step.asked_levels(config) == (0, 1, 2, 3)
  config.masking.levels = (1, 3, 1, 2)
  model = build(config.model)
  rows = {name: jnp.asarray(array) for name, array in batch.items()}
  mask, keep = jnp.ones((B, T, Q), bool), jnp.ones((B, 2), bool)
  params = model.init(jax.random.key(0))
  _, metrics = step.masked_loss(config, model, params, rows, mask, keep, None)
  np.testing.assert_array_equal(metrics["level_count"], np.array([4, 2, 2, 0]) * T)


def test_parts_of_a_batch_ask_for_its_levels_in_order():
  level = step.spread_levels(tuple(range(Q)), 24)
  rows = step.split_batch({"level": level, "row": jnp.arange(24)}, 3, Q)
  np.testing.assert_array_equal(rows["level"], np.tile(np.arange(Q), (3, 2)))
  assert sorted(np.ravel(rows["row"])) == list(range(24))


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_step_that_is_not_finite_changes_only_the_step(tiny_config, batch, monkeypatch, where):
  config = tiny_config()
  mesh = build_mesh(MeshConfig(), jax.devices()[:1])
  nll = losses.token_nll

  @jax.custom_jvp
  def poison(x):
    return x

  poison.defjvp(lambda x, dx: (x[0], dx[0] * jnp.nan))
  broken = {"loss": lambda *a: nll(*a) * jnp.inf, "gradient": lambda *a: poison(nll(*a))}[where]
  before, _ = run_steps(config, batch, mesh, steps=2)
  good = jax.device_get(before)
  monkeypatch.setattr(losses, "token_nll", broken)
  model = build(config.model, mesh)
  shardings = jax.tree.map(lambda x: x.sharding, before)
  after, metrics = step.jit_train_step(config, model, shardings)(before, put_batch(batch, mesh))
  assert metrics["skipped"] == 1
  assert int(after.step) == 3
  jax.tree.map(
    np.testing.assert_array_equal, *(jax.device_get(s.replace(step=0)) for s in (after, good))
  )
  monkeypatch.undo()
  after, metrics = step.jit_train_step(config, model, shardings)(after, put_batch(batch, mesh))
  assert metrics["skipped"] == 0
  assert np.isfinite(metrics["loss"])


@pytest.mark.parametrize("loss", ["level", "all_masked"])
def test_loss_falls_when_it_sees_one_batch_again(tiny_config, batch, loss):
  config = tiny_config()
  config.masking.loss = loss
  config.optim.learning_rate = 1e-2
  _, seen = run_steps(config, batch, build_mesh(MeshConfig(), jax.devices()[:1]), steps=6)
  assert abs(seen[0] - np.log(V)) < 0.3  # a new model is near uniform
  assert seen[-1] < seen[0] - 0.1


def test_loss_counts_the_hidden_tokens_of_the_asked_level(tiny_config, batch):
  """A model that is unsure of one hidden token only pays just for that one."""
  config = tiny_config()
  target = jnp.asarray(batch["target"])
  level = step.spread_levels(tuple(range(Q)), B)
  mask = jnp.zeros((B, T, Q), bool).at[:, :10, :].set(True)
  sure = 40.0 * jax.nn.one_hot(step.take_level(target, level), V)
  wrong = sure.at[0, 3].set(0.0).at[1, 15].set(0.0)  # the second is not hidden: it is free

  keep = jnp.ones((B, 2), bool)
  batch = {name: jnp.asarray(rows) for name, rows in batch.items()}
  loss, metrics = step.masked_loss(
    config, fake_model(lambda *_: wrong), {}, batch, mask, keep, None
  )
  np.testing.assert_allclose(loss, np.log(V) / (B * 10), rtol=1e-4)
  np.testing.assert_allclose(metrics["level_nll"], [np.log(V), 0, 0, 0], atol=1e-4)
  np.testing.assert_array_equal(metrics["level_count"], [20.0] * Q)
  assert metrics["bin_count"].sum() == 80
  np.testing.assert_array_equal(metrics["bin_count"], [0, 0, 80, 0, 0])  # half hidden: (0.4, 0.6]
  assert metrics["bin_hits"].sum() >= 79


def test_hidden_tokens_never_reach_the_model(tiny_config, batch):
  config = tiny_config()
  seen = {}

  def spy(params, hidden, *_):
    seen["hidden"] = hidden
    return jnp.zeros((B, T, V))

  mask = jax.random.bernoulli(jax.random.key(0), 0.5, (B, T, Q))
  batch = {name: jnp.asarray(rows) for name, rows in batch.items()}
  keep = jnp.ones((B, 2), bool)
  step.masked_loss(config, fake_model(spy), {}, batch, mask, keep, None)
  np.testing.assert_array_equal(seen["hidden"], jnp.where(mask, V, batch["target"]))


def test_sources_are_dropped_each_at_its_own_rate(tiny_config):
  config = tiny_config(sources={"instrument": ("bass",), "genre": ("rock",)})
  config.masking.context_dropout, config.masking.condition_dropout = 0.3, 0.1
  keep = np.asarray(step.draw_keep(jax.random.key(0), (20_000, 2), config))
  np.testing.assert_allclose(1 - keep.mean(axis=0), [0.3, 0.1, 0.1], atol=0.01)
  both = (~keep[:, 0] & ~keep[:, 1]).mean()
  assert abs(both - 0.03) < 0.005  # drawn independently


@pytest.mark.parametrize(
  ("mode", "branches"),
  [("independent", [(0, 0), (0, 1), (1, 0)]), ("nested", [(0, 0), (0, 1)]), ("joint", [])],
)
def test_a_share_hears_just_what_a_branch_of_the_guidance_hears(tiny_config, mode, branches):
  config = tiny_config()
  config.masking.context_dropout = config.masking.condition_dropout = 0.0
  config.masking.branch_share = 0.3
  config.sample.guidance_mode = mode
  config.sample.guidance = {"context": 3.0, "instrument": 3.0}
  keep = np.asarray(step.draw_keep(jax.random.key(0), (20_000, 1), config)).astype(int)
  rows, counts = np.unique(keep, axis=0, return_counts=True)
  assert {tuple(row) for row in rows} == {*branches, (1, 1)}
  np.testing.assert_allclose(counts[:-1] / len(keep), 0.3 / max(1, len(branches)), atol=0.01)


def test_a_source_that_is_not_guided_is_dropped_alone_in_every_branch(tiny_config):
  config = tiny_config(sources={"instrument": ("bass",), "activity": ("busy",)})
  config.masking.context_dropout, config.masking.condition_dropout = 0.0, 0.2
  config.masking.branch_share = 0.5
  config.sample.guidance_mode = "nested"
  config.sample.guidance = {"context": 3.0, "instrument": 3.0}
  keep = np.asarray(step.draw_keep(jax.random.key(0), (20_000, 2), config))
  for heard in (True, False):
    assert abs(keep[keep[:, 0] == heard][:, 2].mean() - 0.8) < 0.02


def test_token_nll_is_minus_log_softmax():
  logits = np.random.default_rng(0).normal(size=(5, V)).astype(np.float32)
  codes = np.arange(5)
  want = [np.log(np.exp(row).sum()) - row[c] for row, c in zip(logits, codes, strict=True)]
  np.testing.assert_allclose(
    losses.token_nll(jnp.asarray(logits), jnp.asarray(codes)), want, atol=1e-5
  )


@pytest.mark.parametrize("width", [8, 32, 48])
def test_embeddings_that_start_from_codebooks_keep_their_distances(tiny_config, width):
  rng = np.random.default_rng(0)
  codebooks = (rng.normal(size=(Q, V, width)) * np.array([4, 2, 1, 1])[:, None, None]).astype("f")
  config = tiny_config(dim=64)  # 32 a channel
  model = build(config.model)
  plain = step.init_state(config, model).params
  warm = step.init_state(config, model, codebooks).params
  np.testing.assert_array_equal(warm["codebooks"][:, V], plain["codebooks"][:, V])  # MASK
  total = np.square(np.asarray(warm["codebooks"])[:, :V]).mean(axis=(1, 2)).sum()
  assert 0.6 < total < 1.5  # as the random start: the sum over levels has unit variance

  def distances(rows):
    return np.linalg.norm(rows[:, None] - rows[None], axis=-1)[np.triu_indices(V, 1)]

  like = [
    np.corrcoef(distances(codebooks[0]), distances(np.asarray(p["codebooks"])[0, :V]))[0, 1]
    for p in (plain, warm)
  ]
  assert like[1] > max(0.7, like[0] + 0.3)


def test_schedule_warms_up_then_falls_to_its_final_share(tiny_config):
  config = tiny_config().optim
  rate = build_schedule(config)
  assert rate(0) == 0
  np.testing.assert_allclose(rate(config.warmup_steps), config.learning_rate)
  np.testing.assert_allclose(rate(config.steps), 0.1 * config.learning_rate, rtol=1e-5)


def test_the_paper_holds_the_peak_and_decays_exponentially():
  config = slakh.get_config().optim
  rate = build_schedule(config)
  np.testing.assert_allclose(rate(5000), 2.5e-4, rtol=1e-6)
  np.testing.assert_allclose([rate(10_000), rate(35_000), rate(60_000)], 5e-4, rtol=1e-6)
  np.testing.assert_allclose(rate(60_000 + 150_000), 5e-5, rtol=1e-4)  # halfway to a hundredth
  np.testing.assert_allclose([rate(360_000), rate(400_000)], 5e-6, rtol=1e-4)


def test_only_matrices_decay(tiny_config):
  shapes = jax.eval_shape(build(tiny_config().model).init, jax.random.key(0))
  marks = mark_decayed(shapes)
  assert all(marks["blocks"][name] for name in ("qkv", "out", "gate_up", "down"))
  assert marks["heads"]
  assert not any(jax.tree.leaves([marks["codebooks"], marks["norm"], marks["conditions"]]))
  assert not marks["blocks"]["attention_norm"]


def test_average_follows_early_and_slows_down():
  one, zero = {"x": jnp.ones(1)}, {"x": jnp.zeros(1)}
  np.testing.assert_allclose(update_average(one, zero, 0.99, jnp.int32(0))["x"], 0.1)
  np.testing.assert_allclose(update_average(one, zero, 0.99, jnp.int32(10**6))["x"], 0.99)


def test_mesh_and_table_refuse_what_does_not_fit():
  with pytest.raises(UserError, match=r"must multiply to the number of devices, 8; got .*3"):
    build_mesh(MeshConfig(data=3))
  mesh = build_mesh(MeshConfig(data=1, tensor=8))
  with pytest.raises(ValueError, match=r"blocks/unheard_of"):
    tree_shardings({"blocks": {"unheard_of": jnp.zeros((2, 2))}}, mesh)
  with pytest.raises(ValueError, match=r"blocks/qkv must have rank 5"):
    tree_shardings({"blocks": {"qkv": jnp.zeros((2, 2))}}, mesh)
  with pytest.raises(UserError, match=r"'tensor' must divide .*heads of shape \(4, 8, 12\)"):
    tree_shardings({"heads": jnp.zeros((4, 8, 12))}, mesh)


def mesh_of(processes, shape):
  """A stand-in for a mesh whose devices belong to those processes, in order."""
  devices = np.array([SimpleNamespace(process_index=p) for p in processes]).reshape(shape)
  return Mock(spec=Mesh, devices=devices, shape=dict(zip(AXES, shape, strict=True)))


@pytest.mark.parametrize(
  ("processes", "shape", "shares"),
  [
    ([0, 0, 1, 1], (4, 1, 1), [(0, 2), (1, 2)]),
    ([0, 1, 2, 3], (1, 2, 2), [(0, 2), (0, 2), (1, 2), (1, 2)]),
    ([0, 1, 0, 1], (2, 2, 1), [(0, 2), (1, 2)]),  # as the chips of hosts lie on a torus
    ([0, 0, 1, 1], (1, 1, 4), [(0, 1), (0, 1)]),
  ],
)
def test_processes_feed_the_rows_of_their_devices(processes, shape, shares, monkeypatch):
  mesh = mesh_of(processes, shape)
  for process, share in enumerate(shares):
    monkeypatch.setattr(jax, "process_index", lambda process=process: process)
    assert batch_share(mesh) == share


def test_shares_that_overlap_in_part_are_refused():
  with pytest.raises(UserError, match=r"equal shares.*'tensor': 3.*divide the devices"):
    batch_share(mesh_of([0, 0, 1, 1, 2, 2], (2, 1, 3)))
