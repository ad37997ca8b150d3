# SPDX-License-Identifier: Apache-2.0
"""A blind listening test in the browser: which stem fits the music, the true one or the model's?

A server on this machine alone gives out the page, and audio by trial number and letter; which
letter is which set stays here. It answers no request that another site made, or that came under a
foreign host name (DNS rebinding).
"""

import contextlib
import functools
import os
import tempfile
import threading
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import (
  FileResponse,
  HTMLResponse,
  JSONResponse,
  PlainTextResponse,
  Response,
)
from starlette.routing import Route

from stemgen_jax.errors import UserError
from stemgen_jax.evaluate.listening_test.opinions import (
  BEST,
  RATINGS,
  SETS,
  add_rating,
  check_rater,
  is_rating,
  mean_opinion_scores,
  read_ratings,
  tabulate_opinions,
)
from stemgen_jax.evaluate.listening_test.trials import mix_example, plan, read_examples
from stemgen_jax.pages.page import render
from stemgen_jax.web.bodies import TooLarge, parse_object, read_body
from stemgen_jax.web.guard import Guard
from stemgen_jax.web.server import bind, build_server, serve

LABELS = "ABC"[: len(SETS)]
MOST_BYTES = 4096  # of what a page sends
KEPT_TRIALS = 4  # whose audio stays in memory
NO_STORE = {"Cache-Control": "no-store"}  # which the browser is not to keep


def listen(report: Path, *, port: int = 0, rater: str = "", seed: int = 0) -> None:
  """Serves the test until ctrl-C or the page's finish, then prints the scores of all raters.

  Args:
    report: a folder with examples.json; the ratings go into its folder `ratings`.
    port: of 127.0.0.1; 0 for one that is free.
    rater: who listens; the page asks if it is not given.
    seed: with the rater's name, of the order of the trials and of the stems in them.

  Raises:
    UserError: if the report cannot be used, the name cannot name a file, or the port is taken.
  """
  if rater:
    read_ratings(report, check_rater(rater))
  with Server(report, port, rater, seed) as server:
    print(f"Listening test: {server.address} (ctrl-C ends it)", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
      server.serve()
  if any((report / RATINGS).glob("*.jsonl")):
    print(tabulate_opinions(mean_opinion_scores(report)), end="")
  else:
    print("No ratings yet.")


class Server:
  """The test of one report: its page, its audio and its ratings."""

  def __init__(self, report: Path, port: int, rater: str, seed: int):
    self.report, self.seed = report, seed
    self.examples = read_examples(report)
    self.page = render("listen.html", rater=rater, labels=LABELS, best=BEST)
    self.mixing, self.saving = threading.Lock(), threading.Lock()  # requests are answered at once
    self.write = functools.lru_cache(maxsize=KEPT_TRIALS)(self._write)
    self.socket = bind(port)
    self.folder = tempfile.TemporaryDirectory()
    self.server_port = self.socket.getsockname()[1]
    self.server = build_server(self._build())

  def __enter__(self) -> "Server":
    return self

  def __exit__(self, *error: object) -> None:
    self.socket.close()
    self.folder.cleanup()

  @property
  def address(self) -> str:
    """Where the page is."""
    return f"http://127.0.0.1:{self.server_port}/"

  def serve(self) -> None:
    """Answers until `stop`, or ctrl-C."""
    serve(self.server, self.socket)

  def stop(self) -> None:
    """Ends the server from another thread, or from a request."""
    self.server.should_exit = True

  def find_sound(self, rater: str, trial: int, label: str) -> Path | None:
    """Returns the WAV file of a rater's trial, or None if there is no such trial."""
    if trial >= len(self.examples) or label not in ("context", *LABELS):
      return None
    example, sets = plan(self.examples, self.seed, rater)[trial]
    with self.mixing:  # the page asks for all of a trial's audio at once
      files = self.write(self.examples.index(example))
    return files["context" if label == "context" else sets[LABELS.index(label)]]

  def _write(self, number: int) -> dict[str, Path]:
    """Returns the files of an example, by set, whose names and times tell nothing."""
    files = {}
    for place, (name, sound) in enumerate(mix_example(self.examples[number]).items()):
      path = Path(self.folder.name) / f"{number}_{place}.wav"
      path.write_bytes(sound)
      os.utime(path, (0, 0))
      files[name] = path
    return files

  def start(self, rater: str) -> list[list[int | None]]:
    """Returns the ratings of each trial, in the order of LABELS; None where there is none yet."""
    found = read_ratings(self.report, check_rater(rater))
    return [
      [found.get((example.name, name), {}).get("rating") for name in sets]
      for example, sets in plan(self.examples, self.seed, rater)
    ]

  def rate(self, rater: str, trial: int, label: str, rating: int) -> None:
    """Saves a rating; raises a UserError, and saves nothing, if there is no such thing to rate."""
    check_rater(rater)
    if not 0 <= trial < len(self.examples) or label not in list(LABELS) or not is_rating(rating):
      raise UserError(
        f"rating must be 1 to {BEST}, of one of {', '.join(LABELS)} of trials 0 to"
        f" {len(self.examples) - 1}; got {rating} of {label[:20]!r} of trial {trial}."
      )
    example, sets = plan(self.examples, self.seed, rater)[trial]
    name = sets[LABELS.index(label)]
    with self.saving:
      add_rating(self.report, rater, example.name, example.song, name, rating)

  def _build(self) -> Starlette:
    def post(path: str) -> Route:
      return Route(path, getattr(self, f"_answer_{path[1:]}"), methods=["POST"])

    return Starlette(
      routes=[
        Route("/", self._answer_page),
        Route("/audio/{rater}/{trial:int}/{label}.wav", self._answer_sound),
        *(post(path) for path in ("/start", "/rate", "/finish")),
      ],
      middleware=[Middleware(Guard)],
      exception_handlers={UserError: _refuse, HTTPException: _refuse},
    )

  async def _answer_page(self, request: Request) -> Response:
    return HTMLResponse(self.page, headers=NO_STORE)

  def _answer_sound(self, request: Request) -> Response:
    rater, trial, label = (request.path_params[name] for name in ("rater", "trial", "label"))
    try:
      sound = self.find_sound(check_rater(rater), trial, label)
    except UserError:
      sound = None
    if sound is None:
      raise HTTPException(404)
    return FileResponse(sound, headers=NO_STORE, media_type="audio/wav")

  async def _answer_start(self, request: Request) -> Response:
    asked = await _read(request, {"rater": str})
    return JSONResponse(await run_in_threadpool(self.start, **asked), headers=NO_STORE)

  async def _answer_rate(self, request: Request) -> Response:
    asked = await _read(request, {"rater": str, "trial": int, "label": str, "rating": int})
    return JSONResponse(await run_in_threadpool(self.rate, **asked), headers=NO_STORE)

  async def _answer_finish(self, request: Request) -> Response:
    await _read(request, {})
    return JSONResponse({}, headers=NO_STORE, background=BackgroundTask(self.stop))


async def _read(request: Request, fields: dict[str, type]) -> dict[str, Any]:
  """Returns the body's values; raises a UserError unless it is JSON of just these fields."""
  kind, body = request.headers.get("content-type"), b""
  with contextlib.suppress(TooLarge):
    body = await read_body(request, MOST_BYTES)
  sent = parse_object(body) if kind == "application/json" else None  # which no form can send
  if sent is None or {name: type(value) for name, value in sent.items()} != fields:
    wanted = ", ".join(f"{name} ({kind.__name__})" for name, kind in fields.items())
    raise UserError(
      f"body must be application/json of at most {MOST_BYTES} bytes, an object of just"
      f" [{wanted}]; got {kind} {body[:80].decode(errors='replace')!r}."
    )
  return sent


async def _refuse(request: Request, error: Exception) -> Response:
  if isinstance(error, HTTPException):
    return PlainTextResponse("not found\n", 404, headers=NO_STORE)
  return PlainTextResponse(f"{error}\n", 400, headers=NO_STORE)
