# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stemgen_jax.config import MeshConfig
from stemgen_jax.model import attention
from stemgen_jax.model.attention import attend_by_head, attend_fused, attend_plain, choose_attention
from stemgen_jax.model.sharding import build_mesh

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


@pytest.mark.parametrize(
  ("frames", "width"), [(200, 64), pytest.param(300, 128, marks=pytest.mark.slow)]
)
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
  for a, b in zip(gradient(fused), gradient(plain), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-4)


def test_a_gpu_gets_the_same_in_half_precision(monkeypatch):
  """By XLA in the place of cuDNN, which needs a GPU: layout and scale."""
  monkeypatch.setattr(attention, "_GPU_KERNEL", "xla")
  qkv = [x.astype(jnp.bfloat16) for x in draw(30, 16)[:3]]
  want = attend_plain(*(x.astype(jnp.float32) for x in qkv), 30)
  np.testing.assert_allclose(attention.attend_cudnn(*qkv, 30), want, atol=0.02)
  wide = draw(30, 16)[:3]  # cuDNN takes no float32
  np.testing.assert_array_equal(attention.attend_cudnn(*wide, 30), attend_plain(*wide, 30))


def test_scores_of_half_precision_are_not_rounded():
  q, k, v = (30 * x.astype(jnp.bfloat16) for x in draw(40, 16)[:3])
  exact = attend_plain(*(x.astype(jnp.float32) for x in (q, k, v)), 40)
  rounded = jnp.einsum("bnth,bnsh->bnts", q / 4, k).astype(jnp.float32)
  rounded = jnp.einsum("bnts,bnsh->bnth", jax.nn.softmax(rounded), v.astype(jnp.float32))
  got = attend_plain(q, k, v, 40).astype(jnp.float32)
  assert jnp.abs(got - exact).mean() < 0.3 * jnp.abs(rounded - exact).mean()


@pytest.mark.parametrize("frames", [50, 450])
def test_by_head_is_the_same(frames):
  *qkv, weight = draw(frames, 8)

  def gradient(attend):
    return jax.value_and_grad(lambda *x: jnp.sum(attend(*x, frames) * weight), argnums=(0, 1, 2))(
      *qkv
    )

  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4),
    gradient(attend_by_head),
    gradient(attend_plain),
  )


def test_large_scores_overflow_nothing():
  q, k, v, _ = draw(6, 4)
  heard = attend_plain(1e4 * q, k, v, 6)
  assert np.isfinite(heard).all()


def test_what_attends_where():
  assert choose_attention(None) == (attend_by_head, 1)  # here, on a CPU
  assert choose_attention(build_mesh(MeshConfig())) == (attend_plain, 1)
  one = build_mesh(MeshConfig(), jax.devices()[:1])
  assert choose_attention(one) == (attend_by_head, 1)
