# SPDX-License-Identifier: Apache-2.0
import json

import jax
import numpy as np
import pytest

from stemgen_jax import train as train_module
from stemgen_jax.codec import DEMO_BUNDLE
from stemgen_jax.config import Config, MeshConfig
from stemgen_jax.config_json import from_dict, to_dict
from stemgen_jax.errors import UserError, run_cli
from stemgen_jax.model.sharding import build_mesh
from stemgen_jax.train import train
from stemgen_jax.training import recorder
from stemgen_jax.training.listening_gain import unigram_entropy
from stemgen_jax.training.metrics import read_metrics
from stemgen_jax.training.stopping import Patience
from stemgen_jax.training.weights import load_average


def losses(workdir):
  return {step: row["loss"] for step, row in read_metrics(workdir).items()}


def test_resumed_equals_uninterrupted_bit_for_bit(tiny_config, tmp_path):
  whole = train(tiny_config(dropout=0.1), tmp_path / "whole")

  class Killed(Exception):
    pass

  class KilledLog(recorder.MetricLog):
    def flush(self, step, **more):
      if step == 5:  # after the checkpoint at step 4
        raise Killed
      return super().flush(step, **more)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(recorder, "MetricLog", KilledLog)
    with pytest.raises(Killed):
      train(tiny_config(dropout=0.1), tmp_path / "parts")
  resumed = train(tiny_config(dropout=0.1), tmp_path / "parts")
  jax.tree.map(np.testing.assert_array_equal, *map(jax.device_get, (whole, resumed)))
  assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


def test_run_folder_holds_settings_scalars_and_average(tiny_config, tmp_path):
  config = tiny_config()
  state = train(config, tmp_path / "run")
  mesh = build_mesh(MeshConfig(), jax.devices()[:1])
  saved, average, meta = load_average(tmp_path / "run", mesh)
  assert saved == config
  assert meta["dataset"]["codec_fingerprint"] == "tiny"
  assert json.loads((tmp_path / "run/config.json").read_text())["config"] == meta["config"]
  jax.tree.map(
    np.testing.assert_array_equal, jax.device_get(average), jax.device_get(state.average)
  )
  assert list((tmp_path / "run/tensorboard").iterdir())
  rows = read_metrics(tmp_path / "run")
  assert set(rows) == {1, 2, 3, 4, 5, 6}
  last = rows[6]
  for name in ("loss/level_1", "loss/level_4", "frames_per_s", "data_wait_share"):
    assert np.isfinite(last[name]), name
  for name in ("true/mean", "foreign/level_1", "gain/mean"):
    assert np.isfinite(last[f"listening/{name}"]), name
  assert any(name.startswith("accuracy/mask_") for name in last)
  train(config, tmp_path / "run")  # finished: nothing more to do
  assert set(read_metrics(tmp_path / "run")) == set(rows)


def test_a_checkpoint_restores_on_another_mesh(tiny_config, tmp_path):
  first = tiny_config()
  first.optim.steps = 4
  train(first, tmp_path / "a")
  second = tiny_config()
  second.mesh = MeshConfig(data=2, fsdp=2, tensor=2)
  second.optim.steps = 4
  state = train(second, tmp_path / "a")
  assert int(state.step) == 4
  assert state.params["heads"].sharding.mesh.shape == {"data": 2, "fsdp": 2, "tensor": 2}


def test_a_resumed_run_tells_of_changed_settings(tiny_config, tmp_path, capsys):
  config = tiny_config()
  config.optim.steps = 3
  train(config, tmp_path / "run")
  config.optim.weight_decay = 0.5
  train(config, tmp_path / "run")
  error = capsys.readouterr().err
  assert "optim.weight_decay was 0.05 so far and is 0.5 from here on" in error
  assert error.count("warning:") == 1


def test_another_model_or_codec_is_refused(tiny_config, tmp_path):
  config = tiny_config()
  config.optim.steps = 3
  train(config, tmp_path / "run")
  other = tiny_config(dim=64)
  with pytest.raises(UserError, match=r"must keep its model.*another --workdir"):
    train(other, tmp_path / "run")
  wide = tiny_config(n_codes=32)
  with pytest.raises(UserError, match=r"must fit the shards.*n_codes must be 16, got 32"):
    train(wide, tmp_path / "new")
  assert not (tmp_path / "new").exists()
  odd = tiny_config()
  odd.data.batch_size = 4
  with pytest.raises(UserError, match=r"batch_size must be a multiple of 8.*got 4"):
    train(odd, tmp_path / "new")


def test_codebooks_of_another_codec_are_refused(tiny_config, tmp_path):
  config = tiny_config()
  config.data.codec = str(DEMO_BUNDLE)
  with pytest.raises(UserError, match=r"data.codec must be the codec that made the shards"):
    train(config, tmp_path / "run")


def test_a_shard_cut_short_is_named(tiny_config, tiny_dataset, tmp_path):
  import shutil

  copy = tmp_path / "copy"
  shutil.copytree(tiny_dataset, copy)
  shard = next(copy.glob("*train*array_record*"))
  shard.write_bytes(shard.read_bytes()[:-100])
  config = tiny_config()
  config.data.path = str(copy)
  with pytest.raises(UserError, match=shard.name):
    train(config, tmp_path / "run")


@pytest.mark.parametrize(
  ("words", "complaint"),
  [
    ([], "--config"),
    (["--config", "configs/demo.py", "--config.model.dimm=4"], "dimm"),
    (["--config", "configs/demo.py", "--config.model.dim=abc"], "abc"),
    (["--config", "configs/demo.py", "--worksdir", "x"], "worksdir"),
    (["--config", "configs/nope.py"], "nope.py"),
    (["--config", "configs/codec_demo.py"], "must return a Config"),
    (["--config", "configs/demo.py", "--config.model.n_heads=7"], "multiple of model.n_heads"),
    (["--config", "configs/demo.py", "--config.data.path=/nowhere"], "/nowhere"),
    (["--config", "configs/demo.py", "--config.model.n_heads=0"], "n_heads must be positive"),
    (["--config", "configs/demo.py", "--config.seed=-1"], "seed must not be negative"),
    (["--config", "configs/demo.py", "stray", "words"], "stray words"),
  ],
)
def test_a_users_mistake_is_one_line_and_code_2(words, complaint, tmp_path, capsys):
  workdir = ["--workdir", str(tmp_path / "run")]
  assert run_cli(lambda: train_module.main([*words, *workdir])) == 2
  error = capsys.readouterr().err
  assert error.startswith("error: ")
  assert complaint in error
  assert error.count("\n") == 1
  assert not (tmp_path / "run").exists()


def test_config_survives_json(tiny_config):
  config = tiny_config()
  assert from_dict(json.loads(json.dumps(to_dict(config)))) == config
  with pytest.raises(UserError, match="known fields"):
    from_dict({"name": "x", "colour": 1})
  with pytest.raises(UserError, match="complete"):
    from_dict({"name": "x"}, Config)


def test_config_reports_every_broken_rule_together(tiny_config):
  config = tiny_config()
  config.masking.schedule, config.data.batch_size = "linear", 6
  with pytest.raises(UserError, match=r"2 rule.*batch_size|2 rule.*schedule"):
    config.validate()


@pytest.mark.parametrize(
  ("levels", "complaint"), [((1, 5), "numbers from 1 to 4"), ((1, 2, 3), "multiple of 12")]
)
def test_levels_that_cannot_be_asked(tiny_config, levels, complaint):
  config = tiny_config()
  config.masking.levels = levels
  with pytest.raises(UserError, match=complaint):
    config.validate()


def test_unigram_entropy_of_even_codes_is_log_v():
  codes = np.stack([np.arange(32) % 16, np.zeros(32, int)], axis=1)
  np.testing.assert_allclose(unigram_entropy([codes, codes], 16), [np.log(16), 0], atol=1e-9)


def test_a_run_ends_when_validation_accuracy_stays_flat(tiny_config, tmp_path, capsys):
  config = tiny_config()
  config.optim.steps, config.optim.warmup_steps, config.optim.learning_rate = 40, 0, 1e-12
  config.eval_every_steps, config.eval_batches, config.patience_steps = 2, 1, 4
  state = train(config, tmp_path)  # no weight moves, so that no accuracy can rise
  assert int(state.step) == 6
  assert "ends at step 6: validation accuracy has not risen since 2" in capsys.readouterr().err
  assert int(train(config, tmp_path).step) == 6
  config.patience_steps = 0
  config.optim.steps = 7
  assert int(train(config, tmp_path).step) == 7


def test_patience_counts_from_the_last_rise():
  patience = Patience(10)
  for step, accuracy in ((5, 0.1), (10, 0.2), (15, 0.2), (19, 0.15)):
    patience.see(step, accuracy)
    assert not patience.over
  again = Patience(10)
  again.set_state(patience.get_state(), 19)
  assert not again.over
  again.see(20, 0.2)
  assert again.over
