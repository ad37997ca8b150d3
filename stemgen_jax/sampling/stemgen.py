# SPDX-License-Identifier: Apache-2.0
"""`StemGen`: a trained model and its codec, ready to write stems, for commands and notebooks."""

import functools
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Float, Int

from stemgen_jax import codec as codecs
from stemgen_jax.audio.files import Samples
from stemgen_jax.codec.bundle import DEMO_BUNDLE
from stemgen_jax.config import Config, MeshConfig, SampleConfig
from stemgen_jax.errors import UserError
from stemgen_jax.model import sharding
from stemgen_jax.model.decode import options_of
from stemgen_jax.model.generate import build_generate, steering_of, take_keys, window_keys
from stemgen_jax.model.network import build
from stemgen_jax.model.score import build_nll
from stemgen_jax.sampling import transcode
from stemgen_jax.sampling.job import Job
from stemgen_jax.sampling.request import Request
from stemgen_jax.sampling.result import Result, finish
from stemgen_jax.sampling.windows import fill_windows
from stemgen_jax.shell import compilation_cache
from stemgen_jax.training.weights import load_average
from stemgen_jax.types import Bool, Keys, Params


def find_bundle(config: Config, codec: str | os.PathLike | None = None) -> Path:
  """Returns the codec bundle that is given; else that of training, or the demo codec's."""
  own = Path(config.data.codec) if config.data.codec else DEMO_BUNDLE
  return Path(codec) if codec is not None else own if own.is_dir() else DEMO_BUNDLE


def check_codec(fingerprint: str, bundle: Path, meta: Mapping[str, Any]) -> None:
  """Raises a UserError unless a bundle is that of the codec that a model was trained on."""
  wanted = meta["dataset"]["codec_fingerprint"]
  if fingerprint != wanted:
    raise UserError(
      f"codec must be the one the checkpoint was trained on, {wanted[:12]}; got {bundle} with"
      f" fingerprint {fingerprint[:12]}. Give that codec's bundle as --codec."
    )


class StemGen:
  """Writes stems. Compiled functions stay with the object, and on disk for the next process."""

  def __init__(
    self, config: Config, params: Params, codec: codecs.Codec, mesh: Mesh, meta: Mapping[str, Any]
  ):
    """`params` lie on `mesh`, whose devices share the takes; `meta` goes into what is returned."""
    self.config, self.codec = config, codec
    platform = mesh.devices.flat[0].platform
    network, self._params = sharding.suit_platform(config.model, params, platform)
    self._mesh, self._meta = mesh, dict(meta)
    given = None if mesh.size == 1 and platform != "tpu" else mesh  # whose kernel needs one
    model = build(network, given)
    self._generate = build_generate(model, network.n_codes, given)
    self._nll = build_nll(model, config.model.n_codes, config.data.crop_frames)

  @classmethod
  def from_checkpoint(
    cls,
    path: str | os.PathLike = "shipped",
    codec: str | os.PathLike | None = None,
    devices: int = 1,
  ) -> "StemGen":
    """Loads the averaged weights of a training run.

    Args:
      path: a workdir of `stemgen_jax.train`, a folder of `stemgen_jax.export`, "shipped", the
        model of this package, or hf://OWNER/NAME, one that somebody has published.
      codec: the bundle of the codec it was trained on; None looks where training had it, then
        takes the demo codec.
      devices: how many share the takes of a batch.

    Raises:
      UserError: if there is no whole checkpoint, the codec is another one, or devices are missing.
    """
    compilation_cache.enable()
    if not 1 <= devices <= len(jax.devices()):
      raise UserError(
        f"devices must be 1 to {len(jax.devices())}, as many as there are; got {devices}."
      )
    mesh = sharding.build_mesh(MeshConfig(), jax.devices()[:devices])
    config, params, meta = load_average(path, mesh)
    bundle = find_bundle(config, codec)
    loaded = codecs.load(bundle)
    check_codec(loaded.fingerprint, bundle, meta)
    about = {
      "checkpoint": meta["checkpoint"],
      "step": meta["step"],
      "codec": loaded.fingerprint,
      "decoder": loaded.decoder_fingerprint,
      "mix_lufs": meta["dataset"].get("mix_lufs"),
      "listening_score_nats": meta.get("listening_score_nats"),
    }
    return cls(config, params, loaded, mesh, about)

  def describe(self) -> dict[str, Any]:
    """Returns where the model is from and what it takes for normal.

    "checkpoint", "step", "codec", "decoder" (None for EnCodec's own); "mix_lufs", the loudness
    that every context is brought to, and "listening_score_nats", that of true stems: None where
    training did not tell.
    """
    return dict(self._meta)

  def generate(
    self,
    context: np.ndarray,
    *,
    sample_rate: int,
    instrument: str | None = None,
    conditions: Mapping[str, str] | None = None,
    takes: int = 1,
    seed: int = 0,
    stem: np.ndarray | None = None,
    keep: Sequence[tuple[float, float]] = (),
    vary: float = 0.0,
    loop: bool = False,
    level: float | None = None,
    **settings: Any,
  ) -> Result:
    """Writes stems for a piece of music.

    Args:
      context: float samples in [-1, 1], [samples] or [channels, samples]; zeros for silence.
      sample_rate: its rate in Hz, and that of what comes back.
      instrument: short for conditions={"instrument": ...}.
      conditions: value of each categorical source; what is left out is unknown.
      takes: how many stems, in one batch.
      seed: the same seed gives the same stems on the same machine.
      stem: an existing stem, as `context`, to keep parts of or to vary.
      keep: stretches (from_s, to_s) of it that stay to the sample.
      vary: share of its other frames to write anew; 0 for all of them.
      loop: the end is followed by the start: what comes back closes without a click.
      level: loudness in LU over the context's; None leaves it as loud as the model meant it. A
        stem that is given keeps its own.
      settings: of `config.SampleConfig`: steps, w_c, w_s, w_r, temperature, top_p,
        guidance={"context": 3.0}, guidance_mode, ..., or preset.

    Raises:
      UserError: if anything asked for cannot be.
    """
    named = dict(conditions or {})
    if instrument is not None:
      named["instrument"] = instrument
    request = Request(
      context=_as_samples(context, "context"), rate_hz=sample_rate, conditions=named, takes=takes,
      seed=seed, stem=None if stem is None else _as_samples(stem, "stem"), keep_s=list(keep),
      vary=vary, loop=loop, level_lu=level if stem is None else None, settings=settings,
    )  # fmt: skip
    return next(self.run([self.plan(request)]))

  def plan(self, request: Request) -> Job:
    """Returns the job that a request comes to.

    Raises:
      UserError: if it breaks a rule, or this model cannot meet it.
    """
    return Job.plan(request, self.config, self.codec)

  def run(
    self,
    jobs: Sequence[Job],
    most_rows: int = 8,
    advance: Callable[[str], None] = lambda text: None,
  ) -> Iterator[Result]:
    """Yields the results of jobs, in order; neighbours that fit each other share a batch.

    Args:
      jobs: of `plan`; computed as the results are asked for.
      most_rows: takes computed at once, over several jobs; one job's are never divided.
      advance: called with a few words on what is being done.
    """
    for _, alike in itertools.groupby(jobs, key=lambda job: job.kind):
      batch: list[Job] = []
      for job in alike:
        if batch and sum(j.request.takes for j in (*batch, job)) > most_rows:
          yield from self._run_batch(batch, advance)
          batch = []
        batch.append(job)
      yield from self._run_batch(batch, advance)

  def _run_batch(self, jobs: list[Job], advance: Callable[[str], None]) -> Iterator[Result]:
    advance("encoding the context")
    heard = [self._hear(job.request) for job in jobs]
    rows = [job.rows(self.codec, h) for job, h in zip(jobs, heard, strict=True)]
    takes = [job.request.takes for job in jobs]
    repeat = [np.repeat(h.codes[None], n, axis=0) for h, n in zip(heard, takes, strict=True)]
    conditions = [np.tile(job.indices, (n, 1)) for job, n in zip(jobs, takes, strict=True)]
    keys = [take_keys(job.request.seed, n) for job, n in zip(jobs, takes, strict=True)]
    given, known = (np.concatenate(part) for part in zip(*rows, strict=True))
    codes = self.fill(
      np.concatenate(repeat), np.concatenate(conditions), given, known,
      jnp.concatenate(keys), jobs[0].settings, jobs[0].request.loop, advance,
    )  # fmt: skip
    advance("decoding")
    for job, h, own in zip(jobs, heard, np.split(codes, np.cumsum(takes)[:-1]), strict=True):
      yield self._finish(job, h, own)

  def _hear(self, request: Request) -> transcode.Heard:
    """Returns a request's context as codes, as loud as the mixes that the model was trained on."""
    context, rate_hz = request.context, request.rate_hz
    gain_db = transcode.normal_gain(self.codec, context, rate_hz, self._meta.get("mix_lufs"))
    return transcode.encode(self.codec, context, rate_hz, request.loop, gain_db)

  def fill(
    self,
    context: Int[np.ndarray, "B T Q"],
    conditions: Int[np.ndarray, "B C"],
    given: Int[np.ndarray, "B T Q"],
    known: Bool[np.ndarray, "B T Q"],
    keys: Keys,
    settings: SampleConfig,
    loop: bool = False,
    advance: Callable[[str], None] = lambda text: None,
  ) -> Int[np.ndarray, "B T Q"]:
    """Returns the tokens of stems for tokens of contexts: `given` where `known`.

    Rows are added while it computes, so that every device has as many.
    """
    batch = len(context)
    context, conditions, given, known = map(self._even, (context, conditions, given, known))
    if len(context) > batch:
      keys = jnp.concatenate([keys, jnp.repeat(keys[-1:], len(context) - batch)])
    place = NamedSharding(self._mesh, sharding.BATCH)

    def put(x):
      return jax.device_put(x, place)

    conditions, options = put(conditions.astype(np.int32)), options_of(settings)
    steering = steering_of(settings, self.config.model)

    def fill(context, given, known, number, wrap):
      turned = window_keys(keys, number)
      tokens = self._generate(
        self._params, put(context), conditions, put(given), put(known), put(turned), options,
        steering, wrap=wrap,
      )  # fmt: skip
      return np.asarray(tokens)

    most, tokens = self.config.data.crop_frames, given
    for done, total, written in fill_windows(fill, context, given, known, most, loop):
      advance(f"writing the stem: window {done} of {total}")
      tokens = written
    return tokens[:batch]

  def _even(self, rows: np.ndarray) -> np.ndarray:
    """Returns rows with the last one repeated, so that every device has as many."""
    return np.concatenate([rows, np.repeat(rows[-1:], -len(rows) % self._mesh.size, axis=0)])

  def _finish(self, job: Job, heard: transcode.Heard, codes: Int[np.ndarray, "n T Q"]) -> Result:
    context, conditions = np.broadcast_to(heard.codes, codes.shape), job.indices
    conditions = np.tile(conditions, (len(codes), 1))
    score = functools.partial(self.score, context, codes, conditions)
    return finish(job, self.codec, heard, codes, score, self._meta)

  def nll(
    self,
    context: Int[np.ndarray, "n T Q"],
    stems: Int[np.ndarray, "n T Q"],
    conditions: Int[np.ndarray, "n C"],
    level: int = 0,
    heard: bool = True,
  ) -> Float[np.ndarray, " n"]:
    """Returns the mean nats a token of one level of stems, from 0; see `score.build_nll`."""
    rows = map(self._even, (context, stems, conditions.astype(np.int32)))
    return self._nll(self._params, *rows, level, heard)[: len(stems)]

  def score(
    self,
    context: Int[np.ndarray, "n T Q"],
    stems: Int[np.ndarray, "n T Q"],
    conditions: Int[np.ndarray, "n C"],
  ) -> Float[np.ndarray, " n"]:
    """Returns the listening score of each stem: what its context is worth, in nats a token."""
    deaf, heard = (self.nll(context, stems, conditions, heard=h) for h in (False, True))
    return deaf - heard


def _as_samples(audio: Any, name: str) -> Samples:
  audio = np.asarray(audio)
  if audio.dtype.kind != "f" or audio.ndim not in (1, 2):
    raise UserError(
      f"{name} must be floats in [-1, 1], [samples] or [channels, samples]; got"
      f" dtype={audio.dtype}, shape={audio.shape}. Divide whole numbers by their full scale."
    )
  if not np.isfinite(audio).all():
    raise UserError(f"{name} must be finite; got NaN or infinite samples.")
  return np.atleast_2d(audio).astype(np.float32)
