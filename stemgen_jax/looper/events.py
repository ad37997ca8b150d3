# SPDX-License-Identifier: Apache-2.0
"""Server-sent events: each page gets the newest state, and progress, however slowly it reads."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

QUIET_S = 10.0  # after which a comment is sent


class Events:
  """Pages that listen; what they have not yet been sent is kept as the newest of each kind."""

  def __init__(self, state: Callable[[], dict[str, Any]]):
    """`state` gives the whole state whenever it is sent."""
    self._state = state
    self._listeners: set[_Listener] = set()
    self._ended = False

  def tell_state(self) -> None:
    """Lets every page have the state."""
    for listener in self._listeners:
      listener.stale = True
      listener.woken.set()

  def tell_progress(self, job: str, progress: float, seconds_left: float | None) -> None:
    """Lets every page have a job's progress, from 0 to 1."""
    told = {"job": job, "progress": progress, "seconds_left": seconds_left}
    for listener in self._listeners:
      listener.progress = told
      listener.woken.set()

  def end(self) -> None:
    """Lets no page listen any longer."""
    self._ended = True
    for listener in self._listeners:
      listener.woken.set()

  async def listen(self) -> AsyncIterator[str]:
    """Yields events to one page, the state first, until it leaves or all ends."""
    listener = _Listener()
    self._listeners.add(listener)
    try:
      while not self._ended:
        if listener.stale:
          listener.stale = False
          yield f"event: state\ndata: {json.dumps(self._state())}\n\n"
        if told := listener.progress:
          listener.progress = None
          yield f"event: progress\ndata: {json.dumps(told)}\n\n"
        try:
          await asyncio.wait_for(listener.woken.wait(), QUIET_S)
        except TimeoutError:
          yield ": still here\n\n"
        listener.woken.clear()
    finally:
      self._listeners.discard(listener)


class _Listener:
  def __init__(self):
    self.woken = asyncio.Event()
    self.stale = True
    self.progress: dict[str, Any] | None = None
