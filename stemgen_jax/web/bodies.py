# SPDX-License-Identifier: Apache-2.0
"""What a page sends: JSON objects, bounded, read without a header being believed."""

import json
from typing import Any

from starlette.requests import Request

from stemgen_jax.errors import UserError


class TooLarge(UserError):
  """More was sent than is taken."""


async def read_body(request: Request, most_bytes: int) -> bytes:
  """Returns the body of a request.

  Raises:
    TooLarge: if it has more bytes, or says so; what is not taken is not read.
  """
  refusal = TooLarge(f"A request must have at most {most_bytes} bytes.")
  length = request.headers.get("content-length", "0")
  if not length.isdecimal() or int(length[:18]) > most_bytes:
    raise refusal
  body = bytearray()
  async for chunk in request.stream():
    body += chunk
    if len(body) > most_bytes:
      raise refusal
  return bytes(body)


def parse_object(body: bytes) -> dict[str, Any] | None:
  """Returns the JSON object that a body is; None if it is none."""
  try:
    value = json.loads(body)
  except (ValueError, RecursionError):
    return None
  return value if isinstance(value, dict) else None
