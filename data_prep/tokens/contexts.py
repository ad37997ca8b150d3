# SPDX-License-Identifier: Apache-2.0
"""Which stems a clip's context mixes sum, at what gain, and the sums.

The draw depends on (seed, song, clip) alone: not on the order of songs, nor on the machine.

Source: StemGen (arXiv:2312.08723) Fig. 1, "random subset"; its distribution is ours.
"""

import hashlib

import numpy as np
from jaxtyping import Bool, Float, Float16

from stemgen_jax.data.clips import ABSENT_DB
from stemgen_jax.errors import UserError

MIN_MIXES = 3  # silence, and two that no stem is in both of
_TRIES = 100


def make_rng(seed: int, song: str, clip: int) -> np.random.Generator:
  """Returns the generator of a clip, the same on every machine."""
  digest = hashlib.sha256(f"{seed}/{clip}/{song}".encode()).digest()
  return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def draw_members(rng: np.random.Generator, stems: int, mixes: int) -> Bool[np.ndarray, "M S"]:
  """Returns which stems each mix sums: row 0 is silence, the others are subsets of the S stems.

  A target can only have a mix that it is not in. So that sizes come evenly *then*, a third of the
  mixes hold all stems but one, each without another, and the others a random subset of k stems,
  k from 1 to S - 2 with a chance in proportion to 1 / (S - k). No two rows are equal, so a clip of
  S stems has at most 2^S - 1 mixes. For each stem some mix that sounds goes without it. A song of
  one stem can only have silence.

  Raises:
    UserError: if `mixes` is below 3.
  """
  if mixes < MIN_MIXES:
    raise UserError(f"mixes must be at least {MIN_MIXES}; got mixes={mixes}.")
  if stems == 1:
    return np.zeros((1, 1), bool)
  sounding = int(min(mixes, 2**stems - 1)) - 1
  smaller = 2**stems - 2 - stems  # subsets of S - 2 stems at most
  backing = max(min(stems, round(sounding / 3)), sounding - smaller)
  sizes = np.arange(1, stems - 1)
  chance = 1 / (stems - sizes) / np.sum(1 / (stems - sizes))
  rows: list[np.ndarray] = []
  for _ in range(_TRIES):
    rows = [np.zeros(stems, bool)]
    rows += [np.arange(stems) != left_out for left_out in rng.permutation(stems)[:backing]]
    while len(rows) <= sounding:
      row = np.zeros(stems, bool)
      row[rng.permutation(stems)[: rng.choice(sizes, p=chance)]] = True
      if not any((row == other).all() for other in rows):
        rows.append(row)
    if not np.all(rows[1:], axis=0).any():  # no stem is in every mix that sounds
      return np.stack(rows)
  rows[2] = ~rows[1]
  return np.stack(rows)


def draw_gains(
  rng: np.random.Generator,
  members: Bool[np.ndarray, "M S"],
  stem_jitter_db: float,
  mix_jitter_db: float,
) -> Float16[np.ndarray, "M S"]:
  """Returns each stem's gain in each mix, in dB; ABSENT_DB if left out.

  It is the sum of one for the stem, uniform within +-stem_jitter_db, so that the balance is not
  always the producer's, and one for the whole mix, uniform within +-mix_jitter_db, so that music of
  any loudness near the corpus's is heard. A lone stem has no balance: it gets the second alone.
  """
  jitter = rng.uniform(-stem_jitter_db, stem_jitter_db, members.shape)
  jitter[members.sum(1) == 1] = 0.0
  whole = rng.uniform(-mix_jitter_db, mix_jitter_db, (len(members), 1))
  return np.where(members, jitter + whole, ABSENT_DB).astype(np.float16)


def sum_stems(
  stems: Float[np.ndarray, "S channels samples"], gain_db: Float16[np.ndarray, " S"]
) -> tuple[Float[np.ndarray, "channels samples"], Float16[np.ndarray, " S"]]:
  """Returns the sum of the stems at their gains, and the gains that it came to have.

  A sum, not an average, so a stem keeps its level. A sum that passes full scale would clip: that
  mix alone is scaled down to a peak of 1, all its gains alike.
  """
  gains = 10.0 ** (gain_db.astype(np.float32) / 20.0)
  mix = sum((gains[i] * stems[i] for i in np.flatnonzero(gains)), np.zeros_like(stems[0]))
  peak = np.maximum(np.abs(mix).max(initial=0.0), 1.0)
  return mix / peak, gain_db - np.float16(20.0 * np.log10(peak))
