# SPDX-License-Identifier: Apache-2.0
"""Who is answered: requests under this machine's own name, from the server's own page.

A request under a foreign host name is DNS rebinding; one with a foreign origin comes from another
site's page. A token, where there is one, keeps out other users of this machine.
"""

import hmac
from collections.abc import Iterable

from starlette.datastructures import Headers, QueryParams
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost")
TOKEN_HEADER = "x-looper-token"


class Guard:
  """Refuses with 403, and one sentence, what is not for this server or not from its own page."""

  def __init__(
    self, app: ASGIApp, port: int | None = None, token: str = "", open_to: Iterable[str] = ()
  ):
    """Wraps an application.

    Args:
      app: what answers those who are let in.
      port: the only one that a Host may name; None lets any pass.
      token: what each request must bring, as `?token=` or in TOKEN_HEADER; "" asks for none.
      open_to: beginnings of paths that need no token, for files that hold nothing private.
    """
    self.app, self.port, self.token, self.open_to = app, port, token, tuple(open_to)

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers a request, or refuses it."""
    if scope["type"] == "http" and (complaint := self.judge(scope)):
      await self.refuse(scope, complaint)(scope, receive, send)
    else:
      await self.app(scope, receive, send)

  def judge(self, scope: Scope) -> str | None:
    """Returns what is wrong with where a request comes from; None if nothing is."""
    headers = Headers(scope=scope)
    host, origin = headers.get("host", ""), headers.get("origin")
    name, _, port = host.partition(":")
    if name not in HOSTS or (self.port is not None and port != str(self.port)):
      return "only requests to this machine's own name are answered"
    if origin not in (None, f"http://{host}"):
      return "only this machine's own page is answered"
    if self.token and not scope["path"].startswith(self.open_to or ("\0",)):
      query = QueryParams(scope["query_string"].decode("latin-1"))
      given = query.get("token") or headers.get(TOKEN_HEADER, "")
      if not hmac.compare_digest(given.encode(), self.token.encode()):
        return "the token is missing or another; open the address that the command printed"
    return None

  def refuse(self, scope: Scope, complaint: str) -> Response:
    """Returns the answer to a request that is refused: JSON to a page's script that has a token."""
    if self.token and scope["path"] != "/":
      return JSONResponse({"error": f"{complaint[:1].upper()}{complaint[1:]}."}, 403)
    return PlainTextResponse(f"{complaint}\n", 403)
