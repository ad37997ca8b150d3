# SPDX-License-Identifier: Apache-2.0
import itertools

import numpy as np
import pytest

from stemgen_jax.sampling.windows import fill_windows, plan_seam, plan_windows

B, Q, MOST = 2, 3, 12


def run(frames, loop=False, known=None, fill=None):
  """Tokens of a stem that repeats its context, and (context, given, known) of every window."""
  context = np.random.default_rng(frames).integers(1, 50, (B, frames, Q)).astype(np.int32)
  known = np.zeros(context.shape, bool) if known is None else known
  calls, given = [], context + 100

  def repeat(context, given, known, number, wrap):
    calls.append((context, given, known, number, wrap))
    return np.where(known, given, context if fill is None else fill(number))

  steps = [
    (done, total) for done, total, _ in fill_windows(repeat, context, given, known, MOST, loop)
  ]
  *_, (_, _, tokens) = fill_windows(repeat, context, given, known, MOST, loop)
  assert steps == [(i + 1, len(steps)) for i in range(len(steps))]
  return context, given, tokens, calls[: len(calls) // 2]


def test_windows_cover_all_settle_all_and_hear_what_comes():
  for frames in range(1, 70):
    windows = plan_windows(frames, MOST)
    size = min(frames, MOST)
    assert all(w.size == size and 0 <= w.start <= frames - size for w in windows)
    assert windows[-1].settled == frames
    for a, b in itertools.pairwise(windows):
      assert a.start + a.size - a.settled == size // 4
      assert b.start <= a.settled  # nothing is left out
      assert 0 < b.start - a.start <= size // 2


@pytest.mark.parametrize("frames", [1, 2, 3, 11, 12, 13, 40, 47])
@pytest.mark.parametrize("loop", [False, True])
def test_every_frame_is_written_from_its_own_context(frames, loop):
  context, _, tokens, calls = run(frames, loop)
  np.testing.assert_array_equal(tokens, context)
  assert len({call[0].shape for call in calls}) == 1  # one shape, so one compilation


def test_what_is_settled_is_known_to_later_windows_and_never_changes():
  _, _, tokens, calls = run(40, fill=lambda number: number)
  for _, given, known, number, _ in calls[1:]:
    assert known.any()
    assert (given[known] < number).all()
  assert set(np.unique(tokens)) == set(range(len(calls)))
  assert (np.diff(tokens[0, :, 0]) >= 0).all()


def test_given_tokens_stay_and_full_windows_are_passed_over():
  known = np.random.default_rng(0).random((B, 40, Q)) < 0.5
  known[:, :18] = True
  context, given, tokens, calls = run(40, known=known)
  np.testing.assert_array_equal(tokens, np.where(known, given, context))
  later = [i for i, w in enumerate(plan_windows(40, MOST)) if w.start + w.size > 18]
  assert [call[3] for call in calls] == later
  everything = np.ones((B, 40, Q), bool)
  _, given, tokens, calls = run(40, known=everything, loop=True)
  np.testing.assert_array_equal(tokens, given)
  assert calls == []


@pytest.mark.parametrize(("frames", "wrap"), [(2, 1), (4, 2), (8, 2), (9, 1), (11, 0), (12, 0)])
def test_a_loop_with_room_in_a_window_is_written_round(frames, wrap):
  _, _, _, calls = run(frames, loop=True)
  assert calls[0][4] == wrap
  assert len(calls) == (1 if wrap else 2)  # or its seam is written anew
  assert frames + 2 * wrap <= MOST
  _, _, _, calls = run(frames, loop=False)
  assert [call[4] for call in calls] == [0]


@pytest.mark.parametrize("frames", [12, 40])
def test_a_loops_seam_is_written_last_with_both_sides_known(frames):
  context, _, _, calls = run(frames, loop=True)
  seam, _, known, _, _ = calls[-1]
  window, reach = plan_seam(frames, MOST)
  middle = frames - window.start  # where frame 0 stands
  np.testing.assert_array_equal(seam[:, middle], context[:, 0])
  np.testing.assert_array_equal(seam[:, middle - 1], context[:, -1])
  hidden = np.flatnonzero(~known[0, :, 0])
  np.testing.assert_array_equal(hidden, np.arange(middle - reach, middle + reach))
  assert known[:, 0].all()
