# SPDX-License-Identifier: Apache-2.0
"""A blind listening test in the browser: which stem fits the music, the true one or the model's?

A server on this machine alone gives out the page, and audio by trial number and letter; which
letter is which set stays here. It answers no request that another site made, or that came under a
foreign host name (DNS rebinding).
"""

import contextlib
import functools
import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

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

LABELS = "ABC"[: len(SETS)]
HOSTS = ("127.0.0.1", "localhost")
AUDIO = re.compile(rf"/audio/([a-z0-9_-]+)/(\d{{1,5}})/(context|[{LABELS}])\.wav")
RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
MOST_BYTES = 4096  # of what a page sends
KEPT_TRIALS = 4  # whose audio stays in memory
IDLE_S = 30.0  # after which a silent connection is closed


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
      server.serve_forever(poll_interval=0.1)
  if any((report / RATINGS).glob("*.jsonl")):
    print(tabulate_opinions(mean_opinion_scores(report)), end="")
  else:
    print("No ratings yet.")


class Server(ThreadingHTTPServer):
  """The test of one report: its page, its audio and its ratings."""

  def __init__(self, report: Path, port: int, rater: str, seed: int):
    self.report, self.seed = report, seed
    self.examples = read_examples(report)
    self.page = render("listen.html", rater=rater, labels=LABELS, best=BEST).encode()
    self.mixing, self.saving = threading.Lock(), threading.Lock()  # each request has its thread
    self.mix = functools.lru_cache(maxsize=KEPT_TRIALS)(mix_example)
    try:
      super().__init__((HOSTS[0], port), Handler)
    except (OSError, OverflowError) as error:
      raise UserError(
        f"--port must be a free port of this machine; got {port} ({error}). Choose another, or 0."
      ) from error

  @property
  def address(self) -> str:
    """Where the page is."""
    return f"http://{HOSTS[0]}:{self.server_port}/"

  def read_sound(self, rater: str, trial: int, label: str) -> bytes | None:
    """Returns the WAV file of a rater's trial, or None if there is no such trial."""
    if trial >= len(self.examples):
      return None
    example, sets = plan(self.examples, self.seed, rater)[trial]
    with self.mixing:  # the page asks for all of a trial's audio at once
      sounds = self.mix(example)
    return sounds["context" if label == "context" else sets[LABELS.index(label)]]

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


class Handler(BaseHTTPRequestHandler):
  """What the server answers."""

  timeout = IDLE_S

  @property
  def home(self) -> Server:
    """The server, by its own kind."""
    return cast(Server, self.server)

  def handle(self) -> None:
    """Answers a connection; a browser that leaves in the middle is no error."""
    with contextlib.suppress(ConnectionError):
      super().handle()

  def do_GET(self) -> None:
    """Answers with the page or a sound."""
    if not self.is_at_home():
      return
    sound, found = None, AUDIO.fullmatch(self.path)
    if found:
      sound = self.home.read_sound(found[1], int(found[2]), found[3])
    if self.path == "/":
      self.reply(200, self.home.page, "text/html; charset=utf-8")
    elif sound is not None:
      self.send_sound(sound)
    else:
      self.reply(404, b"not found\n")

  def do_POST(self) -> None:
    """Starts a rater's trials, saves a rating, or ends the test."""
    routes: dict[str, tuple[dict[str, type], Callable[..., Any]]] = {
      "/start": ({"rater": str}, self.home.start),
      "/rate": ({"rater": str, "trial": int, "label": str, "rating": int}, self.home.rate),
      "/finish": ({}, dict),
    }
    size = self.headers.get("Content-Length", "")
    fits = bool(re.fullmatch(r"\d{1,4}", size)) and int(size) <= MOST_BYTES
    body = self.rfile.read(int(size)) if fits else b""
    if not self.is_at_home():
      return
    if self.path not in routes:
      self.reply(404, b"not found\n")
      return
    fields, act = routes[self.path]
    try:
      answer = act(**self.parse(body, fields))
    except UserError as error:
      self.reply(400, f"{error}\n".encode())
      return
    self.reply(200, json.dumps(answer).encode(), "application/json")
    if self.path == "/finish":
      self.home.shutdown()

  def is_at_home(self) -> bool:
    """Whether the request is for this host and from its own page; if not, it is refused."""
    host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
    if host.partition(":")[0] in HOSTS and origin in (None, f"http://{host}"):
      return True
    self.reply(403, b"only this machine's own page is answered\n")
    return False

  def parse(self, body: bytes, fields: dict[str, type]) -> dict[str, Any]:
    """Returns the body's values; raises a UserError unless it is JSON of just these fields."""
    kind, values = self.headers.get("Content-Type"), None
    with contextlib.suppress(ValueError, RecursionError):
      values = json.loads(body)
    sent = values if kind == "application/json" else None  # which no form can send
    if not isinstance(sent, dict) or {name: type(value) for name, value in sent.items()} != fields:
      wanted = ", ".join(f"{name} ({kind.__name__})" for name, kind in fields.items())
      raise UserError(
        f"body must be application/json of at most {MOST_BYTES} bytes, an object of just"
        f" [{wanted}]; got {kind} {body[:80].decode(errors='replace')!r}."
      )
    return sent

  def send_sound(self, sound: bytes) -> None:
    """Answers with a sound, or the part of it that the browser's player asks for."""
    found = RANGE.fullmatch(self.headers.get("Range", ""))
    if not found or not any(found.groups()):
      self.reply(200, sound, "audio/wav", {"Accept-Ranges": "bytes"})
      return
    size = len(sound)
    start, stop = int(found[1] or 0), min(size, int(found[2] or size) + 1)
    if not found[1]:  # that many bytes at the end
      start, stop = max(0, size - int(found[2])), size
    if start >= stop:
      self.reply(416, b"", "audio/wav", {"Content-Range": f"bytes */{size}"})
      return
    span = {"Accept-Ranges": "bytes", "Content-Range": f"bytes {start}-{stop - 1}/{size}"}
    self.reply(206, sound[start:stop], "audio/wav", span)

  def reply(
    self,
    status: int,
    body: bytes,
    kind: str = "text/plain; charset=utf-8",
    headers: dict[str, str] | None = None,
  ) -> None:
    """Sends an answer, which the browser is not to keep."""
    self.send_response(status)
    own = {"Content-Type": kind, "Content-Length": str(len(body)), "Cache-Control": "no-store"}
    for name, value in {**own, **(headers or {})}.items():
      self.send_header(name, value)
    self.end_headers()
    self.wfile.write(body)

  def log_message(self, format: str, *arguments: Any) -> None:
    """Says nothing: the terminal is for the address and the scores."""
