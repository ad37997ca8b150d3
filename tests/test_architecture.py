# SPDX-License-Identifier: Apache-2.0
"""Imports point one way: the package never needs torch, and the sampler never knows the model."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = sorted((ROOT / "stemgen_jax").rglob("*.py"))

# Each module may import those before it, and none after.
LAYERS = (
  {"errors", "types"},
  {
    "audio",
    "categories",
    "compilation_cache",
    "config",
    "alignment",
    "loudness",
    "windows",
    "flops",
    "console",
    "digests",
    "stopping",
    "cli",
    "clips",
    "draw",
    "files",
    "guidance",
    "losses",
    "masking",
    "codec",
    "page",
  },
  {"shards", "decode", "optim", "codebook_init", "sharding", "attention"},
  {"model"},
  {"records"},
  {"examples"},
  {
    "data",
    "step",
    "generate",
    "metrics",
    "mixing",
    "model_bundle",
    "score",
    "transcode",
    "request",
  },
  {"checkpoint", "evaluation", "recorder", "job", "request_files"},
  {"result"},
  {"workdir", "stemgen"},
  {
    "train",
    "sample",
    "layer",
    "sweep",
    "report",
    "bench",
    "compile",
    "__init__",
    "export",
    "evaluate",
  },
)


def imports_of(path):
  found = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
  return found


def module_of(path):
  return path.relative_to(ROOT / "stemgen_jax").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", PACKAGE, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path):
  rank = {name: i for i, names in enumerate(LAYERS) for name in names}
  here = module_of(path)
  assert here in rank, f"{here} has no layer"
  for name in imports_of(path):
    root, _, rest = name.partition(".")
    assert root not in {"torch", "encodec", "transformers", "tensorflow", "data_prep"}, name
    module = rest.partition(".")[0]
    if root == "stemgen_jax" and module in rank and module != here:
      assert rank[module] <= rank[here], f"{here} must not import {module}"


def test_only_the_model_knows_flax_nnx_and_the_sampler_no_model():
  users = {module_of(p) for p in PACKAGE if any("flax.nnx" in name for name in imports_of(p))}
  assert users == {"model"}
  for path in PACKAGE:
    if module_of(path) in {"decode", "guidance", "masking", "losses"}:
      assert not any(name.startswith("stemgen_jax.model") for name in imports_of(path))


def run_python(code):
  return subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
  ).stdout.strip()


def test_sampling_loads_no_torch():
  loaded = "{'torch', 'tensorflow', 'encodec', 'data_prep'} & set(sys.modules)"
  assert run_python(f"import sys, stemgen_jax.sample; print({loaded})") == "set()"


def test_training_needs_no_torch():  # tensorboardX imports it where it is installed
  blocked = "sys.modules.update(torch=None)"
  assert run_python(f"import sys; {blocked}; import stemgen_jax.train; print(1)") == "1"


def test_no_source_file_is_too_long():
  for path in (*PACKAGE, *(ROOT / "data_prep").rglob("*.py")):
    assert len(path.read_text().splitlines()) <= 320, path
