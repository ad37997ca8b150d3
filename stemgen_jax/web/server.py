# SPDX-License-Identifier: Apache-2.0
"""A uvicorn server on this machine alone, on a port that is known before it answers."""

import contextlib
import logging
import socket
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from stemgen_jax.errors import UserError
from stemgen_jax.web.guard import HOSTS

MOST_CONNECTIONS = 100
IDLE_S = 30  # after which a silent connection is closed


def bind(port: int) -> socket.socket:
  """Returns a socket bound to a port of this machine, 0 for one that is free.

  Raises:
    UserError: if the port is taken, or is none.
  """
  try:
    if not 0 <= port < 2**16:
      raise OSError("0 to 65535 are ports")
    return socket.create_server((HOSTS[0], port))
  except OSError as error:
    raise UserError(
      f"--port must be a free port of this machine; got {port} ({error}). Choose another, or 0."
    ) from error


class Server(uvicorn.Server):
  """A server that ends without a word; answers that would go on for ever are ended first."""

  def __init__(self, config: uvicorn.Config, end_streams: Callable[[], None]):
    super().__init__(config)
    self.end_streams = end_streams

  async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
    """Lets what is being answered come to its end, for a second at most."""
    self.end_streams()
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # what is cut short is no error
    await super().shutdown(sockets)


def build_server(app: ASGIApp, end_streams: Callable[[], None] = lambda: None) -> Server:
  """Returns a server of an application that says nothing but what goes wrong.

  Args:
    app: what answers.
    end_streams: is called when the server ends, so that answers without an end have one.
  """
  config = uvicorn.Config(
    app,
    log_level="error",
    access_log=False,
    lifespan="on",
    server_header=False,
    http="h11",
    ws="none",
    loop="asyncio",
    limit_concurrency=MOST_CONNECTIONS,
    timeout_keep_alive=IDLE_S,
    timeout_graceful_shutdown=1,
  )
  return Server(config, end_streams)


def serve(server: uvicorn.Server, listening: socket.socket) -> None:
  """Answers until ctrl-C or SIGTERM, which ends the process, or until `should_exit` is set."""
  with contextlib.suppress(KeyboardInterrupt), listening:
    server.run(sockets=[listening])
