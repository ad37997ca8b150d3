# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

from setuptools import find_packages, setup

BASE = [  # trains and samples; no torch
  "jax>=0.10.2,<0.13",
  "flax>=0.12.8,<0.13",
  "optax>=0.2.8",
  "orbax-checkpoint>=0.12.8,<0.13",
  "grain>=0.2.18,<0.3",
  "array-record>=0.8.3",
  "tensorflow-datasets>=4.9.10",
  "ml-collections>=1.1.0",
  "absl-py",
  "numpy>=2",
  "jaxtyping>=0.3",
  "safetensors",
  "soundfile>=0.13",
  "soxr",
  "scipy",
  "pyloudnorm",
  "librosa>=0.11",
  "scikit-learn>=1.5",
  "mir_eval>=0.8",
  "matplotlib",
  "jinja2",
  "starlette>=1",
  "uvicorn>=0.50",
  "tensorboardX",
  "rich",
]
EXTRAS = {
  # `encodec` and `tinysoundfont` belong to "data" too, `basic-pitch` and `musicnn` to "eval", but
  # must be installed with --no-deps (requirements/nodeps.txt says why).
  "data": [
    "torch==2.13.0",
    "av>=14",
    "einops",
    "huggingface_hub>=1",
    "mido",
    "music21",
    "pooch>=1.8",
    "pretty_midi",
    "python-stretch",
    "pyyaml",
    "requests",
  ],
  "hub": ["huggingface_hub>=1"],  # fetches a --checkpoint hf://OWNER/NAME
  "eval": ["onnxruntime>=1.27"],  # runs basic-pitch, and embeddings that are given
  "beam": ["apache-beam>=2.70"],  # asks for protobuf < 7
  "dev": [
    "axe-core-python",
    "pytest",
    "pytest-xdist",
    "hypothesis",
    "beartype",
    "ruff",
    "basedpyright",
    "selenium",
    "transformers",
  ],
  "wandb": ["wandb"],
  "compile": ["libtpu==0.0.52"],  # best apart: with it, JAX looks for a TPU wherever it starts
  "tpu": ["jax[tpu]>=0.10.2,<0.13"],
  "cuda": ["jax[cuda13]>=0.10.2,<0.13"],
  "cuda12": ["jax[cuda12]>=0.10.2,<0.13"],  # for drivers that know no CUDA 13
}

setup(
  name="stemgen_jax",
  version="0.1.0",
  description="StemGen (arXiv:2312.08723) in JAX: a music model that listens",
  long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
  long_description_content_type="text/markdown",
  license="Apache-2.0",
  packages=find_packages(include=["stemgen_jax*", "data_prep*", "configs*"]),
  package_data={
    "stemgen_jax": [
      "PAPER.md",
      "py.typed",
      "codec/demo_bundle/*",
      "shipped/*",
      "shipped/songs/*/*",
      "pages/templates/*",
      "looper/page/*",
      "looper/takes/*",
    ],
    "data_prep": ["chorale_splits.yaml", "corpora/*.yaml"],
  },
  python_requires=">=3.11",
  install_requires=BASE,
  extras_require=EXTRAS,
)
