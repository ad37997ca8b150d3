# SPDX-License-Identifier: Apache-2.0
"""A looper that answers in a thread of the test, and how it is asked."""

import contextlib
import http.client
import json
import threading
import time
import urllib.parse

from stemgen_jax.looper.app import build_app
from stemgen_jax.looper.desk import Desk
from stemgen_jax.looper.flags import Model
from stemgen_jax.looper.recorded import Recorded, begin_recorded
from stemgen_jax.looper.session import Session
from stemgen_jax.web.server import bind, build_server, serve

TOKEN, LONGEST_S = "secret", 120.0


class Asked:
  """A looper that is served: its desk, and requests to it."""

  def __init__(self, desk, port):
    self.desk, self.port = desk, port

  def send(self, method, path, body=None, token=TOKEN, **headers):
    """Returns status, headers and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LONGEST_S)
    with contextlib.closing(connection):
      names = {name.replace("_", "-"): value for name, value in headers.items()}
      own = {"X-Looper-Token": token} if token else {}
      data = json.dumps(body) if isinstance(body, dict | list) else body
      connection.request(method, path, data, {**own, **names})
      answer = connection.getresponse()
      return answer.status, answer.headers, answer.read()

  def get(self, path):
    """Returns what JSON a path gives."""
    status, _, body = self.send("GET", path)
    assert status == 200, body
    return json.loads(body)

  def post(self, path, body=None, status=200, **query):
    """Returns the JSON answer to what is sent."""
    if query:
      path += "?" + urllib.parse.urlencode(query)
    found, _, answer = self.send("POST", path, {} if body is None else body)
    assert found == status, answer
    return json.loads(answer)

  def state(self):
    """Returns the whole state."""
    return self.get("/api/state")

  def edit(self, op, status=200, **fields):
    """Returns the answer to an edit."""
    return self.post("/api/edit", {"op": op, **fields}, status)

  def generate(self, lane, kind="generate", **fields):
    """Has a take written, and returns it."""
    job = self.post("/api/generate", {"lane": lane, "kind": kind, **fields})["job"]
    state = self.wait(lambda s: job not in [j["job"] for j in s["queue"]])
    return self.take(state, lane)

  def take(self, state, lane):
    """Returns the active take of a lane."""
    (lane,) = (one for one in state["lanes"] if one["id"] == lane)
    (take,) = (one for one in lane["takes"] if one["id"] == lane["active"])
    return take

  def wait(self, fits):
    """Returns the first state that fits."""
    end = time.monotonic() + LONGEST_S
    while not fits(state := self.state()):
      assert time.monotonic() < end, state
      time.sleep(0.02)
    return state


@contextlib.contextmanager
def serving(folder, maker=None, model=None):
  """A looper of a session, with recorded takes unless a maker is given."""
  session = Session(folder, None if maker else begin_recorded())
  maker = maker or Recorded(session.folder)
  desk = Desk(session, maker, model or Model(), isinstance(maker, Recorded))
  with bind(0) as listening:
    port = listening.getsockname()[1]
    server = build_server(build_app(desk, port, TOKEN), desk.events.end)
    thread = threading.Thread(target=serve, args=(server, listening))
    thread.start()
    try:
      yield Asked(desk, port)
    finally:
      server.should_exit = True
      thread.join()
      session.close()
