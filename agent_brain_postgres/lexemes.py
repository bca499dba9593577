"""Lexemes: words as the server's text search configuration sees them, and tsvectors built of them in the client.

Each distinct word is turned into its lexemes by the server once (stemmer, stop words, whatever `language` is) and
remembered; the tsvector of a chunk is then put together here and sent in PostgreSQL's binary format. `to_tsvector`, the
bottleneck of every full-text ingest, is thus out of the way.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import sys
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import psycopg

from agent_brain_postgres.words import Token, analyse, tokens

logger = logging.getLogger(__name__)

MAX_POSITION = 16383
MAX_POSITIONS = 255  # of one lexeme
MAX_BYTES = (1 << 20) - 1
_A, _B, _C = 3 << 14, 2 << 14, 1 << 14  # labels, as they stand before a position
_number = struct.Struct("!i").pack
_one_count = struct.Struct("!xH").pack
_one = lru_cache(maxsize=1 << 14)(struct.Struct("!xHH").pack)
_A_KEYS = ("symbol_name", "file_name", "title")
_B_KEYS = ("heading_path", "section_title", "section_summary", "docstring")

_LEXEMES = """
    SELECT word,
        CASE WHEN pg_catalog.length(vector) > 0 OR pg_catalog.length(pg_catalog.to_tsvector('pg_catalog.simple', word)) > 0
             THEN pg_catalog.tsvector_to_array(vector) ELSE ARRAY[word] END
    FROM (SELECT word, pg_catalog.to_tsvector(%s::pg_catalog.regconfig, word) AS vector
          FROM pg_catalog.unnest(%s::pg_catalog.text[]) AS word) AS words
"""
"""Words to lexemes; a word that the server's parser cannot see at all is its own lexeme."""


async def lexemes_of(
    conn: psycopg.AsyncConnection[Any], language: str, words: Iterable[str]
) -> dict[str, list[str]]:
    """Ask the server for the lexemes of words."""
    cursor = await conn.execute(_LEXEMES, (language, list(words)))
    return dict(await cursor.fetchall())


@dataclass(frozen=True, slots=True)
class Analysed:
    """The searchable form of one chunk."""

    tsvector: bytes
    """In the binary format of the type, for COPY."""
    length: int
    """Word positions, stop words not counted."""
    lexemes: Mapping[str, int]
    """Lexeme -> occurrences."""


# A token as the language sees it: (lexeme, offset) in the order of the offsets, the positions it
# takes, and how many of its words count for the length of a text.
_Entry = tuple[tuple[tuple[str, int], ...], int, int]
_Fields = list[tuple[int, list[str]]]


@dataclass(frozen=True, slots=True)
class _Reading:
    """Texts cut into tokens, and what is known of those; shared with no other batch's clearing."""

    fields: list[_Fields]
    entries: dict[str, _Entry]
    lexemes: dict[str, list[str]]
    new: dict[str, Token]

    def unknown(self) -> list[str]:
        """List the words that the server must be asked about."""
        words = {w.text for token in self.new.values() for w in token.words if not w.literal}
        return list(words - self.lexemes.keys())

    def resolve(self) -> None:
        """Turn the new tokens into entries."""
        for text, token in self.new.items():
            found: dict[tuple[str, int], None] = {}
            length = 0
            for word in token.words:
                lexemes = (word.text,) if word.literal else self.lexemes[word.text]
                length += bool(lexemes) and not word.compound
                for lexeme in lexemes:
                    found[lexeme, word.offset] = None
            entries = tuple(sorted(found, key=_offset))
            self.entries[text] = (entries, token.positions, length)


class Vocabulary:
    """What the server made of each word so far, for one language."""

    def __init__(self, language: str, limit: int = 300_000) -> None:
        self.language = language
        self.limit = limit
        self.truncated = 0
        """Chunks indexed by their head only, since the start."""
        self._lexemes: dict[str, list[str]] = {}
        self._entries: dict[str, _Entry] = {}

    async def analyse(
        self,
        conn: psycopg.AsyncConnection[Any],
        documents: Sequence[str],
        metadatas: Sequence[Mapping[str, Any]],
    ) -> list[Analysed]:
        """Analyse a batch; one statement on `conn` when it has words not met before."""
        reading, unknown = await asyncio.to_thread(self._read, documents, metadatas)
        if unknown:
            reading.lexemes.update(await lexemes_of(conn, self.language, unknown))
        result, cut = await asyncio.to_thread(_build, reading)
        if cut:
            self.truncated += cut
            logger.warning(
                "%d chunks are too large for full-text search: only their head is indexed", cut
            )
        return result

    def _read(
        self, documents: Sequence[str], metadatas: Sequence[Mapping[str, Any]]
    ) -> tuple[_Reading, list[str]]:
        if len(self._entries) > self.limit:
            self._entries, self._lexemes = {}, {}
        fields = [
            [
                (_A, tokens(_field(m, _A_KEYS))),
                (_B, tokens(_field(m, _B_KEYS))),
                (_C, tokens(d)),
            ]
            for d, m in zip(documents, metadatas, strict=True)
        ]
        new: set[str] = set()
        for chunk in fields:
            for _, found in chunk:
                new.update(found)
        new -= self._entries.keys()
        reading = _Reading(fields, self._entries, self._lexemes, {t: analyse(t) for t in new})
        return reading, reading.unknown()


def _offset(entry: tuple[str, int]) -> int:
    return entry[1]


def _build(reading: _Reading) -> tuple[list[Analysed], int]:
    reading.resolve()
    built = [_pack(*_place(reading.entries, fields)) for fields in reading.fields]
    return [analysed for analysed, _ in built], sum(cut for _, cut in built)


def _place(
    entries: Mapping[str, _Entry], fields: _Fields
) -> tuple[dict[str, list[int]], int]:
    """Collect the positions of every lexeme, label included, ascending; and the length.

    The inner loop runs a few hundred times a chunk: it is what ingest costs the client.
    """
    positions: dict[str, list[int]] = defaultdict(list)
    at, length = 1, 0
    for label, found in fields:
        for lexemes, taken, counted in map(entries.__getitem__, found):
            if at + taken > MAX_POSITION:
                _place_late(positions, lexemes, label, at)
            else:
                start = at | label
                for lexeme, offset in lexemes:
                    positions[lexeme].append(start + offset)
            length += counted
            at += taken
        at += 2 if found else 0  # no phrase reaches from one field into the next
    return positions, length


def _place_late(
    positions: dict[str, list[int]], lexemes: Iterable[tuple[str, int]], label: int, at: int
) -> None:
    """Place lexemes where positions run out: all that follow share the last one."""
    for lexeme, offset in lexemes:
        position = min(at + offset, MAX_POSITION)
        so_far = positions[lexeme]
        if not so_far or so_far[-1] & MAX_POSITION < position:
            so_far.append(position | label)


def _pack(positions: Mapping[str, list[int]], length: int) -> tuple[Analysed, bool]:
    """Write PostgreSQL's binary form, as much of it as the type can hold."""
    parts = [b""]
    add = parts.append
    size, counts = 0, {}
    for lexeme, found in positions.items():
        name = lexeme.encode("utf-8", "replace")
        count = min(len(found), MAX_POSITIONS)
        size += len(name) + 3 + 2 * count
        if size > MAX_BYTES or len(name) > 2046:
            break
        add(name)
        add(_one(1, found[0]) if count == 1 else _several(found[:count]))
        counts[lexeme] = count
    parts[0] = _number(len(counts))
    return Analysed(b"".join(parts), length, counts), len(counts) < len(positions)


def _several(positions: list[int]) -> bytes:
    packed = array("H", positions)
    if sys.byteorder == "little":
        packed.byteswap()
    return _one_count(len(positions)) + packed.tobytes()


def statistics(batch: Sequence[Analysed]) -> dict[str, tuple[int, int]]:
    """Document frequency and occurrences of each lexeme in a batch; under '' the chunks and their total length."""
    chunks: Counter[str] = Counter()
    more: Counter[str] = Counter()
    for analysed in batch:
        chunks.update(analysed.lexemes.keys())  # counts at C speed
        for lexeme, count in analysed.lexemes.items():
            if count > 1:
                more[lexeme] += count - 1
    result = {lexeme: (n, n + more.get(lexeme, 0)) for lexeme, n in chunks.items()}
    if batch:
        result[""] = (len(batch), sum(analysed.length for analysed in batch))
    return result


def _field(metadata: Mapping[str, Any], keys: Sequence[str]) -> str:
    values = (metadata.get(key) for key in keys)
    return "\n".join(
        v if isinstance(v, str) else " ".join(map(str, v)) if isinstance(v, list) else ""
        for v in values
    )
