# SPDX-License-Identifier: Apache-2.0
"""The plain PyTorch way of the sampler's work, which `stemgen_jax.bench sample` measures against.

The same network and the same decoding as stemgen_jax/model/network.py and decode.py, as one would
write it in PyTorch: one forward for each guidance branch, the heads of all levels, a Python loop.
"""

import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class TorchNetwork(nn.Module):
  """The network of stemgen_jax/model/network.py, from its parameters."""

  def __init__(self, params: Mapping, sources: Sequence[str]):
    """Takes the nested dict of arrays that `model.build(config).init` gives.

    `sources` are the categorical ones, in the order of the config.
    """
    super().__init__()
    self.codebooks = _parameter(params["codebooks"])
    self.null_context = _parameter(params["null_context"])
    self.conditions = nn.ParameterList(_parameter(params["conditions"][name]) for name in sources)
    stacked = params["blocks"]
    layers, self.width = len(stacked["qkv"]), stacked["qkv"].shape[-1]
    self.blocks = nn.ModuleList(
      TorchBlock({name: x[i] for name, x in stacked.items()}) for i in range(layers)
    )
    self.norm = _parameter(params["norm"])
    self.heads = _parameter(params["heads"])

  def forward(
    self,
    target: torch.Tensor,
    context: torch.Tensor,
    conditions: torch.Tensor,
    keep: Sequence[bool],
  ) -> torch.Tensor:
    """Returns the logits of all levels [B, T, Q, V]; `keep` says which sources are heard."""
    features = self.features(target, context, conditions, keep)
    return torch.einsum("btd,qdv->btqv", features, self.heads)

  def features(
    self,
    target: torch.Tensor,
    context: torch.Tensor,
    conditions: torch.Tensor,
    keep: Sequence[bool],
  ) -> torch.Tensor:
    """Returns what the heads read, [B, T, D]."""
    written = self._embed(target)
    heard = self._embed(context) if keep[0] else self.null_context.expand_as(written)
    c = torch.zeros_like(written[:, :1])
    for i, table in enumerate(self.conditions):
      value = conditions[:, i] if keep[1 + i] else torch.full_like(conditions[:, i], -1)
      c = c + table[value][:, None]  # -1: the last row
    x = torch.cat([heard + c, written + c], dim=-1)
    rate = 10_000.0 ** -(torch.arange(0, self.width, 2, device=x.device) / self.width)
    angle = torch.arange(x.shape[1], device=x.device)[:, None] * rate[None]
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    for block in self.blocks:
      x = block(x, cos, sin)
    return functional.rms_norm(x, x.shape[-1:], self.norm, 1e-6)

  def _embed(self, codes: torch.Tensor) -> torch.Tensor:
    parts = (table[codes[..., q]] for q, table in enumerate(self.codebooks))
    return functools.reduce(torch.add, parts)


class TorchBlock(nn.Module):
  """One layer."""

  def __init__(self, params: Mapping):
    """Takes the parameters of one layer."""
    super().__init__()
    width, _, self.heads, self.width = params["qkv"].shape
    self.attention_norm, self.mlp_norm = map(
      _parameter, (params["attention_norm"], params["mlp_norm"])
    )
    self.qkv = _parameter(np.asarray(params["qkv"]).reshape(width, -1).T)
    self.out = _parameter(np.asarray(params["out"]).reshape(-1, width).T)
    self.gate_up = _parameter(np.asarray(params["gate_up"]).reshape(width, -1).T)
    self.down = _parameter(np.asarray(params["down"]).T)

  def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Applies attention, then SwiGLU."""
    batch, frames, width = x.shape
    y = functional.rms_norm(x, (width,), self.attention_norm, 1e-6)
    qkv = functional.linear(y, self.qkv).reshape(batch, frames, 3, self.heads, self.width)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    heard = functional.scaled_dot_product_attention(_turn(q, cos, sin), _turn(k, cos, sin), v)
    x = x + functional.linear(heard.transpose(1, 2).reshape(batch, frames, -1), self.out)
    y = functional.rms_norm(x, (width,), self.mlp_norm, 1e-6)
    gate, up = functional.linear(y, self.gate_up).chunk(2, dim=-1)
    return x + functional.linear(functional.silu(gate) * up, self.down)


def _parameter(array: np.ndarray) -> nn.Parameter:
  return nn.Parameter(torch.from_numpy(np.array(array)), requires_grad=False)


def _turn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
  a, b = x.chunk(2, dim=-1)
  return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


@torch.inference_mode()
def decode(
  network: TorchNetwork,
  context: torch.Tensor,
  conditions: torch.Tensor,
  steps: Sequence[int],
  scales: Sequence[float],
  weights: tuple[float, float, float] = (1.0, 0.5, 0.5),
  temperature: float = 1.0,
) -> torch.Tensor:
  """Returns stems for contexts [B, T, Q], decoded level by level.

  Args:
    network: the network.
    context: codes of the context mixes.
    conditions: value of each categorical source [B, C].
    steps: iterations of each level.
    scales: guidance of the context, then of each condition; none of them: one branch hears all.
    weights: w_c, w_s, w_r.
    temperature: 1 draws tokens as likely as they are, 0 takes the likeliest.
  """
  mask = network.codebooks.shape[1] - 1
  tokens = torch.full_like(context, mask)
  batch, frames, _ = tokens.shape
  sources = 1 + conditions.shape[1]
  earliness = 1 - torch.arange(frames, device=tokens.device) / frames
  for level, n in enumerate(steps):
    hidden = torch.ones(batch, frames, dtype=torch.bool, device=tokens.device)
    for k in range(1, n + 1):
      if scales:
        logits = unconditional = network(tokens, context, conditions, [False] * sources)
        for i, scale in enumerate(scales):
          keep = [j == i for j in range(sources)]
          logits = logits + scale * (network(tokens, context, conditions, keep) - unconditional)
      else:
        logits = network(tokens, context, conditions, [True] * sources)
      prob = logits[:, :, level].float().softmax(dim=-1)
      if temperature:
        sampled = torch.multinomial(prob.flatten(0, 1), 1).reshape(batch, frames)
      else:
        sampled = prob.argmax(dim=-1)
      confidence = prob.gather(2, sampled[..., None])[..., 0]
      rank = (
        weights[0] * confidence + weights[1] * earliness + weights[2] * torch.rand_like(confidence)
      )
      tokens[:, :, level] = torch.where(hidden, sampled, tokens[:, :, level])
      left = 0 if k == n else max(1, math.floor(math.cos(math.pi / 2 * k / n) * frames))
      rank = rank.masked_fill(~hidden, torch.inf)
      hidden = torch.zeros_like(hidden)
      if left:
        hidden.scatter_(1, rank.topk(left, largest=False).indices, True)
      tokens[:, :, level] = tokens[:, :, level].masked_fill(hidden, mask)
  return tokens
