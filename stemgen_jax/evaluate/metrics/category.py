# SPDX-License-Identifier: Apache-2.0
"""Which instrument a stem sounds like: a small classifier, trained on true stems."""

import numpy as np
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from stemgen_jax.codec import Codec


def describe_timbre(
  codec: Codec, audio: Float[np.ndarray, "n channels samples"]
) -> Float[np.ndarray, "n F"]:
  """Returns the mean and the standard deviation over time of the codec's latents."""
  latents = codec.latents(audio)
  return np.concatenate([latents.mean(axis=1), latents.std(axis=1)], axis=1)


def train_classifier(features: Float[np.ndarray, "n F"], labels: list[str]) -> Pipeline:
  """Returns a logistic regression on standardised features; `predict` names the categories.

  Args:
    features: of `describe_timbre`, of true stems of the training songs.
    labels: their categories, two or more.
  """
  model = LogisticRegression(C=0.1, max_iter=2000, class_weight="balanced")
  return make_pipeline(StandardScaler(), model).fit(features, labels)
