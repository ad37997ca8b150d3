# SPDX-License-Identifier: Apache-2.0
"""Imports point one way: the package never needs torch, and the sampler never knows the model."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(p for name in ("stemgen_jax", "data_prep") for p in (ROOT / name).rglob("*.py"))

# Each room may import from itself and from those before it.
ROOMS = {
  "stemgen_jax": (
    *("errors", "types", "categories", "config", "config_json"),
    *("shell", "audio", "pages", "web", "data", "codec", "model", "training", "sampling"),
    *("__init__", "train", "distill", "sample", "layer", "card", "export"),
    *("bench", "compile", "evaluate", "sweep", "looper"),
  ),
  "data_prep": (
    *("__init__", "corpora", "music", "tokens", "codecs", "checks", "codec_training", "yardsticks"),
    *("convert_codec", "fetch", "demo", "tokenize", "join", "originals", "inspect"),
    *(
      "train_codec",
      "train_decoder",
      "evaluate_codec",
      "demo_page",
      "run_demo",
      "listen_page",
      "make_shipped",
    ),
  ),
}


def imports_of(path):
  found = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
  return found


def room_of(path):
  return path.relative_to(ROOT).parts[1].removesuffix(".py")


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path):
  package, here = path.relative_to(ROOT).parts[0], room_of(path)
  order = ROOMS[package]
  assert here in order, f"{here} is no room of {package}"
  for name in imports_of(path):
    root, _, rest = name.partition(".")
    room = rest.partition(".")[0]
    if package == "stemgen_jax":
      assert root not in {"torch", "encodec", "transformers", "tensorflow", "data_prep"}, name
    if root == package and room in order:
      assert order.index(room) <= order.index(here), f"{here} must not import {room}"


def test_only_the_model_knows_flax_nnx_and_the_sampler_no_model():
  users = [p.name for p in SOURCES if any("flax.nnx" in name for name in imports_of(p))]
  assert users == ["network.py"]
  for name in ("decode", "draw", "guidance", "masking", "losses"):
    imports = imports_of(ROOT / f"stemgen_jax/model/{name}.py")
    assert not any(module.startswith("stemgen_jax.model.network") for module in imports)


def test_only_one_file_makes_consoles():
  """Rich would take `[v1]` in a name for markup: `shell.progress` makes what takes it as it is."""
  for path in SOURCES:
    if path.name != "progress.py":
      assert not imports_of(path) & {"rich.status", "rich.logging", "rich.print"}, path
      assert not re.search(r"\b(Rich)?Console\(", path.read_text()), path


def run_python(code):
  return subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
  ).stdout.strip()


def test_sampling_loads_no_torch():
  loaded = "{'torch', 'tensorflow', 'encodec', 'data_prep', 'huggingface_hub'} & set(sys.modules)"
  assert run_python(f"import sys, stemgen_jax.sample; print({loaded})") == "set()"


def test_training_needs_no_torch():  # tensorboardX imports it where it is installed
  blocked = "sys.modules.update(torch=None)"
  assert run_python(f"import sys; {blocked}; import stemgen_jax.train; print(1)") == "1"


def test_no_source_file_is_too_long():
  for path in SOURCES:
    assert len(path.read_text().splitlines()) <= 300, path
