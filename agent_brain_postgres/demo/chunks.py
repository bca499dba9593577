"""Cut a file into chunks of the core's sizes, with the core's metadata keys."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, NamedTuple

from .files import SourceFile
from .symbols import Symbol, is_import, symbol_in


class Chunk(NamedTuple):
    """What the backend stores."""

    chunk_id: str
    text: str
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a chunk may get, and from which size on it ends before a new section."""

    lines: int
    characters: int
    enough_characters: int


CODE = Limits(lines=40, characters=1_500, enough_characters=700)
PROSE = Limits(lines=200, characters=2_000, enough_characters=600)

_HEADING = re.compile(r"^(#{1,6})\s+(.+?)\s*#*\s*$")
_END_OF_LINE = re.compile(r"\r\n|\n|\r")  # as editors count; str.splitlines() has more
_FENCE = re.compile(r"^\s*(?:```|~~~)")
_MAX_IMPORTS = 50


class Line(NamedTuple):
    """A line of the file, or a piece of a very long one."""

    number: int
    text: str


class Piece(NamedTuple):
    """Consecutive lines that make a chunk."""

    lines: list[Line]

    @property
    def text(self) -> str:
        return "\n".join(line.text for line in self.lines)


def chunk_file(file: SourceFile, root: str) -> list[Chunk]:
    """Cut one file. The ids depend on path and position alone, so that a later run replaces.

    Two keys are ours: `root` (what the demo was pointed at) and `content_hash` (of the file).
    """
    pieces = _code(file) if file.kind.source_type == "code" else _prose(file)
    cut = list(pieces)
    common = _common_metadata(file, root, len(cut))
    chunks = []
    for index, (piece, own) in enumerate(cut):
        chunk_id = chunk_id_of(file, index)
        metadata = {
            "chunk_id": chunk_id,
            **common,
            "chunk_index": index,
            "start_line": piece.lines[0].number,
            "end_line": piece.lines[-1].number,
            **{key: value for key, value in own.items() if value},
        }
        chunks.append(Chunk(chunk_id, piece.text, metadata))
    return chunks


def chunk_id_of(file: SourceFile, index: int) -> str:
    """Name a chunk as the core does: `chunk_` and 16 hexadecimal digits."""
    seed = os.fsencode(file.path) + b"_%d" % index
    return f"chunk_{hashlib.md5(seed, usedforsecurity=False).hexdigest()[:16]}"


def _common_metadata(file: SourceFile, root: str, total: int) -> dict[str, Any]:
    path = printable(os.fspath(file.path))
    return {
        "source": path,
        "file_path": path,
        "file_name": printable(file.path.name),
        "file_type": file.path.suffix.lower().removeprefix(".") or "text",
        "file_size": file.size,
        "creation_date": _date(file.created),
        "last_modified_date": _date(file.modified),
        "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "doc_id": hashlib.md5(os.fsencode(file.path), usedforsecurity=False).hexdigest(),
        "total_chunks": total,
        "source_type": file.kind.source_type,
        "language": file.kind.language,
        "root": root,
        "content_hash": file.digest,
    }


def printable(text: str) -> str:
    """Replace what UTF-8 cannot hold: file names are bytes, not always text."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d")


def _code(file: SourceFile) -> Iterator[tuple[Piece, dict[str, Any]]]:
    language = file.kind.language
    enclosing: Symbol | None = None

    def starts(line: Line) -> bool:
        return not line.text[:1].isspace() and symbol_in(line.text, language) is not None

    for piece in _cut(file.text, CODE, starts):
        defined = [found for line in piece.lines if (found := symbol_in(line.text, language))]
        label = defined[0] if defined else enclosing
        enclosing = defined[-1] if defined else enclosing
        imports = [line.text.strip() for line in piece.lines if is_import(line.text)]
        yield piece, {
            "symbol_name": label.name if label else None,
            "symbol_kind": label.kind if label else None,
            "imports": imports[:_MAX_IMPORTS],
        }


def _prose(file: SourceFile) -> Iterator[tuple[Piece, dict[str, Any]]]:
    markdown = file.kind.language == "markdown"
    headings = _headings(file.text) if markdown else {}

    def starts(line: Line) -> bool:
        return line.number in headings

    path: list[tuple[int, str]] = []
    for piece in _cut(file.text, PROSE, starts):
        inside = [headings[line.number] for line in piece.lines if line.number in headings]
        for level, title in inside[:1]:
            path = [*(above for above in path if above[0] < level), (level, title)]
        yield piece, {
            "content_type": "document",
            "heading_path": " > ".join(title for _, title in path),
            "section_title": path[-1][1] if path else None,
        }
        for level, title in inside[1:]:
            path = [*(above for above in path if above[0] < level), (level, title)]


def _headings(text: str) -> dict[int, tuple[int, str]]:
    """Find Markdown headings by line number, leaving out fenced code."""
    found: dict[int, tuple[int, str]] = {}
    fenced = False
    for number, line in enumerate(_END_OF_LINE.split(text), start=1):
        if _FENCE.match(line):
            fenced = not fenced
        elif not fenced and (match := _HEADING.match(line)):
            found[number] = (len(match[1]), match[2])
    return found


def _cut(text: str, limits: Limits, starts: Callable[[Line], bool]) -> Iterator[Piece]:
    """Fill pieces line by line; end one before a new section, else at a blank line, else full."""
    current: list[Line] = []
    for line in _lines(text, limits.characters):
        if _size(current) >= limits.enough_characters and starts(line):
            yield from _piece(current)
            current = []
        while current and (
            len(current) >= limits.lines or _size([*current, line]) > limits.characters
        ):
            cut = _last_blank(current)
            yield from _piece(current[:cut])
            current = current[cut:]
        current.append(line)
    yield from _piece(current)


def _size(lines: list[Line]) -> int:
    return sum(len(line.text) + 1 for line in lines)


def _last_blank(lines: list[Line]) -> int:
    """Give where to end a full piece: behind a blank line of its second half, or at the end."""
    for index in range(len(lines) - 1, len(lines) // 2, -1):
        if not lines[index].text.strip():
            return index + 1
    return len(lines)


def _piece(lines: list[Line]) -> Iterator[Piece]:
    while lines and not lines[0].text.strip():
        lines = lines[1:]
    while lines and not lines[-1].text.strip():
        lines = lines[:-1]
    if lines:
        yield Piece(lines)


def _lines(text: str, longest: int) -> Iterator[Line]:
    for number, line in enumerate(_END_OF_LINE.split(text), start=1):
        if len(line) < longest:
            yield Line(number, line)
            continue
        for start in range(0, len(line), longest - 1):
            yield Line(number, line[start : start + longest - 1])
