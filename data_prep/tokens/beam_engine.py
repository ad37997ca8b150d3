# SPDX-License-Identifier: Apache-2.0
"""Runs the same work on many items as an Apache Beam pipeline, on whatever runner Beam has.

Work writes its result to a folder that every worker must see under the same path (a disk of this
machine, NFS, a mounted bucket): nothing comes back through the pipeline.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import create_runner

from stemgen_jax.errors import UserError


def run_beam(
  make_worker: Callable[[], Callable[[Any], Any]],
  items: Sequence[Any],
  runner: str,
  options: Sequence[str] = (),
) -> None:
  """Does every item; returns when the pipeline is done.

  Args:
    make_worker: returns the function that does an item; called once by each of Beam's workers.
    items: picklable.
    runner: its name, as DirectRunner, FlinkRunner or DataflowRunner.
    options: Beam's own flags, as --direct_num_workers=4.

  Raises:
    UserError: if there is no such runner or flag, or the pipeline fails.
  """
  if not items:
    return
  logging.getLogger("apache_beam").setLevel(logging.WARNING)
  try:
    chosen = create_runner(runner)
    flags = PipelineOptions([f"--runner={runner}", *options])
    known = flags.get_all_options(drop_default=True, retain_unknown_options=False)
  except (ValueError, SystemExit) as error:  # Beam's parser has said what is wrong, and leaves
    why = "see above" if isinstance(error, SystemExit) else _last_line(error)
    raise UserError(
      f"--runner and its flags must be Beam's; got {runner} {' '.join(options)} ({why})."
    ) from error
  unknown = [word for word in options if word.startswith("--") and _name(word) not in known]
  if unknown:
    raise UserError(f"flags must be ours or Beam's; got {' '.join(unknown)}. See --help.")
  try:
    with beam.Pipeline(runner=chosen, options=flags) as pipeline:
      # Reshuffle: else the runner may keep all items with the step that lists them, on one worker.
      pipeline | beam.Create(list(items)) | beam.Reshuffle() | beam.ParDo(_Work(make_worker))
  except Exception as error:  # each runner has its own kinds
    raise UserError(
      f"the pipeline must succeed; got {_last_line(error)} on {runner}. The same command goes on"
      " from here."
    ) from error


class _Work(beam.DoFn):
  """Makes a worker once, and gives it one item after the other."""

  def __init__(self, make_worker: Callable[[], Callable[[Any], Any]]):
    self._make_worker = make_worker

  def setup(self) -> None:
    self._work = self._make_worker()

  def process(self, element: Any) -> None:
    self._work(element)


def _name(word: str) -> str:
  return word.lstrip("-").partition("=")[0]


def _last_line(error: Exception) -> str:
  lines = [line for line in str(error).splitlines() if line.strip()]
  return f"{type(error).__name__}: {lines[-1].strip() if lines else ''}"
