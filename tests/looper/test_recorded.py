# SPDX-License-Identifier: Apache-2.0
"""The takes recorded beforehand: all there, all sound, all closed, all as long as the example."""

import numpy as np
import pytest
import soundfile

from stemgen_jax.audio.loudness import measure_lufs
from stemgen_jax.looper import record
from stemgen_jax.looper.document import RATE_HZ
from stemgen_jax.looper.recorded import SECONDS, begin_recorded, list_files, read_take
from stemgen_jax.training.model_bundle import EXAMPLE

FILES = [path for files in list_files().values() for path in files]


def test_each_instrument_has_a_take_of_each_seed():
  names = [f"{name}_{seed}" for name, seeds in record.TAKES.items() for seed in seeds]
  assert sorted(path.stem for path in FILES) == sorted(names)


def test_they_fit_the_song_that_a_recorded_session_begins_with():
  assert begin_recorded().song.begin().loop_samples == round(SECONDS * RATE_HZ)
  assert soundfile.info(EXAMPLE).duration == SECONDS


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_recorded_take_sounds_and_closes(path):
  take = read_take(path)
  assert take.shape == (1, round(SECONDS * RATE_HZ))
  assert measure_lufs(take, RATE_HZ) > -40
  assert np.abs(take).max() <= 1
  step = np.abs(np.diff(take[0]))
  assert np.abs(take[0, 0] - take[0, -1]) <= np.quantile(step, 0.95)
