# SPDX-License-Identifier: Apache-2.0
"""The model card of an export: README.md with the metadata that the Hugging Face hub reads."""

import json
import re
from pathlib import Path
from typing import Any

import jax

from stemgen_jax.codec.architecture import CodecSpec
from stemgen_jax.codec.bundle import DEMO_BUNDLE, load_bundle
from stemgen_jax.config import Config
from stemgen_jax.errors import UserError
from stemgen_jax.sampling.stemgen import check_codec, find_bundle
from stemgen_jax.types import Params

CARD_FILE = "README.md"
HUB_LICENCES = (  # of the names that the hub gives to licences, those that weights mostly have
  "apache-2.0",
  "cc-by-4.0",
  "cc-by-nc-4.0",
  "cc-by-nc-nd-4.0",
  "cc-by-nc-sa-4.0",
  "cc-by-sa-4.0",
  "cc0-1.0",
  "mit",
)
_ORIGIN = re.compile(r"([\w.-]+/[\w.-]+@[0-9a-f]{40}) ")  # what data_prep.convert_codec records


def draw_card(
  config: Config,
  params: Params,
  meta: dict[str, Any],
  *,
  name: str,
  licence: str,
  about: str,
  codec: Path | None = None,
  report: Path | None = None,
) -> str:
  """Returns a model card as Markdown with a YAML head.

  Args:
    config: of the run.
    params: its weights, which are counted.
    meta: what `load_average` says of them.
    name: OWNER/NAME that the model will have, for the commands of the card.
    licence: of the weights.
    about: what the model was trained on.
    codec: the codec's bundle; None looks where training had it, then takes the demo codec.
    report: report.json of `stemgen_jax.evaluate`, with the table.md beside it, or their folder.

  Raises:
    UserError: if licence or about are empty, the codec is another than the model's, or the report
      cannot be read or is of another model.
  """
  for flag, text in (("licence", licence), ("about", about)):
    if not text:
      raise UserError(f"--card must tell --{flag}; got none. Give --{flag} TEXT.")
  from stemgen_jax.pages.page import render  # matplotlib takes a second to load

  path = find_bundle(config, codec)
  bundle = load_bundle(path)
  check_codec(bundle.fingerprint, path, meta)
  slug = re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-")
  return render(
    "card.md",
    name=name,
    licence=licence,
    licence_id=slug if slug in HUB_LICENCES else None,
    licence_slug=slug,
    about=about,
    meta=meta,
    model=config.model,
    sample=config.sample,
    window_s=config.data.crop_frames / meta["dataset"]["frame_rate_hz"],
    parameters=sum(leaf.size for leaf in jax.tree.leaves(params)),
    spec=bundle.spec,
    fingerprint=meta["dataset"]["codec_fingerprint"],
    own_codec=path == DEMO_BUNDLE,
    convert=_conversion(bundle.spec),
    scores=read_scores(report, meta) if report else None,
  )


def _conversion(spec: CodecSpec) -> str | None:
  """Returns --from and --levels that make the codec's bundle again, if its source says it."""
  found = _ORIGIN.match(spec.source)
  return f"--from {found[1]} --levels {spec.n_levels}" if found else None


def read_scores(report: Path, meta: dict[str, Any]) -> dict[str, Any]:
  """Returns the table of an evaluation, and what it was made with.

  Raises:
    UserError: if it cannot be read, or is of another codec or step than the model.
  """
  file = report / "report.json" if report.is_dir() else report
  try:
    plan = json.loads(file.read_text(encoding="utf-8"))["plan"]
    model, table = plan["model"], file.with_name("table.md").read_text(encoding="utf-8")
    found = model["step"], model["codec"]
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(
      f"--report must be report.json of stemgen_jax.evaluate, with its table.md beside it; got"
      f" {file} ({error!r}). Evaluate the model first."
    ) from error
  wanted = meta["step"], meta["dataset"]["codec_fingerprint"]
  if found != wanted:
    raise UserError(
      f"--report must be of this model, step {wanted[0]} with codec {wanted[1][:12]}; got {file}"
      f" of step {found[0]} with codec {found[1][:12]}. Evaluate the model first."
    )
  return {"plan": plan, "table": table.strip()}
