# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stemgen_jax.model.decode import DecodeOptions, decode
from stemgen_jax.model.draw import draw_tokens, keep_nucleus
from stemgen_jax.model.masking import count_left_masked

B, T, Q, V = 3, 40, 3, 17
STEPS = jnp.array([12, 6, 1])


def options(**changes):
  settings = {
    "steps": STEPS,
    "w_c": 1.0,
    "w_s": 0.5,
    "w_r": 0.5,
    "temperature": 1.0,
    "fine_temperature": 1.0,
    "top_p": 1.0,
  }
  return DecodeOptions(**(settings | changes))


def keys(seed=0, batch=B):
  return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.arange(batch))


def truth():
  return jax.random.randint(jax.random.key(7), (B, T, Q), 0, V)


def oracle(answer):
  def network(tokens, level):
    return 60.0 * jax.nn.one_hot(jnp.take(answer, level, axis=2), V)

  return network


def record(answer, seen, level_law=None):
  """An oracle that also reports (level, tokens) of every call to the host."""

  def network(tokens, level):
    jax.debug.callback(lambda t, q: seen.append((int(q), np.array(t))), tokens, level, ordered=True)
    return (level_law or oracle(answer))(tokens, level)

  return network


@pytest.mark.parametrize(
  "changes",
  [
    {},
    {"w_s": 0.0},
    {"noise": "gumbel", "confidence": "log_prob"},
    {"temperature": 0.0},
    {"fine_temperature": 0.0},
    {"top_p": 0.9},
  ],
)
def test_oracle_is_recovered_exactly(changes):
  answer = truth()
  nothing = jnp.zeros((B, T, Q), bool)
  got = decode(oracle(answer), answer * 0, nothing, keys(), options(**changes), V)
  np.testing.assert_array_equal(got, answer)


def test_given_tokens_never_change_and_the_rest_is_recovered():
  answer = truth()
  known = jax.random.bernoulli(jax.random.key(1), 0.4, (B, T, Q)).at[0].set(True).at[1].set(False)
  given = jnp.where(known, (answer + 1) % V, 0)  # wrong on purpose: they must stay all the same
  got = decode(oracle(answer), given, known, keys(), options(), V)
  np.testing.assert_array_equal(got, jnp.where(known, given, answer))


def test_the_finer_levels_have_a_temperature_of_their_own():
  none = jnp.zeros((B, T, Q), bool)

  def law(tokens, level):
    return jnp.broadcast_to(0.1 * jax.nn.one_hot(2, V), (B, T, V))

  got = decode(law, truth(), none, keys(), options(fine_temperature=0.0), V)
  assert (got[:, :, 1:] == 2).all()
  assert not (got[:, :, 0] == 2).all()


def test_number_masked_follows_the_schedule_to_zero():
  answer, seen = truth(), []
  known = jnp.zeros((B, T, Q), bool).at[1, :15].set(True)
  jax.block_until_ready(decode(record(answer, seen), answer, known, keys(), options(), V))
  jax.effects_barrier()
  assert [q for q, _ in seen] == [0] * 12 + [1] * 6 + [2]
  total = np.asarray((~known).sum(axis=1))
  for step, (q, tokens) in enumerate(seen):
    k = [s for s, (p, _) in enumerate(seen) if p == q].index(step)
    hidden = (tokens == V).sum(axis=1)
    want = (
      total[:, q]
      if k == 0
      else count_left_masked(k * jnp.int32(1), STEPS[q], jnp.asarray(total[:, q]))
    )
    np.testing.assert_array_equal(hidden[:, q], want)
    np.testing.assert_array_equal(hidden[:, :q], 0)  # finished levels hold no mask
    np.testing.assert_array_equal(hidden[:, q + 1 :], T)  # finer levels are hidden in every frame


def test_the_network_sees_what_training_shows_it():
  """Of given frames the levels below and the level asked for, never a finer one (Fig. 4)."""
  answer, seen = truth(), []
  known = jax.random.bernoulli(jax.random.key(1), 0.5, (B, T, 1)).repeat(Q, axis=2)
  jax.block_until_ready(decode(record(answer, seen), answer, known, keys(), options(), V))
  jax.effects_barrier()
  assert {q for q, _ in seen} == set(range(Q))
  known, answer = np.asarray(known), np.asarray(answer)
  for q, tokens in seen:
    assert (tokens[:, :, q + 1 :] == V).all()
    given = known[:, :, : q + 1]
    np.testing.assert_array_equal(tokens[:, :, : q + 1][given], answer[:, :, : q + 1][given])


def test_causal_bias_keeps_early_tokens_first():
  def mean_kept_position(w_s):
    seen = []
    flat = record(truth(), seen, lambda *_: jnp.zeros((B, T, V)))
    none = jnp.zeros((B, T, Q), bool)
    jax.block_until_ready(decode(flat, truth(), none, keys(), options(w_s=w_s), V))
    jax.effects_barrier()
    _, tokens = seen[6]  # halfway through level 0
    return np.mean([t for row in tokens[:, :, 0] for t in np.flatnonzero(row != V)])

  unbiased, biased, strong = map(mean_kept_position, (0.0, 0.5, 50.0))
  assert abs(unbiased - T / 2) < T / 6
  assert biased < unbiased - 1
  assert strong < biased


def test_a_large_causal_weight_decodes_strictly_left_to_right():
  seen = []
  flat = record(truth(), seen, lambda *_: jnp.zeros((B, T, V)))
  none = jnp.zeros((B, T, Q), bool)
  jax.block_until_ready(decode(flat, truth(), none, keys(), options(w_s=1e4), V))
  jax.effects_barrier()
  for q, tokens in seen:
    hidden = tokens[:, :, q] == V
    assert (np.diff(hidden.astype(int), axis=1) >= 0).all()


def test_of_equal_ranks_the_earlier_frame_is_kept():
  seen = []
  flat = record(truth(), seen, lambda *_: jnp.zeros((B, T, V)))
  none, equal = jnp.zeros((B, T, Q), bool), options(w_c=0.0, w_s=0.0, w_r=0.0)
  jax.block_until_ready(decode(flat, truth(), none, keys(), equal, V))
  jax.effects_barrier()
  for q, tokens in seen:
    assert (np.diff((tokens[:, :, q] == V).astype(int), axis=1) >= 0).all()


def test_an_example_does_not_depend_on_its_neighbours_and_seeds_differ():
  def flat(tokens, level):
    return jnp.zeros((tokens.shape[0], T, V))

  def run(batch, seed):
    none = jnp.zeros((batch, T, Q), bool)
    return decode(flat, jnp.zeros((batch, T, Q), int), none, keys(seed, batch), options(), V)

  np.testing.assert_array_equal(run(3, 0)[0], run(1, 0)[0])
  assert (run(3, 0)[0] != run(3, 0)[1]).any()
  assert (run(1, 0) != run(1, 1)).any()


def test_top_p_never_samples_outside_the_nucleus():
  prob = jnp.array([0.5, 0.3, 0.15] + [0.05 / (V - 3)] * (V - 3))

  def network(tokens, level):
    return jnp.broadcast_to(jnp.log(prob), (*tokens.shape[:2], V))

  none = jnp.zeros((B, T, Q), bool)
  zeros = jnp.zeros((B, T, Q), int)
  assert set(np.unique(decode(network, zeros, none, keys(), options(top_p=0.7), V))) == {0, 1}
  assert decode(network, zeros, none, keys(), options(), V).max() > 2


@pytest.mark.parametrize("n_codes", [2, 17, 64, 100])
def test_tokens_are_drawn_as_likely_as_they_are(n_codes):
  rng, n = np.random.default_rng(n_codes), 40_000
  logits = 2 * rng.normal(size=n_codes).astype(np.float32) + 500  # only differences matter
  logits[1::3] = -np.inf  # as outside of a nucleus
  prob = np.exp(logits.astype(np.float64) - 500)
  prob /= prob.sum()
  drawn = draw_tokens(jax.random.key(0), jnp.broadcast_to(logits, (n, n_codes)))
  counts = np.bincount(drawn, minlength=n_codes)
  assert len(counts) == n_codes
  assert not counts[prob == 0].any()
  there = prob > 0
  spread = np.sqrt(n * prob * (1 - prob))[there]
  assert (np.abs(counts[there] - n * prob[there]) <= 4.5 * spread + 1).all()


@pytest.mark.parametrize("top_p", [1e-6, 0.3, 0.9, 0.99])
def test_the_nucleus_is_that_of_sorting(top_p):
  logits = 3 * np.random.default_rng(0).normal(size=(50, 200)).astype(np.float32)
  kept = np.isfinite(np.asarray(keep_nucleus(jnp.asarray(logits), top_p)))
  prob = np.exp(logits - logits.max(1, keepdims=True)).astype(np.float64)
  prob /= prob.sum(1, keepdims=True)
  for row, own in zip(prob, kept, strict=True):
    order = np.argsort(-row)
    count = 1 + np.searchsorted(np.cumsum(row[order]), top_p)
    assert set(np.flatnonzero(own)) == set(order[:count])


def test_new_settings_do_not_compile_again():
  count = 0

  @jax.jit
  def run(opts):
    nonlocal count
    count += 1
    none = jnp.zeros((B, T, Q), bool)
    return decode(oracle(truth()), truth(), none, keys(), opts, V)

  run(options())
  run(options(steps=STEPS + 1, w_s=2.0, temperature=0.7, fine_temperature=0.2, top_p=0.5))
  assert count == 1


def test_unknown_options_are_refused():
  none, zeros = jnp.zeros((B, T, Q), bool), jnp.zeros((B, T, Q), int)
  for changes, name in [({"confidence": "max"}, "confidence"), ({"noise": "pink"}, "noise")]:
    with pytest.raises(ValueError, match=f"{name} must be"):
      decode(oracle(truth()), zeros, none, keys(), options(**changes), V)
