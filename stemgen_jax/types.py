# SPDX-License-Identifier: Apache-2.0
"""The glossary of axis letters and the array types of the code base.

| letter | axis |                                | letter | axis |
|--------|------|                                |--------|------|
| B | examples of a batch                      | N | attention heads |
| T | frames (codec steps)                     | H | width of a head |
| Q | residual-vector-quantiser levels         | F | width of the MLP |
| V | codebook entries of a level              | L | transformer layers |
| D | model width                              | C | categorical conditioning sources |
| S | stems of a song                          | M | context mixes stored for a clip |
| G | guidance branches                        |   | |

`mask` is True where a token is hidden and to be predicted; `weight` is a loss weight; `key` is a
JAX key and `rng` a numpy Generator. Names carry their unit: `_s _hz _frames _samples _nats _db`.
"""

import typing

import jaxtyping
from jaxtyping import Array, Bool, Float, Int

if typing.TYPE_CHECKING:
  from jaxlib._jax import Device  # in jax it is a variable, which no annotation may hold
else:
  from jax import Device

Key = jaxtyping.Key[Array, ""]
Keys = jaxtyping.Key[Array, " B"]  # one an example
Scalar = Float[Array, ""] | float  # a traced number, or a plain one
Params = dict  # nested dict of arrays; layers stacked on a leading L axis

__all__ = ["Array", "Bool", "Device", "Float", "Int", "Key", "Keys", "Params", "Scalar"]
