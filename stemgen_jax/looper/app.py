# SPDX-License-Identifier: Apache-2.0
"""The routes of the looper: JSON in and out, sounds, pictures, and the page's own files.

No path from outside is ever opened: files of the page are a fixed list, sounds are found by the ids
of takes that the session knows.
"""

import asyncio
import contextlib
import errno
import math
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import soundfile
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from stemgen_jax.errors import FULL, UserError
from stemgen_jax.looper import edits, export, pictures
from stemgen_jax.looper.desk import Desk
from stemgen_jax.looper.document import RATE_HZ
from stemgen_jax.looper.jobs import describe_error
from stemgen_jax.looper.session import SOURCES, WORK, NotSaved
from stemgen_jax.web.bodies import TooLarge, parse_object, read_body
from stemgen_jax.web.guard import Guard

PAGE = Path(__file__).parent / "page"
EXAMPLE = Path(__file__).parents[1] / "shipped/example.ogg"
KINDS = {
  ".html": "text/html; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".svg": "image/svg+xml",
  ".png": "image/png",
  ".jpg": "image/jpeg",
}
SOUNDS = ("wav", "flac", "ogg", "oga", "mp3", "aif", "aiff")
MOST_BODY, MOST_SOUND = 64 * 1024, 64 * 1024 * 1024  # bytes
STATUS = {edits.NotFound: 404, edits.Conflict: 409, edits.Unavailable: 503, NotSaved: 507}
POLICY = (
  "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; worker-src 'self' blob:;"
  " style-src 'self' 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
  "Cache-Control": "no-store",
  "Content-Security-Policy": POLICY,
  "Referrer-Policy": "no-referrer",
  "X-Content-Type-Options": "nosniff",
}


def build_app(desk: Desk, port: int, token: str) -> Starlette:
  """Returns the application of a desk, which is answered under a port and with a token alone."""
  routes = Routes(desk)
  paths: list[tuple[str, str, Callable[[Request], Awaitable[Response]]]] = [
    ("GET", "/", routes.page),
    ("GET", "/static/{name}", routes.static),
    ("GET", "/api/state", routes.state),
    ("GET", "/api/events", routes.events),
    ("POST", "/api/edit", routes.edit),
    ("POST", "/api/undo", routes.undo),
    ("POST", "/api/redo", routes.redo),
    ("POST", "/api/upload", routes.upload),
    ("POST", "/api/example", routes.example),
    ("POST", "/api/generate", routes.generate),
    ("POST", "/api/cancel", routes.cancel),
    ("GET", "/api/take/{name}.wav", routes.sound),
    ("GET", "/api/take/{name}.json", routes.about),
    ("GET", "/api/spectrogram/{name}.png", routes.spectrogram),
    ("GET", "/api/export.zip", routes.export),
  ]

  @contextlib.asynccontextmanager
  async def run(app: Starlette) -> AsyncIterator[None]:
    desk.start()
    yield
    await desk.jobs.stop()

  return Starlette(
    routes=[Route(path, answer, methods=[method]) for method, path, answer in paths],
    middleware=[Middleware(Guard, port=port, token=token, open_to=("/static/",))],
    exception_handlers={
      UserError: _answer_error,
      OSError: _answer_error,
      soundfile.LibsndfileError: _answer_error,
      ClientDisconnect: _answer_left,
      HTTPException: _answer_http,
      Exception: _answer_bug,
    },
    lifespan=run,
  )


class Routes:
  """What is answered."""

  def __init__(self, desk: Desk):
    self.desk = desk
    self.files = {path.name: path for path in PAGE.iterdir() if path.suffix in KINDS}
    self._receiving = asyncio.Lock()  # one sound at a time is read and decoded
    self._heavy = asyncio.Semaphore(2)

  async def page(self, request: Request) -> Response:
    """The page."""
    return self._file("index.html")

  async def static(self, request: Request) -> Response:
    """A file of the page."""
    return self._file(request.path_params["name"])

  def _file(self, name: str) -> Response:
    path = self.files.get(name)
    if path is None:
      raise edits.NotFound("There is nothing here.")
    return FileResponse(path, headers=HEADERS, media_type=KINDS[path.suffix])

  async def state(self, request: Request) -> Response:
    """The whole state."""
    return _json(self.desk.describe())

  async def events(self, request: Request) -> Response:
    """The state at each change, and progress, for as long as the page listens."""
    return StreamingResponse(
      self.desk.events.listen(), media_type="text/event-stream", headers=HEADERS
    )

  async def edit(self, request: Request) -> Response:
    """A change."""
    return _json(await self.desk.edit(await _read_object(request)))

  async def undo(self, request: Request) -> Response:
    """A step back."""
    return _json(await self.desk.undo())

  async def redo(self, request: Request) -> Response:
    """A step forth."""
    return _json(await self.desk.redo())

  async def generate(self, request: Request) -> Response:
    """A take to be written."""
    return _json(await self.desk.generate(await _read_object(request)))

  async def cancel(self, request: Request) -> Response:
    """A job that is wanted no more."""
    return _json(await self.desk.cancel(await _read_object(request)))

  async def upload(self, request: Request) -> Response:
    """A sound that is sent."""
    query = request.query_params
    name = "".join(c for c in Path(query.get("name", "")).name if c.isprintable())
    name = name[: edits.MOST_NAME].strip() or "sound"
    latency_s = _read_latency(query.get("latency_s"))
    ending = Path(name).suffix.lower().lstrip(".")
    kind = ending if ending in SOUNDS else "wav"
    async with self._receiving:
      source = self.desk.session.folder / SOURCES / f"{self.desk.session.name('s')}.{kind}"
      try:
        await _receive(request, source)
        state = await self.desk.upload(source, query.get("lane", "new"), name, latency_s)
      except BaseException:
        source.unlink(missing_ok=True)
        raise
    return _json(state)

  async def example(self, request: Request) -> Response:
    """The example of the package, as if it had been sent."""
    async with self._receiving:
      source = self.desk.session.folder / SOURCES / f"{self.desk.session.name('s')}.ogg"
      try:
        await asyncio.to_thread(shutil.copyfile, EXAMPLE, source)
        state = await self.desk.upload(source, "new", "example", None)
      except BaseException:
        source.unlink(missing_ok=True)
        raise
    return _json(state)

  async def sound(self, request: Request) -> Response:
    """A take as WAV."""
    take = self.desk.need_take(request.path_params["name"])
    return FileResponse(self.desk.session.path_of(take.id), headers=HEADERS, media_type="audio/wav")

  async def about(self, request: Request) -> Response:
    """What there is to tell of a take."""
    take = self.desk.need_take(request.path_params["name"])
    async with self._heavy:
      samples = await asyncio.to_thread(self.desk.sounds.read, take.id)
      onsets_s = await asyncio.to_thread(pictures.list_onsets, samples, RATE_HZ)
    return _json({"onsets_s": onsets_s, "command": self.desk.show_command(take)})

  async def spectrogram(self, request: Request) -> Response:
    """A take as a picture."""
    take = self.desk.need_take(request.path_params["name"])
    async with self._heavy:
      samples = await asyncio.to_thread(self.desk.sounds.read, take.id)
      png = await asyncio.to_thread(pictures.draw_spectrogram, samples, RATE_HZ)
    return Response(png, media_type="image/png", headers=HEADERS)

  async def export(self, request: Request) -> Response:
    """The session as a zip."""
    session = self.desk.session
    if session.document.is_empty:
      raise edits.Conflict("There is no take to export yet.")
    handle, name = tempfile.mkstemp(".zip", dir=session.folder / WORK)
    path = Path(name)
    try:
      with open(handle, "wb"):
        pass
      async with self._heavy:
        await asyncio.to_thread(
          export.write_zip, path, session.folder, session.document, dict(session.takes),
          self.desk.sounds.read,
        )  # fmt: skip
    except BaseException:
      path.unlink(missing_ok=True)
      raise
    return FileResponse(
      path,
      headers=HEADERS,
      media_type="application/zip",
      filename=f"{session.folder.name}.zip",
      background=BackgroundTask(path.unlink, missing_ok=True),
    )


def _json(value: Any, status: int = 200) -> JSONResponse:
  return JSONResponse(value, status, headers=HEADERS)


async def _read_object(request: Request) -> dict[str, Any]:
  """Returns the body, a JSON object of MOST_BODY bytes or less."""
  value = parse_object(await read_body(request, MOST_BODY))
  if value is None:
    raise UserError("The body must be a JSON object.")
  return value


async def _receive(request: Request, path: Path) -> None:
  """Writes a body to a file, MOST_SOUND bytes at most."""
  too_large = TooLarge(f"A sound must have at most {MOST_SOUND // 2**20} MB; cut it first.")
  length = request.headers.get("content-length", "")
  if length.isdecimal() and int(length[:18]) > MOST_SOUND:
    raise too_large
  size = 0
  with path.open("wb") as file:
    async for chunk in request.stream():
      size += len(chunk)
      if size > MOST_SOUND:
        raise too_large
      await asyncio.to_thread(file.write, chunk)
  if not size:
    raise UserError("The sound that was sent is empty.")


def _read_latency(text: str | None) -> float | None:
  if text is None:
    return None
  try:
    latency_s = float(text)
  except ValueError:
    latency_s = math.nan
  if not 0 <= latency_s <= 2:
    raise UserError(f"latency_s must be from 0 to 2 s; got {text[:20]!r}.")
  return latency_s


async def _answer_error(request: Request, error: Exception) -> Response:
  if not isinstance(error, UserError):
    status = 507 if getattr(error, "errno", errno.ENOSPC) in FULL else 500
    return _json({"error": describe_error(error)}, status)
  status = 413 if isinstance(error, TooLarge) else STATUS.get(type(error), 400)
  return _json({"error": " ".join(str(error).split())}, status)


async def _answer_http(request: Request, error: Exception) -> Response:
  status = error.status_code if isinstance(error, HTTPException) else 500
  words = {404: "There is nothing here.", 405: "That cannot be asked for in this way."}
  return _json({"error": words.get(status, "The request cannot be answered.")}, status)


async def _answer_left(request: Request, error: Exception) -> Response:
  return _json({"error": "The page left before all was sent."}, 400)


async def _answer_bug(request: Request, error: Exception) -> Response:
  print(f"looper: {type(error).__name__}: {error}", file=sys.stderr)
  return _json({"error": "Something went wrong in the looper; its terminal says what."}, 500)
