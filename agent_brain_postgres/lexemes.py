"""Lexemes: words as the server's text search configuration sees them, kept in the client.

Each distinct word is turned into its lexemes by the server once (stemmer, stop words, whatever
`language` is) and remembered; the tsvector of a chunk is then built here, so that `to_tsvector`,
the bottleneck of full-text ingest, is out of the way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent_brain_postgres import tsvectors
from agent_brain_postgres.arrays import Ints, ranges
from agent_brain_postgres.lexeme_table import Table, ask
from agent_brain_postgres.pool import Connection
from agent_brain_postgres.slices import PADDING, Slices
from agent_brain_postgres.words import DEFINING, spaced

logger = logging.getLogger(__name__)

MAX_TOKENS = 300_000
"""Distinct tokens that are remembered before a vocabulary starts afresh."""

MAX_TEXT = 32 * 1024 * 1024
"""Bytes of these, and of their words and lexemes."""

BLOCK = 500
"""Chunks whose tsvectors are built at a time: arrays that fit the processor's cache."""

# The metadata whose words count most, and more.
TITLES = ("symbol_name", "file_name", "title")
HEADINGS = ("heading_path", "section_title", "section_summary", "docstring")

GAP = 3
"""Positions between two fields, so that no phrase reaches from one into the next."""


@dataclass(frozen=True, slots=True)
class Analysed:
    """The searchable form of one chunk."""

    tsvector: bytes
    """In the binary format of the type, for COPY."""
    length: int
    """Words of all fields, stop words not counted."""
    table: Table
    lexemes: NDArray[np.int32]
    counts: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Block:
    """The tokens of some chunks, one after the other, and how many each field of each chunk has."""

    tokens: Ints
    fields: Ints  # chunks x (titles, headings, text)


@dataclass(frozen=True, slots=True)
class Reading:
    """A batch cut into tokens."""

    table: Table
    blocks: list[_Block]


class Vocabulary:
    """What the server made of each word so far, for one language; shared by concurrent writers."""

    def __init__(self, language: str, max_tokens: int = MAX_TOKENS) -> None:
        self.language = language
        self.truncated = 0
        """Chunks of which only the head is indexed, since the start."""
        self._max_tokens = max_tokens
        self._table = Table()

    def read(
        self, documents: Sequence[str], metadatas: Sequence[Mapping[str, Any]]
    ) -> Reading:
        """Cut a batch into tokens: the first of three steps, all CPU."""
        if len(self._table) > self._max_tokens or self._table.text_size > MAX_TEXT:
            self._table = Table()
        table = self._table
        blocks = []
        for start in range(0, len(documents), BLOCK):
            part = slice(start, start + BLOCK)
            blocks.append(_read(table, documents[part], metadatas[part]))
        return Reading(table, blocks)

    async def learn(self, connection: Connection, reading: Reading) -> None:
        """Ask the server about words not met before: the second step."""
        unknown, words = reading.table.unknown_words()
        if unknown.size or reading.table.unfinished:
            answer = await ask(connection, self.language, words)
            await asyncio.to_thread(reading.table.learn, unknown, answer)

    def build(self, reading: Reading) -> list[Analysed]:
        """Put the tsvectors together: the last step, all CPU."""
        analysed: list[Analysed] = []
        truncated = 0
        for block in reading.blocks:
            lengths, built = _build(reading.table, block)
            truncated += built.truncated
            analysed += _analysed(reading.table, lengths, built)
        if truncated:
            self.truncated += truncated
            logger.warning(
                "%d chunks have more text than full-text search can hold: only the head of each "
                "is indexed",
                truncated,
            )
        return analysed


def _read(
    table: Table, documents: Sequence[str], metadatas: Sequence[Mapping[str, Any]]
) -> _Block:
    fields = [
        spaced(field)
        for document, metadata in zip(documents, metadatas, strict=True)
        for field in (_field(metadata, TITLES), _field(metadata, HEADINGS), document)
    ]
    around = b" " * PADDING
    buffer = np.frombuffer(b" ".join([around, *fields, around]), np.uint8)
    is_token = buffer != ord(" ")
    edges = np.flatnonzero(is_token[1:] != is_token[:-1]) + 1
    starts, ends = edges[::2], edges[1::2]
    until = np.cumsum([PADDING + 1, *map(len, fields)]) + np.arange(len(fields) + 1)
    counts = np.diff(np.searchsorted(starts, until))
    return _Block(table.number(Slices(buffer, starts, ends - starts)), counts.reshape(-1, 3))


def _field(metadata: Mapping[str, Any], keys: Sequence[str]) -> str:
    values = [metadata[key] for key in keys if metadata.get(key)]
    if not values:
        return ""
    lists = [value if isinstance(value, list | tuple) else (value,) for value in values]
    return "\n".join(text for text in chain.from_iterable(lists) if isinstance(text, str))


def _analysed(table: Table, lengths: list[int], built: tsvectors.Built) -> list[Analysed]:
    starts = built.starts.tolist()
    return [
        Analysed(tsvector, length, table, built.lexemes[start:end], built.counts[start:end])
        for tsvector, length, start, end in zip(
            built.tsvectors, lengths, starts, starts[1:], strict=False
        )
    ]


def _build(table: Table, block: _Block) -> tuple[list[int], tsvectors.Built]:
    rows = len(block.fields)
    token, row, field = _with_definitions(table, block)
    advance = table.positions.values[token]
    before = np.cumsum(advance) - advance
    first = np.searchsorted(row, np.arange(rows))
    base = np.append(before, 0)[first]
    at = before - base[row] + 1 + GAP * field
    counts = table.counts.values[token]
    label = np.array([tsvectors.LABELS[name] for name in "ABBC"])[field]
    entries = table.entries.values[ranges(table.starts.values[token], counts)]
    keys = entries + np.repeat(tsvectors.place_keys(row, at, label), counts)
    built = tsvectors.build(rows, keys, table.names)
    lengths = np.bincount(row, table.lengths.values[token], rows).astype(np.int64).tolist()
    return lengths, built


def _with_definitions(table: Table, block: _Block) -> tuple[Ints, Ints, Ints]:
    """Give token, row and field of all tokens, the names that a text defines repeated before it.

    Fields are 0 for titles, 1 for headings, 2 for definitions and 3 for the text.
    """
    rows = len(block.fields)
    field = np.repeat(np.tile([0, 1, 3], rows), block.fields.ravel())
    row = np.repeat(np.arange(rows), block.fields.sum(axis=1))
    token = block.tokens
    after = (token[:-1] < len(DEFINING)) & (field[1:] == 3) & (field[:-1] == 3)
    defined = np.flatnonzero(after & (row[1:] == row[:-1])) + 1
    if not defined.size:
        return token, row, field
    token = np.concatenate((token, token[defined]))
    row = np.concatenate((row, row[defined]))
    field = np.concatenate((field, np.full(defined.size, 2)))
    order = np.argsort(row * 4 + field, kind="stable")
    return token[order], row[order], field[order]


@dataclass(frozen=True, slots=True)
class Counted:
    """Of lexemes: the chunks that have them, and how often these do."""

    lexemes: Slices
    chunks: Ints
    occurrences: Ints


class Counts:
    """Document frequencies and occurrences; and the chunks and their total length."""

    def __init__(self) -> None:
        self.chunks = self.length = 0
        self._table: Table | None = None
        # By the number of the lexeme in the table; and what was counted by former tables.
        self._found = self._times = np.zeros(0, np.int64)
        self._former: list[Counted] = []

    def add(self, batch: Sequence[Analysed]) -> None:
        """Count chunks in."""
        self.chunks += len(batch)
        self.length += sum(chunk.length for chunk in batch)
        for table in {chunk.table for chunk in batch}:
            self._use(table)
            part = [chunk for chunk in batch if chunk.table is table]
            lexemes = np.concatenate([chunk.lexemes for chunk in part])
            counts = np.concatenate([chunk.counts for chunk in part])
            self._found = _sum(self._found, np.bincount(lexemes))
            self._times = _sum(self._times, np.bincount(lexemes, counts).astype(np.int64))

    def _use(self, table: Table) -> None:
        if table is not self._table:
            self._former = self.by_table()
            self._table = table
            self._found = self._times = np.zeros(0, np.int64)

    def by_table(self) -> list[Counted]:
        """Give the counts; a lexeme of two tables is in both."""
        if self._table is None:
            return self._former
        found = np.flatnonzero(self._found)
        found = found[self._table.names[found].in_order()]
        counted = Counted(self._table.names[found], self._found[found], self._times[found])
        return [*self._former, counted]


def _sum(one: Ints, other: Ints) -> Ints:
    """Add arrays of different length."""
    longer, shorter = (one, other) if one.size > other.size else (other, one)
    total: Ints = longer.copy()
    total[: shorter.size] += shorter
    return total
