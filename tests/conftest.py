# SPDX-License-Identifier: Apache-2.0
"""Eight simulated CPU devices, strict JAX, type-checked calls, and a tiny dataset of tokens."""

import fcntl
import functools
import itertools
import os
import signal
from importlib.machinery import SourceFileLoader
from importlib.metadata import version
from pathlib import Path
from unittest import mock

KEPT = Path(__file__).parents[1] / ".pytest_cache"


def claim_folder(root):
  """Returns a folder under `root` that is this process's own until it ends."""
  root.mkdir(parents=True, exist_ok=True)
  for number in itertools.count():
    lock = os.open(root / f"{number}.lock", os.O_CREAT | os.O_RDWR)
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      os.close(lock)
    else:
      return root / str(number)


# A shell's background job inherits that Ctrl-C is ignored; the programs that tests start must not.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault(
  "OMP_NUM_THREADS", "1"
)  # torch threads wait by spinning: slow on shared cores
# Most of a test's time is compilation: each program is compiled once for all workers and commands,
# without LLVM's optimisation and by the emitters that compile fastest.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(KEPT / "xla")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
FAST_COMPILE = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):  # later ones die of an unknown flag
  FAST_COMPILE += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count=8 {FAST_COMPILE}"
# Two processes that write one numba cache at a time leave code of the wrong types in it, and
# librosa then crashes: every worker has a folder of its own, and keeps it for its next run.
os.environ["NUMBA_CACHE_DIR"] = str(claim_folder(KEPT / "numba"))

from jaxtyping import _import_hook, install_import_hook


def get_code(loader, name):
  """Returns a module's checked code; jaxtyping keeps it apart, and only it.

  As jaxtyping has it, the libraries that such a module imports would be compiled anew too.
  """
  tag = functools.partial(_import_hook._optimized_cache_from_source, loader._typechecker.get_hash())
  with mock.patch("importlib._bootstrap_external.cache_from_source", tag):
    return SourceFileLoader.get_code(loader, name)


_import_hook._JaxtypingLoader.get_code = get_code
_import_hook._JaxtypingLoader.exec_module = SourceFileLoader.exec_module
install_import_hook("stemgen_jax", "beartype.beartype")

import jax  # after the settings above
import numpy as np
import pytest
from absl import flags

jax.config.update("jax_numpy_rank_promotion", "raise")
if not flags.FLAGS.is_parsed():
  flags.FLAGS.mark_as_parsed()  # Grain workers read absl flags

INSTRUMENTS = ("drums", "bass", "keys")
TINY_CODES, TINY_LEVELS = 16, 4


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory):
  """Eight songs of random codes, in which every mix repeats the codes of the stem it lacks."""
  from stemgen_jax.data.clips import Clip, Metadata
  from stemgen_jax.data.records import write_dataset

  rng = np.random.default_rng(0)

  def clip(song):
    stems = rng.integers(0, TINY_CODES, (3, 40, TINY_LEVELS)).astype(np.uint16)
    gain_db = np.where(np.concatenate([np.zeros((1, 3)), 1 - np.eye(3)]), 0, -np.inf)
    return Clip(
      song=song,
      clip=0,
      start_frame=0,
      stem_codes=stems,
      stem_conditions=np.arange(3, dtype=np.int32)[:, None],
      stem_level_db=np.full((3, 10), -20, np.float16),
      mix_codes=np.concatenate([np.zeros_like(stems[:1]), stems]),
      mix_gain_db=gain_db.astype(np.float16),
      mix_lufs=np.array([-np.inf, -16, -16, -16], np.float16),
    )

  metadata = Metadata(
    codec_fingerprint="tiny",
    n_levels=TINY_LEVELS,
    n_codes=TINY_CODES,
    frame_rate_hz=25.0,
    sample_rate_hz=16_000,
    channels=1,
    sources={"instrument": INSTRUMENTS},
    level_frames=4,
    clip_s=60.0,
  )
  splits = {
    "train": [[clip(f"train{i}") for i in range(8)]],
    "validation": [[clip(f"validation{i}") for i in range(4)]],
  }
  return write_dataset(tmp_path_factory.mktemp("tiny"), "tiny", metadata, splits)


@pytest.fixture
def tiny_config(tiny_dataset):
  """A function that returns the config of a model that fits the tiny dataset."""
  from stemgen_jax.config import Config, DataConfig, ModelConfig, OptimConfig, SampleConfig

  def make(**model):
    return Config(
      name="tiny",
      model=ModelConfig(
        **{
          "n_levels": TINY_LEVELS,
          "n_codes": TINY_CODES,
          "dim": 32,
          "n_layers": 2,
          "n_heads": 2,
          "mlp_dim": 64,
          "sources": {"instrument": INSTRUMENTS},
        }
        | model
      ),
      data=DataConfig(path=str(tiny_dataset), crop_frames=20, batch_size=8),
      optim=OptimConfig(steps=6, warmup_steps=2, learning_rate=3e-3),
      sample=SampleConfig(steps=(4, 3, 2, 2)),
      log_every_steps=1,
      eval_every_steps=3,
      eval_batches=1,
      checkpoint_every_steps=2,
    )

  return make


@pytest.fixture
def corpus(tmp_path):
  """Three training songs of constant tones and one for validation, in Slakh's layout."""
  from small_corpus import write_song

  root = tmp_path / "music"
  for i in range(3):
    write_song(root, "train", f"Track{i:05d}", seconds=3.0 + i)
  write_song(root, "validation", "Track00009")
  return root


@pytest.fixture(scope="session")
def music():
  """Four seconds of chords, bass and drums, [1, samples], through the General MIDI SoundFont."""
  tinysoundfont = pytest.importorskip("tinysoundfont", reason="music is rendered with it")
  pretty_midi = pytest.importorskip("pretty_midi", reason="it ships the SoundFont")
  rate_hz = 16_000
  synth = tinysoundfont.Synth(samplerate=rate_hz)
  font = synth.sfload(pretty_midi.__path__[0] + "/TimGM6mb.sf2")
  for channel, (program, drums) in enumerate([(0, False), (33, False), (0, True)]):
    synth.program_select(channel, font, 0, program, drums)
  sound = np.zeros((4 * rate_hz, 2), np.float32)
  for beat, half in enumerate(np.split(sound, 8)):
    for note in (60, 64 + beat % 3, 67 + beat % 2):
      synth.noteon(0, note, 90)
    synth.noteon(1, 36 + beat, 100)
    synth.noteon(2, 36 if beat % 2 else 38, 100)
    synth.generate_simple(len(half), memoryview(half).cast("B"))
  return sound.T[:1] / np.abs(sound).max()


@pytest.fixture(scope="session")
def make_stemgen():
  """A function that returns a tiny untrained `StemGen` of the demo codec, on some devices."""
  import dataclasses

  from configs.demo import get_config
  from stemgen_jax import codec
  from stemgen_jax.config import MeshConfig
  from stemgen_jax.model import sharding
  from stemgen_jax.model.network import build
  from stemgen_jax.sampling.stemgen import StemGen

  config = get_config()
  config = dataclasses.replace(
    config,
    model=dataclasses.replace(config.model, dim=32, n_layers=2, n_heads=2, mlp_dim=64, unroll=1),
    data=dataclasses.replace(config.data, crop_frames=60),
    sample=dataclasses.replace(config.sample, steps=(3, 2, 1, 1)),
  )
  params, bundle = build(config.model).init(jax.random.key(0)), codec.load()

  def make(devices):
    mesh = sharding.build_mesh(MeshConfig(), jax.devices()[:devices])
    placed = jax.device_put(params, sharding.tree_shardings(params, mesh))
    about = {"checkpoint": "tiny", "step": 0, "mix_lufs": -20.0, "listening_score_nats": None}
    return StemGen(config, placed, bundle, mesh, about)

  return make


@pytest.fixture(scope="session")
def stemgen(make_stemgen):
  """One of `make_stemgen` on one device."""
  return make_stemgen(1)
