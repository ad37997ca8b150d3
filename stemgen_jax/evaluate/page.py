# SPDX-License-Identifier: Apache-2.0
"""What an evaluation found, as a table for a README and as a page with pictures and players."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from stemgen_jax.evaluate.examples import Example
from stemgen_jax.pages.markdown import table

COLUMNS = ("other", "shifted", "chance", "model", "true", "original")
HEADINGS = {
  "other": "another song's",
  "shifted": "half a beat off",
  "chance": "chance",
  "model": "model",
  "true": "true stem",
  "original": "before the codec",
}
UNITS = {"onset_offset_ms": "ms", "listening_score": "nats", "haze_db": "dB"}
MOST_PLAYED = 24  # windows on the page
WAY_SHOWN = (-1.5, 2.0)  # of the picture


def tabulate(results: dict[str, Any]) -> str:
  """Returns the figures as Markdown tables."""
  columns = columns_of(results)
  lines = table(
    ["metric", *(HEADINGS[name] for name in columns), "floor to ceiling", "tells", "n"],
    [
      [
        label_of(row),
        *(interval_of(row["sets"][name]) for name in columns),
        way_of(row),
        "yes" if row["tells"] else "no",
        count_of(row),
      ]
      for row in results["metrics"]
    ],
  )
  for name, found in results["distances"].items():
    lines += [
      "",
      f"Embedding {name}, {found['seconds']:.2g} s each; reference:"
      f" {found['reference']} of the training songs' true stems.",
      "",
    ]
    lines += table(
      ["set", f"FAD-{name}", f"FAD-inf-{name}", f"KAD-{name}", f"APA-{name}", "n"],
      [
        [
          HEADINGS[r["set"]],
          distance_of(r["FAD"]),
          "" if r["FAD-inf"] is None else f"{r['FAD-inf']:.4g}",
          distance_of(r["KAD"]),
          distance_of(r["APA"]),
          str(r["n"]),
        ]
        for r in sorted(found["rows"], key=lambda r: COLUMNS.index(r["set"]))
      ],
    )
    lines += ["", explain_distances(found)]
  if results["cocola"]:
    found = [[HEADINGS[row["set"]], interval_of(row)] for row in results["cocola"]]
    lines += ["", *table(["set", "COCOLA"], found)]
  gains = [[str(row["level"]), interval_of(row)] for row in results["gain"]]
  lines += ["", *table(["level", "listening gain, nats a token"], gains)]
  told = results["classifier"]
  lines += [
    "",
    "n: to how many stems of the model, and to how many true ones, the metric applies; a stem"
    " without pitch has no harmony, and one with fewer than two onsets no rhythm.",
    "",
    f"{results['n']} windows of {results['seconds']:.1f} s from {results['songs']} songs. In"
    f" brackets 95 % intervals over songs. The classifier, of {told['categories']} categories, was"
    f" trained on {told['stems']} true stems of other songs and is right for"
    f" {told['accuracy']:.0%} of the true stems here.",
  ]
  return "\n".join(lines) + "\n"


def columns_of(results: dict[str, Any]) -> list[str]:
  """Returns the sets that there are, floors first."""
  return [name for name in COLUMNS if name in results["metrics"][0]["sets"]]


def label_of(row: dict[str, Any]) -> str:
  """Returns a metric's name, its unit, and which way is better."""
  unit = f", {UNITS[row['name']]}" if row["name"] in UNITS else ""
  return f"{row['name']}{unit} {'↑' if row['higher'] else '↓'}"


def distance_of(found: dict[str, float | None]) -> str:
  """Returns a distance of sets with its interval, or nothing where there is none."""
  if found["mean"] is None:
    return ""
  return f"{found['mean']:.4g} ({found['low']:.4g}, {found['high']:.4g})"


def explain_distances(found: dict[str, Any]) -> str:
  """Returns what to know of the distances by one embedding."""
  silent = [name for name, tells in found["tells"].items() if not tells]
  words = "FAD-inf is left out where there are fewer than five embeddings a dimension; KAD may be"
  words += " negative, as it has no bias."
  if silent:
    words += " True stems are not surely better than the floor here, so that these tell nothing:"
    words += f" {', '.join(silent)}."
  if any(row["set"] == "original" for row in found["rows"]):
    words += " The reference went through the codec, so stems before it lie further off."
  return words


def interval_of(found: dict[str, Any]) -> str:
  """Returns mean and interval, or nothing where no window has the figure."""
  if found["mean"] is None:
    return ""
  digits = 3 if max(abs(found["low"]), abs(found["high"])) < 2 else 1
  return " ".join(
    [f"{found['mean']:.{digits}f}", f"({found['low']:.{digits}f}, {found['high']:.{digits}f})"]
  )


def way_of(row: dict[str, Any]) -> str:
  """Returns how far from its floor to the ceiling the model comes, where the metric tells."""
  way = row["way"]
  if not row["tells"]:
    return ""
  if way["mean"] is None:
    return "too few to tell"
  return f"{way['mean']:.0%} ({way['low']:.0%}, {way['high']:.0%}) of {HEADINGS[row['floor']]}"


def count_of(row: dict[str, Any]) -> str:
  """Returns to how many stems of the model, and to how many true ones, a metric applies."""
  return f"{row['sets']['model']['n']}, {row['sets']['true']['n']}"


def draw_page(results: dict[str, Any], examples: Sequence[Example]) -> str:
  """Returns the page."""
  from stemgen_jax.pages.page import render

  return render(
    "evaluate.html",
    results=results,
    columns=columns_of(results),
    headings=HEADINGS,
    label_of=label_of,
    interval_of=interval_of,
    way_of=way_of,
    count_of=count_of,
    distance_of=distance_of,
    explain_distances=explain_distances,
    picture=draw_ways(results["metrics"]),
    distances=draw_distances(results["distances"], columns_of(results)),
    examples=[{"id": e.id, "song": e.song, "category": e.category} for e in examples[:MOST_PLAYED]],
    sets=[name for name in examples[0].sets if name != "chance"],
  )


def draw_ways(rows: Sequence[dict[str, Any]]) -> str:
  """Draws where the model stands between floor (0) and ceiling (1) on every metric that tells."""
  from stemgen_jax.pages.page import embed_figure, pyplot

  rows = [row for row in rows if row["tells"] and row["way"]["mean"] is not None][::-1]
  figure, axes = pyplot.subplots(figsize=(9, 0.32 * len(rows) + 1), layout="constrained")
  for i, row in enumerate(rows):
    way = row["way"]
    ends = np.clip([way["low"], way["high"]], *WAY_SHOWN)
    axes.plot(ends, [i, i], color="C0", linewidth=2)
    for end, edge, marker in zip(ends, WAY_SHOWN, "<>", strict=True):
      if end == edge:  # it goes on beyond the picture
        axes.plot(end, i, marker, color="C0", clip_on=False)
    axes.plot(np.clip(way["mean"], *WAY_SHOWN), i, "o", color="C0", clip_on=False)
  axes.axvline(0, color="grey", linestyle="--")
  axes.axvline(1, color="grey", linestyle="--")
  axes.set(
    yticks=range(len(rows)),
    yticklabels=[label_of(row) for row in rows],
    xlim=WAY_SHOWN,
    ylim=(-0.6, len(rows) - 0.4),
    xlabel="from floor (0) to true stem (1), 95 % interval over songs",
  )
  return embed_figure(figure)


def draw_distances(distances: dict[str, Any], columns: Sequence[str]) -> str:
  """Draws FAD of every set by every embedding."""
  from stemgen_jax.pages.page import embed_figure, pyplot

  figure, all_axes = pyplot.subplots(
    1, len(distances), figsize=(4 * len(distances) + 1, 2.6), layout="constrained", squeeze=False
  )
  for axes, (name, found) in zip(all_axes[0], distances.items(), strict=True):
    rows = {row["set"]: row for row in found["rows"]}
    values = np.array([rows[column]["FAD"]["mean"] for column in columns])
    spread = [
      [abs(rows[c]["FAD"][edge] - rows[c]["FAD"]["mean"]) for c in columns]
      for edge in ("low", "high")
    ]
    axes.errorbar(values, range(len(columns)), xerr=spread, fmt="o", color="C0")
    axes.set(
      yticks=range(len(columns)),
      yticklabels=[HEADINGS[c] for c in columns],
      xscale="log",
      ylim=(-0.6, len(columns) - 0.4),
      xlabel=f"FAD-{name}",
    )
  return embed_figure(figure)
