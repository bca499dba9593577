"""What the demo prints."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console

    from agent_brain_postgres.types import SearchResult

    from .indexing import Summary

_WORD = re.compile(r"\w{2,}")
_SNIPPET_LINES = 3
_PLACE_WIDTH = 48
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def results_table(
    title: str, query: str, results: Sequence[SearchResult], root: Path, milliseconds: float
) -> Table:
    """Show results with score, file:line and the lines that fit the query best."""
    table = Table(
        title=f"{title} · {milliseconds:.1f} ms",
        title_justify="left",
        title_style="bold",
        expand=True,
        show_lines=False,
        pad_edge=False,
    )
    table.add_column("score", justify="right", no_wrap=True, width=5)
    table.add_column("file:line", overflow="fold", max_width=_PLACE_WIDTH)
    table.add_column("snippet", overflow="ellipsis", no_wrap=True, ratio=1)
    for result in results:
        offset, snippet = best_lines(result.text, query)
        place = f"{_relative(result.metadata, root)}:{_line(result.metadata, offset)}"
        table.add_row(f"{result.score:.3f}", Text(place), highlighted(snippet, query))
    if not results:
        table.add_row("", "", Text("nothing found", style="dim"))
    return table


def heading(query: str) -> Text:
    """Show a query as the user gave it, minus what would move the cursor."""
    return Text(_CONTROL.sub(" ", query.replace("\n", " ")), style="bold cyan")


def best_lines(text: str, query: str) -> tuple[int, str]:
    """Choose the lines of a chunk that hold most words of the query, and where they begin."""
    lines = text.split("\n")
    words = _words(query)
    count = min(_SNIPPET_LINES, len(lines))

    def hits(text: str) -> int:
        return sum(word in text.lower() for word in words)

    def worth(start: int) -> tuple[int, int, bool]:
        window = " ".join(lines[start : start + count])
        # Equal windows: the one that begins with a hit, or with a line to read; the earliest.
        return hits(window), hits(lines[start]), bool(lines[start].strip())

    best = max(range(len(lines) - count + 1), key=worth)
    shown = lines[best : best + count]
    indent = min((len(line) - len(line.lstrip()) for line in shown if line.strip()), default=0)
    return best, "\n".join(_CONTROL.sub(" ", line[indent:].rstrip()) for line in shown).rstrip()


def highlighted(snippet: str, query: str) -> Text:
    """Mark the words of the query."""
    text = Text(snippet)
    if words := _words(query):
        pattern = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
        text.highlight_regex(f"(?i){pattern}", style="bold yellow")
    return text


def print_summary(console: Console, summary: Summary, total: int) -> None:
    """Say what was indexed and what was left out, and why."""
    console.print(
        f"[bold]{summary.files}[/] files, {summary.unchanged} of them unchanged: "
        f"[bold]{summary.stored}[/] chunks stored, {summary.removed} removed, "
        f"{total} in the store"
    )
    if summary.skipped:
        reasons = ", ".join(f"{count} {reason}" for reason, count in summary.skipped.most_common())
        console.print(f"skipped {summary.skipped.total()} files: {reasons}", highlight=False)


def print_health(console: Console, health: Mapping[str, Any]) -> None:
    """Print the health document as JSON."""
    console.print("\n[bold]Health[/]")
    console.print_json(json.dumps(health, default=str))


def print_timings(console: Console, seconds: Mapping[str, float]) -> None:
    """Print the seconds of each step."""
    table = Table(title="Timings", title_justify="left", title_style="bold", pad_edge=False)
    table.add_column("step")
    table.add_column("seconds", justify="right")
    for step, duration in seconds.items():
        table.add_row(step, f"{duration:.2f}")
    console.print(table)


def _words(query: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(query)}


def _relative(metadata: Mapping[str, Any], root: Path) -> str:
    source = str(metadata.get("source", "?"))
    try:
        return str(Path(source).relative_to(root if root.is_dir() else root.parent))
    except ValueError:
        return source


def _line(metadata: Mapping[str, Any], offset: int) -> int:
    start = metadata.get("start_line")
    end = metadata.get("end_line")
    line = start + offset if isinstance(start, int) else 1 + offset
    return min(line, end) if isinstance(end, int) else line
