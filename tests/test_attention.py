# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stemgen_jax.attention import attend_fused, attend_plain, choose_attention

B, N = 2, 2


def draw(frames, width):
  keys = jax.random.split(jax.random.key(0), 4)
  return [jax.random.normal(key, (B, N, frames, width)) for key in keys]


def test_plain_attention_is_the_equation():
  q, k, v, _ = (np.asarray(x, np.float64) for x in draw(9, 8))
  weight = np.exp(np.einsum("bnth,bnsh->bnts", q, k) / np.sqrt(8))
  want = weight @ v / weight.sum(axis=-1, keepdims=True)
  got = attend_plain(*(jnp.asarray(x, jnp.float32) for x in (q, k, v)), 9)
  np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize(("frames", "width"), [(128, 64), (200, 64), (300, 128)])
def test_the_fused_kernel_is_the_same_and_hears_no_padding(frames, width):
  *qkv, weight = draw(frames, width)
  padding = ((0, 0), (0, 0), (0, -frames % 128), (0, 0))

  def fused(*qkv):
    padded = [jnp.pad(x, padding, constant_values=3.0) for x in qkv]
    return attend_fused(*padded, frames, interpret=True)[:, :, :frames]

  def plain(*qkv):
    return attend_plain(*qkv, frames)

  def gradient(attend):
    return jax.grad(lambda *x: jnp.sum(attend(*x) * weight), argnums=(0, 1, 2))(*qkv)

  np.testing.assert_allclose(fused(*qkv), plain(*qkv), atol=1e-5)
  for a, b in zip(gradient(fused), gradient(plain)):
    np.testing.assert_allclose(a, b, atol=1e-4)


def test_without_a_tpu_attention_is_plain():
  assert choose_attention(None).attend is attend_plain
  assert choose_attention(None).tile == 1
