# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stemgen_jax.model.arithmetic import multiply_wide

EQUATIONS = {
  "btd,dnh->bnth": ((2, 5, 8), (8, 3, 4)),
  "bnth,nhd->btd": ((2, 3, 5, 4), (3, 4, 8)),
  "...th,...sh->...ts": ((2, 3, 5, 4), (2, 3, 6, 4)),
}


@pytest.mark.parametrize("equation", EQUATIONS)
@pytest.mark.parametrize(("dtype", "atol"), [("float32", 1e-5), ("bfloat16", 0.05)])
def test_wide_products_and_their_slopes_are_those_of_einsum(equation, dtype, atol):
  keys = jax.random.split(jax.random.key(0), 3)
  shapes = EQUATIONS[equation]
  exact = [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=False)]
  weight = jax.random.normal(keys[2], jnp.einsum(equation, *exact).shape)
  short = [x.astype(dtype) for x in exact]
  got, back = jax.vjp(lambda a, b: multiply_wide(equation, a, b), *short)
  want, back_exact = jax.vjp(lambda a, b: jnp.einsum(equation, a, b), *exact)
  assert got.dtype == jnp.float32
  np.testing.assert_allclose(got, want, atol=atol)
  for x, y in zip(back(weight), back_exact(weight), strict=True):
    assert x.dtype == dtype
    np.testing.assert_allclose(x.astype(jnp.float32), y, atol=atol)


def test_sums_of_short_numbers_are_not_rounded():
  a = jnp.ones((1, 1024), jnp.bfloat16)
  assert multiply_wide("ij,jk->ik", a, a.T + 2**-7)[0, 0] == 1024 + 8  # bfloat16 holds 1032 not
