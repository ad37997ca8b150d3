# SPDX-License-Identifier: Apache-2.0
"""Every setting of a training run and its default, and the rules they must keep.

A file of `configs/` returns a `Config`; `validate` reports every broken rule at once.
"""

import dataclasses
import math

from stemgen_jax.errors import Rule, UserError, find_broken

GUIDANCE_MODES = ("independent", "nested", "leave_one_out", "joint", "distilled")
MOST_SCALE = 6  # of guidance that a network can take as an input
MOST_STEPS = 10_000  # of a level: more than a window has frames
_TEMPERATURES = ("temperature", "fine_temperature")


@dataclasses.dataclass(kw_only=True)
class ModelConfig:
  """The transformer. `sources` names the categorical conditions and the values each may take."""

  n_levels: int = 4  # Q
  n_codes: int = 2048  # V
  dim: int = 1024  # D
  n_layers: int = 20  # L
  n_heads: int = 16  # N; the head width D / N must be even (RoPE turns pairs)
  mlp_dim: int = 2432  # F
  sources: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
  scale_inputs: tuple[str, ...] = ()  # sources whose guidance scale is an input (distill)
  dropout: float = 0.0  # on each block's output while training
  # What is multiplied: "float32", "bfloat16", or "auto", the faster of the two on the device it
  # runs on. Parameters, softmax and loss stay float32.
  compute_dtype: str = "float32"
  unroll: int = 1  # layers in one turn of the loop over them
  remat: str = "layer"  # the backward pass recomputes each layer, keeping more: "attention",
  # "matmuls" (attention, qkv and gate_up), or all ("none")


@dataclasses.dataclass(kw_only=True)
class MaskingConfig:
  """How training hides tokens, and which hidden tokens count (Fig. 4)."""

  schedule: str = "cosine"  # mask rate cos(pi/2 u), or "uniform": u
  loss: str = "level"  # the asked level only, or "all_masked": the levels above it too
  full_prob: float = 0.0  # share of examples that hide all that is to be written
  span_prob: float = 0.0  # share of examples in which only some stretches are to be written
  levels: tuple[int, ...] = ()  # asked of one example after another, from 1; () asks each in turn
  context_dropout: float = 0.2  # probability of dropping the context mix
  condition_dropout: float = 0.2  # probability of dropping each categorical source
  # Share of examples that hear just what a branch of `sample.guidance_mode` hears; each of the
  # branches that do not hear all comes equally often, and the dropouts above act beside it.
  branch_share: float = 0.0


@dataclasses.dataclass(kw_only=True)
class DataConfig:
  """The Grain pipeline over a folder of token shards."""

  path: str = ""  # a dataset folder that `python -m data_prep.tokenize` wrote
  codec: str = ""  # its codec bundle; if given, the token embeddings start from its codebooks
  train_split: str = "train"
  eval_split: str = "validation"
  crop_frames: int = 1000  # T
  batch_size: int = 32  # B, over all devices; a multiple of n_levels and of len(masking.levels)
  silence_gate_db: float = -50.0  # a target must be louder than this in its window
  sounding_db: float = -45.0  # a target sounds in the cells of its window above this
  silence_prob: float = 0.1  # share of examples whose context is silence
  workers: int = 0  # Grain worker processes; 0 reads in the training process


@dataclasses.dataclass(kw_only=True)
class OptimConfig:
  """AdamW with warm-up, hold and decay, clipping, and averaged weights for sampling."""

  steps: int = 100_000
  learning_rate: float = 3e-4
  warmup_steps: int = 2000
  hold_steps: int = 0  # at the peak, between warm-up and decay
  decay: str = "cosine"  # or "exponential"
  decay_steps: int = 0  # from the peak to final_lr_ratio of it; 0 for all that is left
  final_lr_ratio: float = 0.1
  b1: float = 0.9
  b2: float = 0.95
  weight_decay: float = 0.05
  clip_norm: float = 1.0
  ema_decay: float = 0.999
  accumulate: int = 1  # parts a batch is computed in; the gradient is the whole batch's
  max_skipped: int = 10  # a run of that many steps without a finite loss and gradient is the end


@dataclasses.dataclass(kw_only=True)
class MeshConfig:
  """Devices along each mesh axis; -1 takes what the others leave."""

  data: int = -1
  fsdp: int = 1
  tensor: int = 1


@dataclasses.dataclass(kw_only=True)
class TrainConfig:
  """What a run does besides training."""

  profile: bool = False  # writes a trace of five steps, once those before have compiled
  wandb: str = ""  # a Weights & Biases project to log to as well; needs the package wandb
  audio_examples: int = 0  # stems generated at each validation; needs data.codec


@dataclasses.dataclass(kw_only=True)
class SampleConfig:
  """Decoding defaults a checkpoint carries; those of StemGen (PAPER.md) section 3."""

  steps: tuple[int, ...] = (128, 64, 32, 32)  # iterations N_q of each level
  w_c: float = 0.1  # weight of confidence, eq. 1
  w_s: float = 0.1  # of earliness: the causal bias
  w_r: float = 1.0  # of chance
  confidence: str = "prob"  # or "log_prob"
  noise: str = "uniform"  # or "gumbel", annealed linearly to zero
  temperature: float = 1.0  # of the first level
  fine_temperature: float = 1.0  # of the others
  top_p: float = 1.0
  # Of GUIDANCE_MODES; "joint" is one branch, scales unused, "distilled" one that takes the scales.
  guidance_mode: str = "independent"
  # The scale of each source that is guided; the others are heard by every branch.
  guidance: dict[str, float] = dataclasses.field(default_factory=lambda: {"context": 3.0})
  guided_levels: int = 4  # from the first on; at the other levels one branch hears all
  # The value of a categorical source where a request leaves it out; others are then unknown.
  assumed: dict[str, str] = dataclasses.field(default_factory=dict)

  def rules(self, model: ModelConfig, prefix: str = "") -> list[Rule]:
    """Returns (kept, what the rule is, value) for everything that a model asks of its settings."""
    numbers = {
      **{name: getattr(self, name) for name in ("w_c", "w_s", "w_r", *_TEMPERATURES)},
      **{f"guidance of '{name}'": scale for name, scale in self.guidance.items()},
    }
    whole = all(isinstance(n, int) for n in self.steps)
    return [
      *((math.isfinite(v), f"{prefix}{name} must be finite", v) for name, v in numbers.items()),
      (
        len(self.steps) == model.n_levels and whole and min(self.steps, default=0) > 0,
        f"{prefix}steps must be {model.n_levels} positive numbers, one a level",
        self.steps,
      ),
      (
        not whole or max(self.steps, default=0) <= MOST_STEPS,
        f"{prefix}steps must be at most {MOST_STEPS} a level",
        self.steps,
      ),
      *_choices(f"{prefix}confidence", self.confidence, "prob", "log_prob"),
      *_choices(f"{prefix}noise", self.noise, "uniform", "gumbel"),
      *_choices(f"{prefix}guidance_mode", self.guidance_mode, *GUIDANCE_MODES),
      *((numbers[n] >= 0, f"{prefix}{n} must not be negative", numbers[n]) for n in _TEMPERATURES),
      (0 < self.top_p <= 1, f"{prefix}top_p must lie in (0, 1]", self.top_p),
      *(
        (
          value in model.sources.get(name, ()),
          f"{prefix}assumed must give a source of the model one of its values",
          f"{name}={value}",
        )
        for name, value in self.assumed.items()
      ),
      *(
        (
          name in model.scale_inputs and 0 <= scale <= MOST_SCALE,
          f"{prefix}guidance must scale inputs of the model, {list(model.scale_inputs)}, by 0 to"
          f" {MOST_SCALE} where guidance_mode is distilled",
          f"{name}={scale}",
        )
        for name, scale in self.guidance.items()
        if self.guidance_mode == "distilled"
      ),
      (self.guided_levels >= 0, f"{prefix}guided_levels must not be negative", self.guided_levels),
      (
        set(self.guidance) <= {"context", *model.sources},
        f"{prefix}guidance must name sources among {['context', *model.sources]}",
        sorted(set(self.guidance) - {"context", *model.sources}),
      ),
    ]


@dataclasses.dataclass(kw_only=True)
class Config:
  """One training run."""

  name: str
  model: ModelConfig
  data: DataConfig
  masking: MaskingConfig = dataclasses.field(default_factory=MaskingConfig)
  optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
  mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
  sample: SampleConfig = dataclasses.field(default_factory=SampleConfig)
  train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
  seed: int = 0
  log_every_steps: int = 50
  eval_every_steps: int = 1000
  eval_batches: int = 8
  patience_steps: int = 0  # ends a run whose validation accuracy is flat for so long; 0 never
  checkpoint_every_steps: int = 1000
  checkpoints_kept: int = 3

  def validate(self) -> None:
    """Raises one UserError that lists every rule the settings break."""
    m, k, d, o, s = self.model, self.masking, self.data, self.optim, self.sample
    sizes = {
      "model.n_levels": m.n_levels, "model.dim": m.dim, "model.n_layers": m.n_layers,
      "model.n_heads": m.n_heads, "model.mlp_dim": m.mlp_dim, "data.batch_size": d.batch_size,
      "data.crop_frames": d.crop_frames, "checkpoints_kept": self.checkpoints_kept,
      "log_every_steps": self.log_every_steps, "eval_every_steps": self.eval_every_steps,
      "checkpoint_every_steps": self.checkpoint_every_steps, "optim.accumulate": o.accumulate,
      "optim.max_skipped": o.max_skipped, "model.unroll": m.unroll,
    }  # fmt: skip
    self._raise_broken([(n > 0, f"{name} must be positive", n) for name, n in sizes.items()])
    counts = {
      "seed": self.seed, "eval_batches": self.eval_batches, "data.workers": d.workers,
      "train.audio_examples": self.train.audio_examples, "optim.decay_steps": o.decay_steps,
      "patience_steps": self.patience_steps,
    }  # fmt: skip
    probabilities = {"masking.full_prob": k.full_prob, "masking.span_prob": k.span_prob}
    shares = {
      "masking.context_dropout": k.context_dropout, "masking.branch_share": k.branch_share,
      "masking.condition_dropout": k.condition_dropout, "model.dropout": m.dropout,
      "data.silence_prob": d.silence_prob, "optim.ema_decay": o.ema_decay,
    }  # fmt: skip
    unit = math.lcm(m.n_levels, max(1, len(k.levels))) * o.accumulate
    rules = [
      *((count >= 0, f"{name} must not be negative", count) for name, count in counts.items()),
      *((0 <= x < 1, f"{name} must lie in [0, 1)", x) for name, x in shares.items()),
      *((0 <= x <= 1, f"{name} must lie in [0, 1]", x) for name, x in probabilities.items()),
      (
        not self.train.audio_examples or (self.eval_batches > 0 and d.codec != ""),
        "train.audio_examples needs data.codec, a codec bundle, and eval_batches",
        (d.codec, self.eval_batches),
      ),
      (m.dim % m.n_heads == 0, "model.dim must be a multiple of model.n_heads", m.dim),
      (m.dim // m.n_heads % 2 == 0, "model.dim / model.n_heads must be even", m.dim / m.n_heads),
      (0 < m.n_codes < 2**16, "model.n_codes must fit 16 bits", m.n_codes),
      *_choices("model.compute_dtype", m.compute_dtype, "auto", "float32", "bfloat16"),
      *_choices("model.remat", m.remat, "layer", "attention", "matmuls", "none"),
      ("context" not in m.sources, "model.sources must not use the name 'context'", "context"),
      *_choices("masking.schedule", k.schedule, "cosine", "uniform"),
      *_choices("masking.loss", k.loss, "level", "all_masked"),
      (self.eval_batches > 0 or not self.patience_steps, "patience_steps needs eval_batches", 0),
      (
        set(m.scale_inputs) <= {"context", *m.sources},
        "model.scale_inputs must name sources of the model",
        m.scale_inputs,
      ),
      (
        d.batch_size % unit == 0,
        f"data.batch_size must be a multiple of {unit}: of model.n_levels and of the number of"
        " masking.levels, times optim.accumulate",
        d.batch_size,
      ),
      (
        set(k.levels) <= set(range(1, m.n_levels + 1)),
        f"masking.levels must hold numbers from 1 to {m.n_levels}, or nothing",
        k.levels,
      ),
      (m.n_layers % m.unroll == 0, "model.unroll must divide model.n_layers", m.unroll),
      (
        o.warmup_steps >= 0 and o.hold_steps >= 0 and o.steps > o.warmup_steps + o.hold_steps,
        "optim.steps must exceed optim.warmup_steps and optim.hold_steps together",
        o.steps,
      ),
      (0 < o.final_lr_ratio <= 1, "optim.final_lr_ratio must lie in (0, 1]", o.final_lr_ratio),
      *_choices("optim.decay", o.decay, "cosine", "exponential"),
      (o.learning_rate > 0, "optim.learning_rate must be positive", o.learning_rate),
      *s.rules(m, "sample."),
    ]
    self._raise_broken(rules)

  def _raise_broken(self, rules: list[Rule]) -> None:
    if broken := find_broken(rules):
      raise UserError(f"config '{self.name}' breaks {len(broken)} rule(s): " + ". ".join(broken))


def _choices(name: str, value: str, *allowed: str) -> list[Rule]:
  return [(value in allowed, f"{name} must be one of {list(allowed)}", value)]
