# SPDX-License-Identifier: Apache-2.0
"""Names the category of a stem by its sound, learnt from true stems of other songs."""

from collections.abc import Callable
from typing import Any

import numpy as np

from stemgen_jax.data.records import Dataset
from stemgen_jax.errors import UserError
from stemgen_jax.evaluate.examples import AT_ONCE, Example
from stemgen_jax.evaluate.metrics.category import describe_timbre, train_classifier
from stemgen_jax.sampling.stemgen import StemGen


def build_classifier(
  model: StemGen,
  dataset: Dataset,
  audio: np.ndarray,
  conditions: np.ndarray,
  examples: list[Example],
) -> tuple[Callable[[Example, str], str], dict[str, Any]]:
  """Returns a function that names the category of a set's stem of an example, and its accuracy.

  The accuracy is that on the true stems of the windows, none of which it was trained on.
  """
  names = next(iter(dataset.metadata.sources.values()), ("stem",))
  labels = [names[row[0]] if len(row) else "stem" for row in conditions]
  if len(set(labels)) < 2:
    raise UserError(
      f"training stems must be of two categories or more; got {sorted(set(labels))}."
      " Give a dataset of more instruments."
    )
  features = [
    describe_timbre(model.codec, audio[i : i + AT_ONCE]) for i in range(0, len(audio), AT_ONCE)
  ]
  classifier = train_classifier(np.concatenate(features), labels)

  def classify(example: Example, name: str) -> str:
    samples, _ = example.read(name)
    return str(classifier.predict(describe_timbre(model.codec, samples[None]))[0])

  right = [classify(example, "true") == example.category for example in examples]
  return classify, {
    "accuracy": float(np.mean(right)),
    "categories": len(set(labels)),
    "stems": len(labels),
  }
