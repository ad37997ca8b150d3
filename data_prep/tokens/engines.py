# SPDX-License-Identifier: Apache-2.0
"""Runs the same work on many items, in processes of this machine (`beam_engine`: on others).

A worker is costly to make (it loads a codec), so each process makes one, by calling `make_worker`,
and uses it for every item that it gets. Work writes its result to a folder that every worker sees.
"""

import concurrent.futures
import itertools
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from stemgen_jax.errors import UserError

_worker: Callable[[Any], Any] | UserError | None = None  # of a pool's process


def run_pool(
  make_worker: Callable[[], Callable[[Any], Any]], items: Sequence[Any], workers: int
) -> Iterator[tuple[int, Any]]:
  """Yields (index of an item, its outcome) as items are done.

  Args:
    make_worker: returns the function that does an item; picklable if there are several workers.
    items: picklable too.
    workers: processes; 1 is this one.

  Raises:
    UserError: if `make_worker` raises it, or a process dies.
  """
  if not items:
    return
  if workers == 1:
    work = make_worker()
    yield from ((index, work(item)) for index, item in enumerate(items))
    return
  context = multiprocessing.get_context("spawn")  # torch and JAX have threads: a fork would hang
  pool = concurrent.futures.ProcessPoolExecutor(workers, context, _set_up, (make_worker,))
  numbered, running = iter(enumerate(items)), {}
  try:
    while True:
      for index, item in itertools.islice(numbered, 2 * workers - len(running)):
        running[pool.submit(_work, item)] = index
      if not running:
        return
      done, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
      for future in done:
        yield running.pop(future), future.result()
  except BrokenProcessPool as error:
    raise UserError(
      f"worker processes must stay alive; one of {workers} died, perhaps for lack of memory. Use"
      " fewer --workers; the same command goes on from here."
    ) from error
  finally:
    pool.shutdown(wait=True, cancel_futures=True)


def _set_up(make_worker: Callable[[], Callable[[Any], Any]]) -> None:
  """Makes this process' worker; an error is kept for the first item, as a pool would hide it."""
  global _worker
  try:
    _worker = make_worker()
  except UserError as error:
    _worker = error


def _work(item: Any) -> Any:
  if isinstance(_worker, UserError):
    raise _worker
  if _worker is None:
    raise RuntimeError("a worker must be set up before its first item.")
  return _worker(item)
