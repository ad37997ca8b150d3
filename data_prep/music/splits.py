# SPDX-License-Identifier: Apache-2.0
"""Shares songs out to train, validation and test so that no music is in two of them."""

from collections.abc import Sequence

SPLITS = ("train", "validation", "test")
_HELD_OUT = 0.1


def assign_splits(groups: Sequence[Sequence[int]]) -> list[str]:
  """Returns each item's split: about 80/10/10 of the items, every group in one split.

  Args:
    groups: every index from 0 exactly once, groups in an order already shuffled. With three
      groups or more no split is empty; with fewer all is train.
  """
  total = sum(len(group) for group in groups)
  splits = ["train"] * total
  if len(groups) < len(SPLITS):
    return splits
  wanted = max(1, round(_HELD_OUT * total))
  # Small groups are held out first: a tune with many settings stays in train.
  order = sorted(groups, key=len)
  for split, kept in (("test", 2), ("validation", 1)):
    filled = 0
    while filled < wanted and len(order) > kept:
      for index in order.pop(0):
        splits[index] = split
        filled += 1
  return splits
