# SPDX-License-Identifier: Apache-2.0
r"""Opens the looper in the browser: lanes that listen to each other, written while you play.

Examples:
  python -m stemgen_jax.looper                            # a new session, in looper/
  python -m stemgen_jax.looper --session looper/mine      # begun there, or gone on with
  python -m stemgen_jax.looper --checkpoint runs/mine     # with a model of your own
  python -m stemgen_jax.looper --recorded                 # without a model, to see how it is

Prints the address of the page, which only this machine can reach and only with its token. What is
made is saved at every change; ctrl-C ends it.
"""

import argparse
import secrets
import sys
import webbrowser
from pathlib import Path

from stemgen_jax.errors import UserError, run_cli
from stemgen_jax.looper.app import build_app
from stemgen_jax.looper.desk import Desk
from stemgen_jax.looper.flags import Model
from stemgen_jax.looper.recorded import Recorded, begin_recorded
from stemgen_jax.looper.session import Session, new_folder
from stemgen_jax.looper.worker import Worker
from stemgen_jax.shell.flags import build_parser
from stemgen_jax.training.weights import check_place
from stemgen_jax.web.server import bind, build_server, serve


def main(argv: list[str] | None = None) -> None:
  """Serves the page until ctrl-C."""
  parser = build_parser(__doc__)
  add = parser.add_argument
  add("--session", type=Path, help="folder of the session (default: a new one in looper/)")
  add(
    "--checkpoint",
    default="shipped",
    metavar="MODEL",
    help="as of stemgen_jax.sample (default: shipped, that of this package)",
  )
  add("--codec", type=Path, help="codec bundle (default: where training had it, or the demo codec)")
  add("--port", type=int, default=0, help="of this machine (default 0: one that is free)")
  add(
    "--open",
    action=argparse.BooleanOptionalAction,
    default=True,
    help="whether to open the page in the browser (default: yes)",
  )
  add("--recorded", action="store_true", help="without a model: takes recorded beforehand")
  arguments = parser.parse_args(argv)
  if not arguments.recorded:
    check_place(arguments.checkpoint)
  with bind(arguments.port) as listening:
    first = begin_recorded() if arguments.recorded else None
    session = Session(arguments.session or new_folder(), first)
    model = Model(_absolute(arguments.checkpoint), arguments.codec and arguments.codec.resolve())
    maker = Recorded(session.folder) if arguments.recorded else Worker(session.folder, model)
    desk = Desk(session, maker, model, arguments.recorded)
    port, token = listening.getsockname()[1], secrets.token_urlsafe(16)
    server = build_server(build_app(desk, port, token), desk.events.end)
    address = f"http://127.0.0.1:{port}/?token={token}"
    desk.jobs.refused = lambda: setattr(server, "should_exit", True)
    print(f"looper: {address}", flush=True)
    print(f"session: {session.folder} (ctrl-C ends it)", file=sys.stderr, flush=True)
    if arguments.open:
      webbrowser.open(address)
    serve(server, listening)
    session.close()
  if desk.jobs.refusal:
    raise UserError(desk.jobs.refusal)


def _absolute(checkpoint: str) -> str:
  """Returns a checkpoint so that it is found from any folder."""
  path = Path(checkpoint)
  return str(path.resolve()) if path.exists() else checkpoint


if __name__ == "__main__":
  sys.exit(run_cli(main))
