# SPDX-License-Identifier: Apache-2.0
"""Fingerprints of codes: the same music is found through the codec, other music is not."""

import io

import numpy as np
import pytest
import soundfile

from data_prep.checks.duplicates import (
  COMMON,
  MOST,
  SAME,
  choose_limit,
  find_alike,
  hash_shingles,
)
from data_prep.tokens.augment import Augmentation, augment_stems
from stemgen_jax import codec as codecs
from stemgen_jax.codec.bundle import DEMO_BUNDLE

ALL = choose_limit(1)


@pytest.fixture(scope="module")
def encode():
  codec = codecs.load(DEMO_BUNDLE)
  return lambda audio: hash_shingles(codec.encode(audio[None])[0].astype(np.uint16), ALL)


def compress(audio, form):
  file = io.BytesIO()
  soundfile.write(file, audio.T, 16_000, format=form)
  file.seek(0)
  return soundfile.read(file, dtype="float32", always_2d=True)[0].T[:, : audio.shape[1]]


CHANGES = {
  "whole frames later": lambda audio: np.pad(audio, ((0, 0), (320 * 7, 0))),
  "an excerpt": lambda audio: audio[:, 320 * 50 : 320 * 150],
  "ogg": lambda audio: compress(audio, "OGG"),
  "mp3": lambda audio: compress(audio, "MP3"),
  "1 dB quieter": lambda audio: audio * np.float32(10 ** (-1 / 20)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_same_music_is_found(music, encode, change):
  (pair,) = find_alike(
    [encode(music), encode(music[:, ::-1].copy()), encode(CHANGES[change](music))]
  )
  assert (pair.first, pair.second) == (0, 2)
  assert pair.share > SAME


def test_other_music_is_not(music, encode):
  higher = augment_stems(music[None], 16_000, Augmentation(3, 1.0))[0]
  rng = np.random.default_rng(0)
  noise = rng.normal(0, 0.1, music.shape).astype(np.float32)
  assert (
    find_alike([encode(music), encode(music[:, ::-1].copy()), encode(higher), encode(noise)]) == []
  )


def draw(seed, frames=400):
  return np.random.default_rng(seed).integers(0, 1024, (frames, 4)).astype(np.uint16)


def test_one_stem_of_several():
  songs = [
    np.unique(np.concatenate([hash_shingles(draw(seed), ALL) for seed in seeds]))
    for seeds in ((0, 1, 2, 3), (4, 5, 6, 2), (7, 8, 9))
  ]
  (pair,) = find_alike(songs)
  assert (pair.first, pair.second) == (0, 1)
  assert pair.share == pytest.approx(0.25, abs=0.01)


def test_what_everybody_has_says_nothing():
  drums = draw(99, 800)
  songs = [
    np.unique(np.concatenate([hash_shingles(codes, ALL) for codes in (drums, draw(i))]))
    for i in range(COMMON + 1)
  ]
  assert find_alike(songs) == []
  assert len(find_alike(songs[:COMMON])) == COMMON * (COMMON - 1) / 2


def test_edges():
  assert find_alike([]) == []
  assert find_alike([np.zeros(0, np.uint64)] * 3) == []
  assert hash_shingles(draw(0, 3), ALL).size == 0
  assert find_alike([hash_shingles(draw(0, 9), ALL)] * 2) == []  # too few to tell


def test_a_large_dataset_keeps_a_share_and_still_finds_it():
  limit = choose_limit(MOST * 16)
  songs = [hash_shingles(draw(seed, 12_000), limit) for seed in (0, 1, 0, 2)]
  assert len(songs[0]) == pytest.approx(12_000 / 16, rel=0.15)
  (pair,) = find_alike(songs)
  assert (pair.first, pair.second, pair.share) == (0, 2, 1.0)
