"""Lexemes: words as the server's text search configuration sees them, and tsvectors built of them in the client.

Each distinct word is turned into its lexemes by the server once (stemmer, stop words, whatever `language` is) and
remembered; the tsvector of a chunk is then put together here and sent in PostgreSQL's binary format. `to_tsvector`, the
bottleneck of every full-text ingest, is thus out of the way.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from agent_brain_postgres.words import Token, analyse, tokens

logger = logging.getLogger(__name__)

MAX_POSITION = 16383
MAX_POSITIONS = 255  # of one lexeme
MAX_BYTES = (1 << 20) - 1
_LABELS = {"A": 3, "B": 2, "C": 1}
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


@dataclass(frozen=True, slots=True)
class Analysed:
    """The searchable form of one chunk."""

    tsvector: bytes
    """In the binary format of the type, for COPY."""
    length: int
    """Word positions, stop words not counted."""
    lexemes: Mapping[str, int]
    """Lexeme -> occurrences."""


class Vocabulary:
    """What the server made of each word so far, for one language."""

    def __init__(self, language: str, limit: int = 300_000) -> None:
        self.language = language
        self.limit = limit
        self.truncated = 0
        """Chunks indexed by their head only, since the start."""
        self._lexemes: dict[str, list[str]] = {}
        self._tokens: dict[str, Token] = {}

    async def analyse(
        self,
        conn: psycopg.AsyncConnection[Any],
        documents: Sequence[str],
        metadatas: Sequence[Mapping[str, Any]],
    ) -> list[Analysed]:
        """Analyse a batch; one statement on `conn` when it has words not met before."""
        fields, unknown = await asyncio.to_thread(self._read, documents, metadatas)
        if unknown:
            cursor = await conn.execute(_LEXEMES, (self.language, unknown))
            self._lexemes.update(await cursor.fetchall())
        result, cut = await asyncio.to_thread(self._build, fields)
        if cut:
            self.truncated += cut
            logger.warning(
                "%d chunks are too large for full-text search: only their head is indexed", cut
            )
        return result

    def _read(
        self, documents: Sequence[str], metadatas: Sequence[Mapping[str, Any]]
    ) -> tuple[Any, list[str]]:
        if len(self._tokens) > self.limit:
            self._tokens, self._lexemes = {}, {}
        fields = [
            [("A", tokens(_field(m, _A_KEYS))), ("B", tokens(_field(m, _B_KEYS))), ("C", tokens(d))]
            for d, m in zip(documents, metadatas, strict=True)
        ]
        new = {t for f in fields for _, ts in f for t in ts} - self._tokens.keys()
        self._tokens.update((t, analyse(t)) for t in new)
        # All tokens of the batch, not the new ones: another batch may have forgotten the words meanwhile.
        words = {
            w.text
            for f in fields
            for _, ts in f
            for t in ts
            for w in self._tokens[t].words
            if not w.literal
        }
        return fields, list(words - self._lexemes.keys())

    def _build(self, fields: Any) -> tuple[list[Analysed], int]:
        built = [self._one(f) for f in fields]
        return [a for a, _ in built], sum(cut for _, cut in built)

    def _one(self, fields: list[tuple[str, list[str]]]) -> tuple[Analysed, bool]:
        positions: dict[str, list[tuple[int, int]]] = defaultdict(list)
        at, length = 1, 0
        for label, ts in fields:
            for t in ts:
                token = self._tokens[t]
                for word in token.words:
                    lexemes = [word.text] if word.literal else self._lexemes[word.text]
                    length += bool(lexemes) and not word.compound
                    for lexeme in lexemes:
                        positions[lexeme].append(
                            (min(at + word.offset, MAX_POSITION), _LABELS[label])
                        )
                at += token.positions
            at += 2 if ts else 0  # no phrase reaches from one field into the next
        return _pack(positions, length)


def _pack(positions: Mapping[str, list[tuple[int, int]]], length: int) -> tuple[Analysed, bool]:
    parts, size, kept = [], 0, {}
    for lexeme, found in positions.items():
        name = lexeme.encode("utf-8", "replace")
        distinct = sorted(dict(found).items())[:MAX_POSITIONS]
        size += len(name) + 3 + 2 * len(distinct)
        if size > MAX_BYTES or len(name) > 2046:
            break
        kept[lexeme] = len(distinct)
        parts.append(
            name
            + struct.pack(
                f"!xH{len(distinct)}H", len(distinct), *(p | (w << 14) for p, w in distinct)
            )
        )
    return Analysed(struct.pack("!i", len(parts)) + b"".join(parts), length, kept), len(kept) < len(
        positions
    )


def statistics(batch: Iterable[Analysed]) -> dict[str, tuple[int, int]]:
    """Document frequency and occurrences of each lexeme in a batch; under '' the chunks and their total length."""
    chunks: dict[str, int] = defaultdict(int)
    occurrences: dict[str, int] = defaultdict(int)
    for analysed in batch:
        chunks[""] += 1
        occurrences[""] += analysed.length
        for lexeme, count in analysed.lexemes.items():
            chunks[lexeme] += 1
            occurrences[lexeme] += count
    return {lexeme: (n, occurrences[lexeme]) for lexeme, n in chunks.items()}


def _field(metadata: Mapping[str, Any], keys: Sequence[str]) -> str:
    values = (metadata.get(key) for key in keys)
    return "\n".join(
        v if isinstance(v, str) else " ".join(map(str, v)) if isinstance(v, list) else ""
        for v in values
    )
