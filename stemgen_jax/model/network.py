# SPDX-License-Identifier: Apache-2.0
"""The network: RVQ tokens of a context mix and of a partly hidden target -> logits of one level.

A bidirectional LLaMA-like transformer (RMSNorm, RoPE, SwiGLU) over one element per frame. Modules
are Flax NNX, but leave this file only as `build(config) -> Model`, pure functions over a plain
nested dict of arrays: `apply` gives features, and three readers turn features into logits. Knows
nothing of masking, losses or decoding.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh

from stemgen_jax.config import MOST_SCALE, ModelConfig
from stemgen_jax.model import sharding
from stemgen_jax.model.arithmetic import Arithmetic, Product, choose_arithmetic
from stemgen_jax.model.attention import KEPT, Attention, choose_attention
from stemgen_jax.types import Array, Bool, Float, Int, Key, Params

# What a layer keeps for its backward pass, beside its input, by `ModelConfig.remat`.
_REMAT = {
  "layer": jax.checkpoint_policies.nothing_saveable,
  "attention": jax.checkpoint_policies.save_only_these_names(KEPT),
  "matmuls": jax.checkpoint_policies.save_only_these_names(KEPT, "gate_up"),
}


class Model(NamedTuple):
  """The pure functions of a network; see `build`."""

  init: Callable[[Key], Params]
  apply: Callable[..., Float[Array, "B T D"]]
  read_level: Callable[[Params, Float[Array, "B T D"], Int[Array, ""]], Float[Array, "B T V"]]
  read_asked: Callable[[Params, Float[Array, "B T D"], tuple[int, ...]], Float[Array, "B T V"]]
  read_all: Callable[[Params, Float[Array, "B T D"]], Float[Array, "B T Q V"]]


def build(config: ModelConfig, mesh: Mesh | None = None) -> Model:
  """Returns the network of a config as pure functions, `apply` for the devices of `mesh`.

  `apply` takes
    target: Int 'B T Q', codes in [0, V), and V (MASK) where hidden.
    context: Int 'B T Q', codes of the context mix.
    conditions: Int 'B C', value of each categorical source; -1 where unknown.
    keep: Bool 'B 1+C', False drops the context (column 0) or a categorical source.
    dropout_key: None (no dropout), or a JAX key.
    scales: Float 'B K', how far each source of `config.scale_inputs` is to steer, 0 to MOST_SCALE,
      and -1 for a source that is heard as it is; None is -1 for all.
  and returns float32 features, 'B T D'. Three readers give the float32 logits of features:
    read_level: of one level, a traced scalar. Linear, so that a weighted sum of several branches'
      logits is the logits of the sum of their features.
    read_asked: of a tuple of P levels; example b is asked for level asked[b mod P].
    read_all: of every level.

  Source: StemGen (PAPER.md) Fig. 3 for the embedding; section 3 for the sizes.
  """
  tools = choose_attention(mesh), choose_arithmetic(config.compute_dtype, mesh), mesh
  graph, abstract = nnx.split(nnx.eval_shape(lambda: Network(config, nnx.Rngs(0))))
  names = nnx.to_pure_dict(abstract)

  def init(key: Key) -> Params:
    return nnx.to_pure_dict(nnx.state(Network(config, nnx.Rngs(key))))

  def apply(
    params: Params,
    target: Int[Array, "B T Q"],
    context: Int[Array, "B T Q"],
    conditions: Int[Array, "B C"],
    keep: Bool[Array, "B K"],
    dropout_key: Key | None = None,
    scales: Float[Array, "B S"] | None = None,
  ) -> Float[Array, "B T D"]:
    if set(params) != set(names):
      raise ValueError(f"params must hold {sorted(names)}; got {sorted(params)}.")
    outer = {name: leaf for name, leaf in params.items() if name not in ("blocks", "heads")}
    network = nnx.merge(graph, {**params, **sharding.gather(outer, mesh)})
    return network(target, context, conditions, keep, dropout_key, scales, *tools)

  def gather_heads(params: Params) -> Float[Array, "Q D V"]:
    return sharding.gather({"heads": params["heads"]}, mesh)["heads"]

  def read_level(
    params: Params, features: Float[Array, "B T D"], level: Int[Array, ""]
  ) -> Float[Array, "B T V"]:
    return features @ gather_heads(params)[level]

  def read_asked(
    params: Params, features: Float[Array, "B T D"], asked: tuple[int, ...]
  ) -> Float[Array, "B T V"]:
    rows = features.reshape(-1, len(asked), *features.shape[1:])  # example b at [b // P, b mod P]
    heads = gather_heads(params)
    if asked != tuple(range(config.n_levels)):
      heads = heads[np.array(asked)]
    logits = jnp.einsum("bptd,pdv->bptv", rows, heads)
    return logits.reshape(*features.shape[:2], -1)

  def read_all(params: Params, features: Float[Array, "B T D"]) -> Float[Array, "B T Q V"]:
    return jnp.einsum("btd,qdv->btqv", features, gather_heads(params))

  return Model(init, apply, read_level, read_asked, read_all)


class Network(nnx.Module):
  """Embedding, blocks, heads."""

  def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
    """Draws every parameter; blocks are stacked on a leading L axis."""
    q, v, d = config.n_levels, config.n_codes, config.dim
    half = d // 2
    self.config = nnx.static(config)
    self.codebooks = _normal(rngs, (q, v + 1, half), q**-0.5)  # E_1..E_Q; row V is MASK
    self.null_context = _normal(rngs, (half,), 1.0)
    self.conditions = nnx.data(  # the last row is the null row
      {n: _normal(rngs, (len(values) + 1, half), 1.0) for n, values in config.sources.items()}
    )
    self.blocks = nnx.vmap(lambda r: Block(config, r), in_axes=0)(rngs.split(config.n_layers))
    self.norm = nnx.Param(jnp.ones((d,)))
    if config.scale_inputs:
      self.steering = Steering(config)
    self.heads = _normal(rngs, (q, d, v), 0.1 * d**-0.5)

  def __call__(
    self,
    target: Int[Array, "B T Q"],
    context: Int[Array, "B T Q"],
    conditions: Int[Array, "B C"],
    keep: Bool[Array, "B K"],
    dropout_key: Key | None,
    scales: Float[Array, "B S"] | None,
    attention: Attention,
    arithmetic: Arithmetic,
    mesh: Mesh | None,
  ) -> Float[Array, "B T D"]:
    """See `build`."""
    config, turns, last = self.config, None, None
    product, dtype, stream = arithmetic
    if scales is not None:
      turns, last = self.steering(scales)
    x = self.embed(target, context, conditions, keep).astype(stream)
    frames = x.shape[1]
    x = jnp.pad(x, ((0, 0), (0, -frames % attention.tile), (0, 0)))
    x = sharding.split_rows(x, mesh)
    cos, sin = rotary_angles(x.shape[1], config.dim // config.n_heads)
    attend = functools.partial(attention.attend, frames=frames)
    block_graph, layers = nnx.split(self.blocks)
    keys = None if dropout_key is None else jax.random.split(dropout_key, config.n_layers)

    def layer(x, xs):
      params, key, turn = xs
      params = jax.tree.map(lambda p: p.astype(dtype), nnx.to_pure_dict(params))
      block = nnx.merge(block_graph, sharding.gather(params, mesh, "blocks"))
      return block(x, cos, sin, config.dropout, key, turn, attend, product), None

    if config.remat != "none":
      layer = jax.checkpoint(layer, policy=_REMAT[config.remat], prevent_cse=False)
    x, _ = jax.lax.scan(layer, x, (layers, keys, turns), unroll=config.unroll)
    x = rms_norm(x[:, :frames], self.norm[...].astype(x.dtype), last)
    return x.astype(jnp.float32)  # TPU and GPU still multiply fast

  def embed(self, target, context, conditions, keep) -> Float[Array, "B T D"]:
    """x_t = [sum_q E_q[context_tq] + c ; sum_q E_q[target_tq] + c], c = sum_i e_i[condition_i].

    The two channels share their codebooks, of width D / 2. A dropped source is a learned null
    vector: of the context in the place of its sum, of a condition the last row of its table.

    Source: StemGen (PAPER.md) section 2.1, Fig. 3; the width of a half is ours.
    """
    heard = self.sum_codebooks(context)
    written = self.sum_codebooks(target)
    null = self.null_context[...][None, None, :]
    c = 0.0
    for i, (name, values) in enumerate(self.config.sources.items()):
      known = keep[:, 1 + i] & (conditions[:, i] >= 0)
      c += self.conditions[name][...][jnp.where(known, conditions[:, i], len(values))][:, None]
    heard = jnp.where(keep[:, :1, None], heard, null)
    return jnp.concatenate([heard + c, written + c], axis=-1)

  def sum_codebooks(self, codes: Int[Array, "B T Q"]) -> Float[Array, "B T D"]:
    """sum_q E_q[codes_tq]."""
    parts = (table[codes[:, :, q]] for q, table in enumerate(self.codebooks[...]))
    return functools.reduce(jnp.add, parts)


class Steering(nnx.Module):
  """Guidance scales -> how they turn every norm of the network: y <- y (1 + a) + b.

  A source's table holds (a, b) at the whole scales 0, 1, ..., MOST_SCALE, all zero at the start;
  between them it is linear, and what several sources ask for is added up.

  Source: ours; distilling guidance into one network that takes the scale is of arXiv:2210.03142.
  """

  def __init__(self, config: ModelConfig):
    shape = (MOST_SCALE + 1, 2 * config.n_layers + 1, 2, config.dim)
    self.tables = nnx.data({name: nnx.Param(jnp.zeros(shape)) for name in config.scale_inputs})

  def __call__(
    self, scales: Float[Array, "B S"]
  ) -> tuple[Float[Array, "L 2 B 2 D"], Float[Array, "B 2 D"]]:
    """Returns (a, b) of the two norms of each layer, and of the last norm; 0 where scales < 0."""
    points = jnp.arange(MOST_SCALE + 1)[None, None, :]
    near = jnp.maximum(0, 1 - jnp.abs(scales[:, :, None] - points))
    tables = jnp.stack([table[...] for table in self.tables.values()])
    found = jnp.einsum("bsp,spmcd->mbcd", near, tables)
    return found[:-1].reshape(-1, 2, *found.shape[1:]), found[-1]


class Block(nnx.Module):
  """x + Attention(norm(x)), then x + SwiGLU(norm(x))."""

  def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
    """Output projections start at 1/sqrt(2 L) of their fan-in scale, so depth keeps variance."""
    d, n, f = config.dim, config.n_heads, config.mlp_dim
    shrink = (2 * config.n_layers) ** -0.5
    self.attention_norm = nnx.Param(jnp.ones((d,)))
    self.qkv = _normal(rngs, (d, 3, n, d // n), d**-0.5)
    self.out = _normal(rngs, (n, d // n, d), shrink * d**-0.5)
    self.mlp_norm = nnx.Param(jnp.ones((d,)))
    self.gate_up = _normal(rngs, (d, 2, f), d**-0.5)
    self.down = _normal(rngs, (f, d), shrink * f**-0.5)

  def __call__(
    self, x, cos, sin, dropout: float, key: Key | None, turn, attend: Callable, product: Product
  ) -> Float[Array, "B T D"]:
    """Applies the block; `dropout` acts on both branches when a key is given."""
    keys = (None, None) if key is None else jax.random.split(key)
    turns = (None, None) if turn is None else turn
    dtype = self.qkv.dtype
    # One product each: cut from a common one, their gradients would be padded and added up again.
    y = rms_norm(x, self.attention_norm[...], turns[0]).astype(dtype)
    q, k, v = (product("btd,dnh->bnth", y, self.qkv[:, c]) for c in range(3))
    q, k = rotate(q, cos, sin), rotate(k, cos, sin)
    heard = attend(*(checkpoint_name(x.astype(dtype), KEPT) for x in (q, k, v)))
    x += _drop(product("bnth,nhd->btd", heard, self.out[...]), dropout, keys[0])
    y = rms_norm(x, self.mlp_norm[...], turns[1]).astype(dtype)
    parts = (product("btd,df->btf", y, self.gate_up[:, c]) for c in range(2))
    gate, up = (checkpoint_name(part, "gate_up") for part in parts)
    inner = (jax.nn.silu(gate) * up).astype(dtype)
    return x + _drop(product("btf,fd->btd", inner, self.down[...]), dropout, keys[1])


def rms_norm(
  x: Float[Array, "B T D"],
  scale: Float[Array, " D"],
  turn: Float[Array, "B 2 D"] | None = None,
) -> Float[Array, "B T D"]:
  """y = x / sqrt(mean(x^2) + 1e-6) * scale, the mean taken in float32; or y (1 + a) + b.

  (a, b) is each example's `turn`.
  """
  square = jnp.mean(jnp.square(x.astype(jnp.float32)), axis=-1, keepdims=True)
  y = x * jax.lax.rsqrt(square + 1e-6).astype(x.dtype) * scale[None, None, :]
  if turn is None:
    return y
  a, b = turn[:, None, 0].astype(x.dtype), turn[:, None, 1].astype(x.dtype)
  return y * (1 + a) + b


def rotary_angles(
  frames: int, width: int
) -> tuple[Float[Array, "1 1 T h"], Float[Array, "1 1 T h"]]:
  """cos and sin of t / 10000^(2i/H), i in [0, H/2) (RoPE, arXiv:2104.09864)."""
  rate = 10_000.0 ** -(jnp.arange(0, width, 2) / width)
  angle = jnp.arange(frames)[None, None, :, None] * rate[None, None, None, :]
  return jnp.cos(angle), jnp.sin(angle)


def rotate(x: Float[Array, "B N T H"], cos, sin) -> Float[Array, "B N T H"]:
  """Turns the pairs (x_i, x_{i+H/2}) of every head by their frame's angles."""
  a, b = jnp.split(x, 2, axis=-1)
  return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


def _normal(rngs: nnx.Rngs, shape: tuple[int, ...], std: float) -> nnx.Param:
  return nnx.Param(std * jax.random.normal(rngs.params(), shape))


def _drop(x: Float[Array, "B T D"], rate: float, key: Key | None) -> Float[Array, "B T D"]:
  if key is None or rate == 0:
    return x
  return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)
