# SPDX-License-Identifier: Apache-2.0
"""The optimiser against AdamW by hand, setting by setting."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stemgen_jax.config import OptimConfig
from stemgen_jax.training.optim import build_optimizer

SETTINGS = {
  "steps": 10,
  "warmup_steps": 0,
  "learning_rate": 0.1,
  "final_lr_ratio": 1.0,
  "b1": 0.9,
  "b2": 0.95,
  "weight_decay": 0.0,
  "clip_norm": 1e9,
}
RNG = np.random.default_rng(0)
START = {"heads": RNG.normal(size=(1, 3, 2)), "norm": RNG.normal(size=(3,))}
GRADS = [jax.tree.map(lambda x: RNG.normal(size=x.shape), START) for _ in range(3)]


def run_ours(settings):
  optimizer = build_optimizer(OptimConfig(**settings))
  params = jax.tree.map(jnp.float32, START)
  state = optimizer.init(params)
  for grads in GRADS:
    updates, state = optimizer.update(jax.tree.map(jnp.float32, grads), state, params)
    params = optax.apply_updates(params, updates)
  return jax.device_get(params)


def run_by_hand(s):
  params, first, second = dict(START), dict.fromkeys(START, 0.0), dict.fromkeys(START, 0.0)
  for n, grads in enumerate(GRADS, 1):
    norm = np.sqrt(sum(np.square(g).sum() for g in grads.values()))
    for name, grad in grads.items():
      grad = grad * min(1.0, s["clip_norm"] / norm)
      first[name] = s["b1"] * first[name] + (1 - s["b1"]) * grad
      second[name] = s["b2"] * second[name] + (1 - s["b2"]) * grad**2
      step = first[name] / (1 - s["b1"] ** n)
      step = step / (np.sqrt(second[name] / (1 - s["b2"] ** n)) + 1e-8)
      if name == "heads":  # only matrices decay
        step = step + s["weight_decay"] * params[name]
      params[name] = params[name] - s["learning_rate"] * step
  return params


@pytest.mark.parametrize(
  "change", [{}, {"b1": 0.5}, {"b2": 0.5}, {"weight_decay": 0.3}, {"clip_norm": 0.7}]
)
def test_updates_are_adamws(change):
  settings = SETTINGS | change
  got, want = run_ours(settings), run_by_hand(settings)
  for name in START:
    np.testing.assert_allclose(got[name], want[name], rtol=1e-4, atol=1e-6)
  if change:
    assert any(np.abs(got[name] - run_ours(SETTINGS)[name]).max() > 1e-3 for name in START)
