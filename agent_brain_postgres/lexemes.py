"""Lexemes: words as the server's text search configuration sees them, kept in the client.

Each distinct word is turned into its lexemes by the server once (stemmer, stop words, whatever
`language` is) and remembered; the tsvector of a chunk is then built here, so that `to_tsvector`,
the bottleneck of full-text ingest, is out of the way.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agent_brain_postgres import tsvectors
from agent_brain_postgres.pool import Connection
from agent_brain_postgres.words import DEFINING, Token, analyse, tokens

if TYPE_CHECKING:
    from typing_extensions import LiteralString

logger = logging.getLogger(__name__)

Ints = NDArray[np.int64]

MAX_TOKENS = 150_000
"""Distinct tokens that are remembered before a vocabulary starts afresh."""

MAX_LEXEME = 2_046
"""Bytes, of PostgreSQL."""

BLOCK = 500
"""Chunks whose tsvectors are built at a time: arrays that fit the processor's cache."""

# The metadata whose words count most, and more.
TITLES = ("symbol_name", "file_name", "title")
HEADINGS = ("heading_path", "section_title", "section_summary", "docstring")

GAP = 3
"""Positions between two fields, so that no phrase reaches from one into the next."""

# Words to lexemes; a word that the server's parser cannot see at all is its own lexeme.
LEXEMES: LiteralString = """
SELECT word, CASE
    WHEN vector <> '' OR pg_catalog.to_tsvector('pg_catalog.simple', word) <> ''
    THEN pg_catalog.tsvector_to_array(vector) ELSE ARRAY[word] END
FROM (
    SELECT word, pg_catalog.to_tsvector(%s::pg_catalog.regconfig, word) AS vector
    FROM pg_catalog.unnest(%s::text[]) AS word
    OFFSET 0
) AS words
"""


async def lexemes_of(
    connection: Connection, language: str, words: Iterable[str]
) -> dict[str, list[str]]:
    """Ask the server for the lexemes of words."""
    wanted = list(words)
    if not wanted:
        return {}
    return dict(await (await connection.execute(LEXEMES, (language, wanted))).fetchall())


@dataclass(frozen=True, slots=True)
class Analysed:
    """The searchable form of one chunk."""

    tsvector: bytes
    """In the binary format of the type, for COPY."""
    length: int
    """Words, stop words not counted, those of titles and headings twice where they are repeated."""
    table: _Table
    lexemes: NDArray[np.int32]
    counts: NDArray[np.uint8]


class _Numbers(dict[str, int]):
    """Strings numbered in the order of their first appearance; `new` collects them."""

    def __init__(self) -> None:
        super().__init__()
        self.new: list[str] = []

    def __missing__(self, text: str) -> int:
        self.new.append(text)
        number = self[text] = len(self)
        return number


class _Table:
    """Tokens and lexemes, numbered; of each token, which lexemes it has and where.

    Numbers are given out under `lock` and never change; a token whose words the server has not
    been asked for yet is in `unknown`. Flat arrays, not objects, hold what there are many of: the
    garbage collector would visit those again and again.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.tokens = _Numbers()
        self.lexemes = _Numbers()
        self.names: list[bytes] = []
        self.words: dict[str, tuple[int, ...]] = {}
        self.unknown: list[tuple[int, Token]] = []
        # Of each token: its first entry and their number, the positions that it takes, how much
        # it adds to the length of a text, and whether the next token is a name it defines.
        self.tokens_data = [array("q") for _ in range(5)]
        # Of each entry: the lexeme and its offset within the token.
        self.entries_data = (array("q"), array("q"))

    def number(self, found: list[str]) -> Ints:
        """Give the numbers of tokens; new ones get one."""
        with self.lock:
            numbers = np.fromiter(map(self.tokens.__getitem__, found), np.int64, len(found))
            new = self.tokens.new
            self.unknown += enumerate(map(analyse, new), len(self.tokens_data[0]))
            for data in self.tokens_data[:4]:
                data.extend([0] * len(new))
            self.tokens_data[4].extend([token in DEFINING for token in new])
            new.clear()
        return numbers

    def unknown_words(self) -> list[str]:
        """Give the words that the server has to be asked for."""
        with self.lock:
            wanted = {
                text
                for _, (words, _) in self.unknown
                for text, _, literal, _ in words
                if not literal
            }
            return list(wanted - self.words.keys())

    def learn(self, lexemes: Mapping[str, Sequence[str]]) -> None:
        """Take in what the server answered, and finish the tokens that waited for it."""
        with self.lock:
            for word, found in lexemes.items():
                self.words[word] = tuple(map(self._lexeme, found))
            waiting = []
            for number, token in self.unknown:
                try:
                    self._define(number, token)
                except KeyError:  # another batch has just brought it, and asks the server itself
                    waiting.append((number, token))
            self.unknown = waiting

    def _define(self, number: int, token: Token) -> None:
        lexemes, offsets = self.entries_data
        start, length = len(lexemes), 0
        words, positions = token
        resolved = [
            (self._lexeme(text),) if literal else self.words[text] for text, _, literal, _ in words
        ]
        for found, (_, offset, _, compound) in zip(resolved, words, strict=True):
            length += bool(found) and not compound
            for lexeme in found:
                if lexeme >= 0:
                    lexemes.append(lexeme)
                    offsets.append(offset)
        values = start, len(lexemes) - start, positions, length
        for data, value in zip(self.tokens_data, values):
            data[number] = value

    def lexeme_list(self) -> list[str]:
        """Give the lexemes in the order of their numbers."""
        with self.lock:
            return list(self.lexemes)

    def _lexeme(self, lexeme: str) -> int:
        number = self.lexemes.get(lexeme)
        if number is None:
            name = lexeme.encode("utf-8", "replace").replace(b"\0", b"")
            if not 0 < len(name) <= MAX_LEXEME:
                return -1
            number = self.lexemes[lexeme]
            self.names.append(name)
        return number


@dataclass(frozen=True, slots=True)
class _Block:
    """The tokens of some chunks, one after the other, and how many each field of each chunk has."""

    tokens: Ints
    fields: Ints  # chunks x (titles, headings, text)


@dataclass(frozen=True, slots=True)
class Reading:
    """A batch cut into tokens."""

    table: _Table
    blocks: list[_Block]


class Vocabulary:
    """What the server made of each word so far, for one language; shared by concurrent writers."""

    def __init__(self, language: str, max_tokens: int = MAX_TOKENS) -> None:
        self.language = language
        self.truncated = 0
        """Chunks of which only the head is indexed, since the start."""
        self._max_tokens = max_tokens
        self._table = _Table()

    async def analyse(
        self,
        connection: Connection,
        documents: Sequence[str],
        metadatas: Sequence[Mapping[str, Any]],
    ) -> list[Analysed]:
        """Analyse a batch; one statement on `connection` when it has words not met before."""
        reading = await asyncio.to_thread(self.read, documents, metadatas)
        await self.learn(connection, reading)
        return await asyncio.to_thread(self.build, reading)

    def read(
        self, documents: Sequence[str], metadatas: Sequence[Mapping[str, Any]]
    ) -> Reading:
        """Cut a batch into tokens: the first of three steps, all CPU."""
        if len(self._table.tokens) > self._max_tokens:
            self._table = _Table()
        table = self._table
        blocks = []
        for start in range(0, len(documents), BLOCK):
            part = slice(start, start + BLOCK)
            blocks.append(_read(table, documents[part], metadatas[part]))
        return Reading(table, blocks)

    async def learn(self, connection: Connection, reading: Reading) -> None:
        """Ask the server about words not met before: the second step."""
        unknown = reading.table.unknown_words()
        if unknown or reading.table.unknown:
            answer = await lexemes_of(connection, self.language, unknown)
            await asyncio.to_thread(reading.table.learn, answer)

    def build(self, reading: Reading) -> list[Analysed]:
        """Put the tsvectors together: the last step, all CPU."""
        arrays = _Arrays(reading.table)
        analysed: list[Analysed] = []
        truncated = 0
        for block in reading.blocks:
            lengths, built = _build(arrays, block)
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
    table: _Table, documents: Sequence[str], metadatas: Sequence[Mapping[str, Any]]
) -> _Block:
    fields = [
        (tokens(_field(metadata, TITLES)), tokens(_field(metadata, HEADINGS)), tokens(document))
        for document, metadata in zip(documents, metadatas, strict=True)
    ]
    counts = np.array([[len(field) for field in chunk] for chunk in fields], np.int64)
    found = list(chain.from_iterable(chain.from_iterable(fields)))
    return _Block(table.number(found), counts.reshape(-1, 3))


def _field(metadata: Mapping[str, Any], keys: Sequence[str]) -> str:
    values = [metadata[key] for key in keys if metadata.get(key)]
    if not values:
        return ""
    lists = [value if isinstance(value, list | tuple) else (value,) for value in values]
    return "\n".join(text for text in chain.from_iterable(lists) if isinstance(text, str))


class _Arrays:
    """A table's tokens as arrays, for one batch."""

    def __init__(self, table: _Table) -> None:
        with table.lock:
            copies = [np.array(data, np.int64) for data in (*table.tokens_data, *table.entries_data)]
            self.names = list(table.names)
        self.starts, self.counts, self.positions, self.lengths, self.defines = copies[:5]
        self.lexemes, self.offsets = copies[5:]


def _analysed(table: _Table, lengths: list[int], built: tsvectors.Built) -> list[Analysed]:
    starts = built.starts.tolist()
    return [
        Analysed(tsvector, length, table, built.lexemes[start:end], built.counts[start:end])
        for tsvector, length, start, end in zip(
            built.tsvectors, lengths, starts, starts[1:], strict=False
        )
    ]


def _build(arrays: _Arrays, block: _Block) -> tuple[list[int], tsvectors.Built]:
    rows = len(block.fields)
    token, row, field = _with_definitions(arrays, block)
    advance = arrays.positions[token]
    before = np.cumsum(advance) - advance
    first = np.searchsorted(row, np.arange(rows))
    base = np.append(before, 0)[first]
    at = before - base[row] + 1 + GAP * field
    counts = arrays.counts[token]
    entry = np.repeat(np.arange(token.size), counts)
    flat = np.arange(entry.size) - np.repeat(np.cumsum(counts) - counts - arrays.starts[token], counts)
    label = np.array([tsvectors.LABELS[name] for name in "ABBC"])
    built = tsvectors.build(
        rows,
        row[entry],
        arrays.lexemes[flat],
        at[entry] + arrays.offsets[flat],
        label[field[entry]],
        arrays.names,
    )
    lengths = np.bincount(row, arrays.lengths[token], rows).astype(np.int64).tolist()
    return lengths, built


def _with_definitions(arrays: _Arrays, block: _Block) -> tuple[Ints, Ints, Ints]:
    """Give token, row and field of all tokens, the names that a text defines repeated before it.

    Fields are 0 for titles, 1 for headings, 2 for definitions and 3 for the text.
    """
    rows = len(block.fields)
    field = np.repeat(np.tile([0, 1, 3], rows), block.fields.ravel())
    row = np.repeat(np.arange(rows), block.fields.sum(axis=1))
    token = block.tokens
    after = arrays.defines[token[:-1]].astype(bool) & (field[1:] == 3) & (field[:-1] == 3)
    defined = np.flatnonzero(after & (row[1:] == row[:-1])) + 1
    if not defined.size:
        return token, row, field
    token = np.concatenate((token, token[defined]))
    row = np.concatenate((row, row[defined]))
    field = np.concatenate((field, np.full(defined.size, 2)))
    order = np.argsort(row * 4 + field, kind="stable")
    return token[order], row[order], field[order]


class Counts:
    """Document frequencies and occurrences; under '' the chunks and their total length."""

    def __init__(self) -> None:
        self._chunks = self._length = 0
        self._table: _Table | None = None
        # By the number of the lexeme in the table; and what was counted by former tables.
        self._found = self._times = np.zeros(0, np.int64)
        self._former: list[tuple[str, int, int]] = []

    def add(self, batch: Sequence[Analysed]) -> None:
        """Count chunks in."""
        self._chunks += len(batch)
        self._length += sum(chunk.length for chunk in batch)
        for table in {chunk.table for chunk in batch}:
            self._use(table)
            part = [chunk for chunk in batch if chunk.table is table]
            lexemes = np.concatenate([chunk.lexemes for chunk in part])
            counts = np.concatenate([chunk.counts for chunk in part])
            self._found = _sum(self._found, np.bincount(lexemes))
            self._times = _sum(self._times, np.bincount(lexemes, counts).astype(np.int64))

    def _use(self, table: _Table) -> None:
        """Let go of a table that is no longer used: it is large."""
        if table is not self._table:
            self._former += self._counted()
            self._table = table
            self._found = self._times = np.zeros(0, np.int64)

    def _counted(self) -> Iterator[tuple[str, int, int]]:
        if self._table is None:
            return
        names = self._table.lexeme_list()
        found = np.flatnonzero(self._found)
        for i, count, times in zip(
            found.tolist(), self._found[found].tolist(), self._times[found].tolist(), strict=True
        ):
            yield names[i], count, times

    def rows(self) -> Iterator[tuple[str, int, int]]:
        """Give lexeme, chunks and occurrences; a lexeme of two tables comes twice."""
        if self._chunks:
            yield "", self._chunks, self._length
        yield from self._former
        yield from self._counted()


def _sum(one: Ints, other: Ints) -> Ints:
    """Add arrays of different length."""
    longer, shorter = (one, other) if one.size > other.size else (other, one)
    total: Ints = longer.copy()
    total[: shorter.size] += shorter
    return total


def statistics(batch: Sequence[Analysed]) -> dict[str, tuple[int, int]]:
    """Count a batch alone: lexeme -> (chunks, occurrences)."""
    counts = Counts()
    counts.add(batch)
    totals: dict[str, tuple[int, int]] = {}
    for lexeme, chunks, occurrences in counts.rows():
        so_far = totals.get(lexeme, (0, 0))
        totals[lexeme] = (so_far[0] + chunks, so_far[1] + occurrences)
    return totals
