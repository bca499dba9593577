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
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
# A token as `words` cuts it, in plain tuples: the garbage collector stops following those.
_Cut = tuple[tuple[tuple[str, int, bool, bool], ...], int]


@dataclass(frozen=True, slots=True)
class Reading:
    """Texts cut into tokens, and what is known of those; shared with no other batch's clearing."""

    fields: list[_Fields]
    entries: dict[str, _Entry]
    lexemes: dict[str, list[str]]
    new: dict[str, _Cut]

    def unknown(self) -> list[str]:
        """List the words that the server must be asked about."""
        words = {text for cut, _ in self.new.values() for text, _, literal, _ in cut if not literal}
        return list(words - self.lexemes.keys())

    def resolve(self) -> None:
        """Turn the new tokens into entries."""
        for text, (cut, positions) in self.new.items():
            found: dict[tuple[str, int], None] = {}
            length = 0
            for word, offset, literal, compound in cut:
                lexemes = (word,) if literal else self.lexemes[word]
                length += bool(lexemes) and not compound
                for lexeme in lexemes:
                    found[lexeme, offset] = None
            entries = tuple(found if len(found) == 1 else sorted(found, key=_offset))
            self.entries[text] = (entries, positions, length)


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
        reading = await asyncio.to_thread(self.read, documents, metadatas)
        await self.learn(conn, reading)
        return await asyncio.to_thread(self.build, reading)

    def read(
        self, documents: Sequence[str], metadatas: Sequence[Mapping[str, Any]]
    ) -> Reading:
        """Cut texts into tokens: the first of three steps, CPU-bound."""
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
        return Reading(fields, self._entries, self._lexemes, {t: _cut(t) for t in new})

    async def learn(self, conn: psycopg.AsyncConnection[Any], reading: Reading) -> None:
        """Ask the server about words not met before: the second step, one short statement."""
        if unknown := reading.unknown():
            reading.lexemes.update(await lexemes_of(conn, self.language, unknown))

    def build(self, reading: Reading) -> list[Analysed]:
        """Put the tsvectors together: the last step, CPU-bound."""
        reading.resolve()
        built = [_pack(*_place(reading.entries, fields)) for fields in reading.fields]
        if cut := sum(cut for _, cut in built):
            self.truncated += cut
            logger.warning(
                "%d chunks are too large for full-text search: only their head is indexed", cut
            )
        return [analysed for analysed, _ in built]


def _cut(text: str) -> _Cut:
    words, positions = analyse(text)
    plain = [(text, offset, literal, compound) for text, offset, literal, compound in words]
    return tuple(plain), positions


def _offset(entry: tuple[str, int]) -> int:
    return entry[1]


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


class Counts:
    """Document frequencies and occurrences of lexemes; under '' the chunks and their total length."""

    def __init__(self) -> None:
        self._chunks: Counter[str] = Counter()
        self._repeats: Counter[str] = Counter()
        self._length = self._total = 0

    def add(self, batch: Iterable[Analysed]) -> None:
        """Count chunks in."""
        for analysed in batch:
            self._total += 1
            self._length += analysed.length
            self._chunks.update(analysed.lexemes.keys())  # counts at C speed
            for lexeme, count in analysed.lexemes.items():
                if count > 1:
                    self._repeats[lexeme] += count - 1

    def rows(self) -> Iterator[tuple[str, int, int]]:
        """Give lexeme, chunks and occurrences."""
        if self._total:
            yield "", self._total, self._length
        for lexeme, chunks in self._chunks.items():
            yield lexeme, chunks, chunks + self._repeats.get(lexeme, 0)


def _field(metadata: Mapping[str, Any], keys: Sequence[str]) -> str:
    values = (metadata.get(key) for key in keys)
    return "\n".join(
        v if isinstance(v, str) else " ".join(map(str, v)) if isinstance(v, list) else ""
        for v in values
    )
