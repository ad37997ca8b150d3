# SPDX-License-Identifier: Apache-2.0
"""Every default of codec training, as plain dataclasses; config files and flags override them."""

import dataclasses

from stemgen_jax.codec.architecture import CodecSpec
from stemgen_jax.errors import UserError, find_broken


@dataclasses.dataclass(kw_only=True)
class ModelConfig:
  """The architecture that is free to choose; the rest are EnCodec's own defaults."""

  sample_rate: int = 16_000
  channels: int = 1
  n_levels: int = 4
  n_codes: int = 1024
  ratios: tuple[int, ...] = (8, 5, 4, 4)
  dimension: int = 128
  n_filters: int = 16
  lstm: int = 1
  true_skip: bool = True
  causal: bool = True
  licence: str = "Apache-2.0"
  source: str = "trained by data_prep.train_codec"


@dataclasses.dataclass(kw_only=True)
class DataConfig:
  """What the codec hears: crops of single stems and of sums of random subsets of a song's stems.

  Each root has the Slakh layout: root/{train,validation}/Track*/stems/*.flac.
  """

  roots: tuple[str, ...] = ("runs/music",)
  split: str = "train"
  eval_split: str = "validation"
  max_songs: int = 0  # of each root; 0 for all
  crop_s: float = 1.28
  gain_db: float = 6.0  # each crop's level is moved by up to this much, up or down
  stem_gain_db: float = 3.0  # the same for each stem of a crop by itself


@dataclasses.dataclass(kw_only=True)
class TrainConfig:
  """How long, how fast, and the weights of the losses."""

  seed: int = 0
  init: str = ""  # a bundle of this architecture to start from; its codebooks serve at once
  steps: int = 6000
  batch: int = 8
  learning_rate: float = 5e-4
  warmup_steps: int = 100
  clip_norm: float = 1.0
  bfloat16: bool = True  # autocast of the two networks; losses and codebooks stay in float32
  threads: int = 1
  quantize_from_step: int = 500  # a plain autoencoder until then
  init_vectors: int = 8192  # latents that k-means starts the codebooks from
  ema_decay: float = 0.99
  dead_share: float = 0.1  # restart codes used less than this share of an even use
  level_dropout: float = 0.1  # share of examples that keep only the first few levels
  wave_weight: float = 0.5
  mel_weight: float = 1.0
  mel_l2_weight: float = 0.0  # of the mel loss's L2 term beside its L1 term; EnCodec has 1
  commit_weight: float = 0.25
  checkpoint_every_s: float = 120.0
  log_every: int = 50  # steps
  eval_every: int = 1000  # steps; 0 for never
  eval_clips: int = 3  # that an evaluation also writes to listen to
  eval_crops: int = 64
  eval_crop_s: float = 5.12


@dataclasses.dataclass(kw_only=True)
class DiscriminatorConfig:
  """The discriminator of EnCodec, smaller."""

  from_step: int | None = None  # it joins here; None, or a step past the end, for never
  windows: tuple[int, ...] = (1024, 512, 256)  # samples
  filters: int = 16
  crop_s: float = 0.5  # of each crop, it hears a part of this length
  weight: float = 0.1  # the adversarial gradient's norm, relative to that of wave and mel
  feature_weight: float = 0.3  # the same of feature matching
  alone_steps: int = 300  # in which it learns and the codec does not hear of it
  warmup_steps: int = 200  # after those, over which both weights rise from 0
  balance_decay: float = 0.99  # of the moving averages of those norms
  update_share: float = 0.67  # of steps: the others leave it as it is
  learning_rate: float = 3e-4


@dataclasses.dataclass(kw_only=True)
class CodecConfig:
  """One codec training run."""

  model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
  data: DataConfig = dataclasses.field(default_factory=DataConfig)
  train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
  discriminator: DiscriminatorConfig = dataclasses.field(default_factory=DiscriminatorConfig)

  def spec(self) -> CodecSpec:
    """Returns the description that the trained bundle will carry."""
    fields = dataclasses.asdict(self.model)
    return CodecSpec(**{**fields, "ratios": tuple(fields["ratios"])})

  def validate(self) -> None:
    """Checks every rule.

    Raises:
      UserError: naming every broken rule at once.
    """
    spec, train, data, judge = self.spec(), self.train, self.data, self.discriminator
    heard_samples = min(judge.crop_s, data.crop_s) * spec.sample_rate
    crop_frames = data.crop_s * spec.frame_rate_hz if not spec.problems() else 1.0
    rules = {
      "data.crop_s": (crop_frames >= 1, "hold at least one frame", data.crop_s),
      "data.roots": (
        bool(data.roots) and not isinstance(data.roots, str),
        "be a tuple of at least one folder",
        data.roots,
      ),
      "train.steps": (train.steps >= 1, "be at least 1", train.steps),
      "train.batch": (train.batch >= 1, "be at least 1", train.batch),
      "train.threads": (train.threads >= 1, "be at least 1", train.threads),
      "train.ema_decay": (0 < train.ema_decay < 1, "be between 0 and 1", train.ema_decay),
      "train.level_dropout": (0 <= train.level_dropout <= 1, "be 0 to 1", train.level_dropout),
      "train.init_vectors": (
        train.init_vectors >= spec.n_codes,
        f"be at least model.n_codes={spec.n_codes}",
        train.init_vectors,
      ),
      "train.log_every": (train.log_every >= 1, "be at least 1", train.log_every),
      "train.eval_every": (train.eval_every >= 0, "be at least 0", train.eval_every),
      "train.eval_crops": (train.eval_crops >= 1, "be at least 1", train.eval_crops),
      "train.eval_clips": (
        0 <= train.eval_clips <= train.eval_crops,
        f"be 0 to train.eval_crops={train.eval_crops}",
        train.eval_clips,
      ),
      "discriminator.windows": (
        judge.from_step is None
        or (bool(judge.windows) and 8 <= min(judge.windows) <= max(judge.windows) <= heard_samples),
        f"be of at least 8 samples and at most the {heard_samples:.0f} it hears",
        judge.windows,
      ),
      "discriminator.update_share": (
        0 < judge.update_share <= 1,
        "be above 0 and at most 1",
        judge.update_share,
      ),
      "discriminator.balance_decay": (
        0 < judge.balance_decay < 1,
        "be between 0 and 1",
        judge.balance_decay,
      ),
    }
    broken = [f"model.{problem}" for problem in spec.problems()]
    broken += find_broken((kept, f"{k} must {rule}", v) for k, (kept, rule, v) in rules.items())
    if broken:
      raise UserError(f"codec config is not usable: {'; '.join(broken)}. Change these values.")
