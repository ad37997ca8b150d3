# SPDX-License-Identifier: Apache-2.0
"""What a chip can do at most, from its maker's public figures."""

import dataclasses

from stemgen_jax.model.flops import PEAK_FLOPS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
  """One accelerator.

  `link_bytes_per_s` is what one link carries one way; `torus` how many dimensions the links span.
  `clock_hz` turns the compiler's cycles into seconds: the peak over what the matrix units multiply
  in a cycle. None where the number of units is not published.
  """

  kind: str  # as JAX names the device
  flops: float  # bfloat16, a second
  hbm_bytes: int
  hbm_bytes_per_s: float
  link_bytes_per_s: float
  torus: int
  clock_hz: float | None = None

  def spread_bytes_per_s(self, group: int, devices: int) -> float:
    """What a chip can send in a collective of `group` chips, one way round each ring.

    A group of all chips uses every dimension of the torus, a smaller one a single ring of it.
    """
    return self.link_bytes_per_s * (self.torus if group == devices else 1)


# Memory and bandwidth: the Cloud TPU documentation's page of each version. Links: the total
# interconnect bandwidth it gives over 4 links (v5e, v6e) or 6 (v4, v5p), half of it each way, less
# the tenth that "How to Scale Your Model" (jax-ml.github.io/scaling-book) measures as lost.
CHIPS = {
  "v4": Chip(
    kind="TPU v4",
    flops=PEAK_FLOPS["TPU v4"],
    hbm_bytes=32 * 2**30,
    hbm_bytes_per_s=1228e9,
    link_bytes_per_s=45e9,
    torus=3,
    clock_hz=1.05e9,
  ),
  "v5e": Chip(
    kind="TPU v5 lite",
    flops=PEAK_FLOPS["TPU v5 lite"],
    hbm_bytes=16 * 2**30,
    hbm_bytes_per_s=819e9,
    link_bytes_per_s=45e9,
    torus=2,
    clock_hz=1.5e9,
  ),
  "v5p": Chip(
    kind="TPU v5",
    flops=PEAK_FLOPS["TPU v5"],
    hbm_bytes=95 * 2**30,
    hbm_bytes_per_s=2765e9,
    link_bytes_per_s=90e9,
    torus=3,
    clock_hz=1.75e9,
  ),
  "v6e": Chip(
    kind="TPU v6 lite",
    flops=PEAK_FLOPS["TPU v6 lite"],
    hbm_bytes=32 * 2**30,
    hbm_bytes_per_s=1640e9,
    link_bytes_per_s=90e9,
    torus=2,
  ),
}
