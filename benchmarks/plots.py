"""Draw the results of `speed.py`: three panels, one colour a contender."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

PANELS = (
    ("ingest_rows_per_second", "ingest until indexed, rows/s"),
    ("vector_p50_ms", "vector search p50, ms (k = 10)"),
    ("searches_per_second", "searches/s, 32 in flight"),
)


def draw(results: dict[str, dict[str, Any]], about: dict[str, Any], path: Path) -> None:
    """Write a picture; needs matplotlib."""
    matplotlib = import_module("matplotlib")
    matplotlib.use("Agg")
    pyplot = import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(1, len(PANELS) + 1, figsize=(16, 4), constrained_layout=True)
    for axis, (key, title) in zip(axes, PANELS, strict=False):
        shown = {name: figures[key] for name, figures in results.items() if key in figures}
        bars = axis.barh(list(shown), list(shown.values()), color=_colours(list(shown)))
        axis.bar_label(bars, fmt="%.4g", padding=2)
        axis.invert_yaxis()
        axis.set_title(title)
        axis.margins(x=0.18)
    _filters(axes[-1], results)
    figure.suptitle(
        f"{about['rows']:,} chunks, {about['dimensions']} dimensions, PostgreSQL "
        f"{about['postgres']}, pgvector {about['pgvector']}, {about['cpus']} cores"
    )
    figure.savefig(path, dpi=110)


def _colours(names: list[str]) -> list[str]:
    return ["#d1495b" if name == "ours" else "#9aa5b1" for name in names]


def _filters(axis: Any, results: dict[str, dict[str, Any]]) -> None:
    """Recall against latency under filters: up and to the left is better."""
    for name, figures in results.items():
        kept = [key[:-7] for key in figures if key.startswith("kept_") and key.endswith("_recall")]
        if kept:
            axis.plot(
                [figures[f"{key}_p50_ms"] for key in kept],
                [figures[f"{key}_recall"] for key in kept], "o", label=name, alpha=0.8,
            )
    axis.set_xscale("log")
    axis.set_xlabel("p50, ms")
    axis.set_title("recall@10 with filters")
    if axis.has_data():
        axis.legend(fontsize="small")
