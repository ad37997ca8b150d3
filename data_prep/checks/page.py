# SPDX-License-Identifier: Apache-2.0
"""The page of a dataset: what it holds in pictures, and what is wrong with it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from data_prep.checks.statistics import ACTIVE_DB, ACTIVITY_EDGES, LEVEL_EDGES_DB
from stemgen_jax.pages.page import embed_figure, pyplot, render

MOST_ROWS = 200  # of a table of problems
WIDTH = 9.0  # inches
GROUPS = {
  "damage": "Damaged shards",
  "leaks": "The same music in two splits",
  "problems": "Other findings",
}


def render_page(report: Mapping[str, Any]) -> str:
  """Returns the page of a report of `inspect_shards.describe`."""
  groups = [
    {
      "heading": heading,
      "problems": report[name][:MOST_ROWS],
      "more": max(len(report[name]) - MOST_ROWS, 0),
    }
    for name, heading in GROUPS.items()
    if report[name]
  ]
  return render(
    "shards.html",
    name=Path(report["path"]).parent.name,
    report=report,
    verdict=judge(report),
    pictures=draw_pictures(report) if report["category_hours"] else [],
    groups=groups,
    settings=json.dumps(report["settings"], indent=1),
  )


def judge(report: Mapping[str, Any]) -> dict[str, str]:
  """Returns the page's first line, and whether it is good, soft or bad news."""
  if report["damage"]:
    count = len(report["damage"])
    return {"kind": "bad", "text": f"{count} of {report['shards']} shards are damaged."}
  if report["leaks"]:
    text = f"Music of one split is in another, {len(report['leaks'])} times: held-out losses lie."
    return {"kind": "bad", "text": text}
  if report["problems"]:
    kinds = ", ".join(f"{kind} ({n})" for kind, n in report["problem_kinds"].items())
    return {"kind": "soft", "text": f"Every record is whole. Worth a look: {kinds}."}
  return {"kind": "good", "text": "Every record is whole, and nothing was found to be wrong."}


def draw_pictures(report: Mapping[str, Any]) -> list[dict[str, str]]:
  """Returns the pictures with their headings and what they show."""
  source, gate = report["source"] or "stem", f"{ACTIVE_DB:g} dB"
  return [
    {
      "heading": f"Hours by {source}",
      "text": "Of stems, by split.",
      "image": _draw_hours(report["category_hours"], list(report["splits"])),
    },
    {
      "heading": "Loudness",
      "text": "Share of half seconds or so of a stem, by level in dB of full scale; at the left"
      " edge is silence.",
      "image": _draw_map(report["levels"], LEVEL_EDGES_DB, "dB", ACTIVE_DB),
    },
    {
      "heading": "Activity",
      "text": f"Share of the stems, by the part of a clip in which they sound (above {gate}).",
      "image": _draw_map(report["activity"], ACTIVITY_EDGES, "part of the clip", None),
    },
    {
      "heading": "Codebooks",
      "text": "How often each code of a level occurs where stems sound, commonest first. A level"
      " that falls off at once has collapsed.",
      "image": _draw_codes(report["code_counts"]),
    },
    {
      "heading": "Context mixes",
      "text": "How many stems a mix sums; 0 is silence.",
      "image": _draw_sizes(report["mix_sizes"]),
    },
  ]


def _draw_hours(hours: Mapping[str, Mapping[str, float]], splits: Sequence[str]) -> str:
  figure, axes = pyplot.subplots(figsize=(WIDTH, 0.8 + 0.28 * len(hours)), layout="constrained")
  names, left = list(hours), np.zeros(len(hours))
  for split in splits:
    values = np.array([hours[name].get(split, 0.0) for name in names])
    axes.barh(names, values, left=left, label=split)
    left += values
  axes.invert_yaxis()
  axes.set(xlabel="hours")
  figure.legend(loc="outside upper right", ncols=len(splits))
  return embed_figure(figure)


def _draw_map(
  rows: Mapping[str, Sequence[int]], edges: np.ndarray, label: str, line: float | None
) -> str:
  """Draws one histogram a row, darker where there is more."""
  counts = np.array(list(rows.values()), float)
  shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
  figure, axes = pyplot.subplots(figsize=(WIDTH, 1.0 + 0.28 * len(rows)), layout="constrained")
  mesh = axes.pcolormesh(edges, np.arange(len(rows) + 1), shares, cmap="Blues", vmin=0)
  axes.set(xlabel=label, yticks=np.arange(len(rows)) + 0.5, yticklabels=list(rows))
  axes.invert_yaxis()
  if line is not None:
    axes.axvline(line, color="crimson", linewidth=1, label=f"{line:g} dB: what sounds")
    axes.legend(loc="lower left")
  figure.colorbar(mesh, label="share", format="{x:.0%}")
  return embed_figure(figure)


def _draw_codes(levels: Sequence[Sequence[int]]) -> str:
  figure, axes = pyplot.subplots(figsize=(WIDTH, 2.6), layout="constrained")
  for q, counts in enumerate(levels, start=1):
    shares = np.array(counts) / max(sum(counts), 1)
    axes.plot(np.arange(1, len(shares) + 1), shares, label=f"level {q}")
  axes.set(xlabel="codes, commonest first", ylabel="share", xscale="log")
  axes.yaxis.set_major_formatter("{x:.1%}")
  axes.legend()
  return embed_figure(figure)


def _draw_sizes(sizes: Mapping[str, int]) -> str:
  figure, axes = pyplot.subplots(figsize=(WIDTH, 2.2), layout="constrained")
  total = max(sum(sizes.values()), 1)
  axes.bar([int(size) for size in sizes], [n / total for n in sizes.values()])
  axes.xaxis.set_major_locator(MaxNLocator(integer=True))
  axes.set(xlabel="stems in a mix", ylabel="share of mixes")
  axes.yaxis.set_major_formatter("{x:.0%}")
  return embed_figure(figure)
