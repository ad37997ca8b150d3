# SPDX-License-Identifier: Apache-2.0
"""Trains the codebooks of a residual vector quantiser by moving averages.

Works on the buffers of the `encodec` package's codebooks, whose own training step is not used: in
0.1.1 it overwrites restarted codes with the old averages in the same call, so no dead code ever
comes back.
"""

from collections.abc import Iterable
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Codebook(Protocol):
  """The buffers of `encodec`'s EuclideanCodebook."""

  embed: Tensor
  embed_avg: Tensor
  cluster_size: Tensor
  inited: Tensor


def nearest(x: Float[Tensor, "N D"], codes: Float[Tensor, "V D"]) -> Int[Tensor, " N"]:
  """Returns the index of the nearest code by Euclidean distance."""
  return (x @ codes.T - codes.square().sum(dim=1) / 2).argmax(dim=1)


@torch.no_grad()
def start_codebooks(
  codebooks: Iterable[Codebook], latents: Float[Tensor, "N D"], rounds: int = 10
) -> None:
  """Sets each level's codes by k-means on what the levels before it leave over.

  Args:
    codebooks: coarse to fine.
    latents: at least as many vectors as codes.
    rounds: of Lloyd's algorithm; a code that loses all its vectors stays where it is.
  """
  residual = latents
  for book in codebooks:
    codes = residual[torch.randperm(len(residual))[: len(book.embed)]].clone()
    for _ in range(rounds):
      sums, counts = _gather(residual, nearest(residual, codes), len(codes))
      codes = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(min=1), codes)
    index = nearest(residual, codes)
    _, counts = _gather(residual, index, len(codes))
    book.embed.copy_(codes)
    book.embed_avg.copy_(codes * counts[:, None])
    book.cluster_size.copy_(counts)
    book.inited.fill_(1)
    residual = residual - codes[index]


def quantize(
  x: Float[Tensor, "N D"], codebooks: Iterable[Codebook], levels: Int[Tensor, " N"]
) -> tuple[Float[Tensor, "N D"], Float[Tensor, ""], list[Int[Tensor, " N"]]]:
  """Returns the quantised vectors (gradient straight through), commitment loss and codes a level.

  Args:
    x: the vectors.
    codebooks: coarse to fine.
    levels: how many of them each vector has, at least 1; the code of a level it lacks is -1.

  Source: EnCodec (arXiv:2210.13438) section 3.2 and 3.4; SoundStream (arXiv:2107.03312) algorithm
  1 and section III.C. The commitment loss is relative to the size of x, through which no gradient
  flows: latents would grow without end in one direction to serve it.
  """
  residual, total, commit, indices = x, torch.zeros_like(x), x.new_zeros(()), []
  for level, book in enumerate(codebooks):
    kept = levels > level
    index = nearest(residual.detach(), book.embed)
    chosen = book.embed[index] * kept[:, None]
    commit = commit + ((residual - chosen).square() * kept[:, None]).mean()
    residual, total = residual - chosen, total + chosen
    indices.append(torch.where(kept, index, -1))
  kept_levels = levels.clamp(max=len(indices)).float().mean()
  commit = commit / (kept_levels * x.detach().square().mean() + 1e-9)
  return x + (total - x).detach(), commit, indices


@torch.no_grad()
def update_codebooks(
  x: Float[Tensor, "N D"],
  codebooks: Iterable[Codebook],
  indices: list[Int[Tensor, " N"]],
  decay: float,
  dead_share: float,
) -> int:
  """Moves the used codes to the average of their vectors and restarts the dead ones.

  Args:
    x: the vectors that `quantize` saw.
    codebooks: those that `quantize` used.
    indices: what `quantize` chose.
    decay: of the moving averages, a step.
    dead_share: a code is dead below this share of an even use, and becomes a random vector of x.

  Returns:
    How many codes were restarted.
  """
  residual, restarted = x.detach(), 0
  for book, index in zip(codebooks, indices, strict=True):
    kept = index >= 0
    heard, chosen = residual[kept], book.embed[index]  # a level that lacks here stays lacking
    sums, counts = _gather(heard, index[kept], len(book.embed))
    book.cluster_size.mul_(decay).add_(counts, alpha=1 - decay)
    book.embed_avg.mul_(decay).add_(sums, alpha=1 - decay)
    even = book.cluster_size.mean()
    dead = torch.nonzero(book.cluster_size < dead_share * even)[:, 0][: len(heard)]
    book.embed.copy_(book.embed_avg / book.cluster_size.clamp(min=1e-9)[:, None])
    fresh = heard[torch.randperm(len(heard))[: len(dead)]]
    book.embed[dead], book.embed_avg[dead] = fresh, fresh * even
    book.cluster_size[dead] = even
    restarted += len(dead)
    residual = residual - chosen
  return restarted


def _gather(x: Float[Tensor, "N D"], index: Int[Tensor, " N"], size: int):
  """Returns for each code the sum and the number of its vectors."""
  sums = x.new_zeros(size, x.shape[1]).index_add_(0, index, x)
  return sums, torch.bincount(index, minlength=size).to(x.dtype)
