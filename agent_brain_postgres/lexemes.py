"""Lexemes: words as the server's text search configuration sees them, kept in the client.

Each distinct word is turned into its lexemes by the server once (stemmer, stop words, whatever
`language` is) and remembered; the tsvector of a chunk is then built here, so that `to_tsvector`,
the bottleneck of full-text ingest, is out of the way.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
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

MAX_TOKENS = 300_000
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
    """Strings numbered in the order of their first appearance."""

    def __missing__(self, text: str) -> int:
        number = self[text] = len(self)
        return number


class _Table:
    """Tokens and lexemes, numbered; of each token, which lexemes it has and where.

    Numbers are given out under `lock` and never change; a token whose words the server has not
    been asked for yet is in `unknown`.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.tokens = _Numbers()
        self.lexemes = _Numbers()
        self.names: list[bytes] = []
        self.defined = 0
        self.unknown: dict[int, Token] = {}
        self.words: dict[str, tuple[int, ...]] = {}
        self.entries: list[tuple[tuple[int, int], ...]] = []  # of each token: (lexeme, offset)
        self.sizes: list[tuple[int, int, bool]] = []  # (positions, length, whether it defines)

    def number(self, found: list[str]) -> Ints:
        """Give the numbers of tokens; new ones get one."""
        with self.lock:
            numbers = np.fromiter(map(self.tokens.__getitem__, found), np.int64, len(found))
            new = list(self.tokens)[self.defined :] if len(self.tokens) > self.defined else []
            for number, token in enumerate(new, self.defined):
                self.unknown[number] = analyse(token)
                self.entries.append(())
                self.sizes.append((0, 0, token in DEFINING))
            self.defined = len(self.tokens)
        return numbers

    def unknown_words(self) -> list[str]:
        """Give the words that the server has to be asked for."""
        with self.lock:
            words = {
                word.text
                for token in self.unknown.values()
                for word in token.words
                if not word.literal
            }
            return list(words - self.words.keys())

    def learn(self, lexemes: Mapping[str, Sequence[str]]) -> None:
        """Take in what the server answered, and finish the tokens that waited for it."""
        with self.lock:
            for word, found in lexemes.items():
                self.words[word] = tuple(self._lexeme(lexeme) for lexeme in found)
            for number, token in list(self.unknown.items()):
                if all(word.literal or word.text in self.words for word in token.words):
                    self._define(number, self.unknown.pop(number))

    def _define(self, number: int, token: Token) -> None:
        entries: list[tuple[int, int]] = []
        length = 0
        for word in token.words:
            found = (self._lexeme(word.text),) if word.literal else self.words[word.text]
            length += bool(found) and not word.compound
            entries += [(lexeme, word.offset) for lexeme in found if lexeme >= 0]
        self.entries[number] = tuple(entries)
        self.sizes[number] = (token.positions, length, self.sizes[number][2])

    def _lexeme(self, lexeme: str) -> int:
        name = lexeme.encode("utf-8", "replace").replace(b"\0", b"")
        if not 0 < len(name) <= MAX_LEXEME:
            return -1
        number = self.lexemes[lexeme]
        if number == len(self.names):
            self.names.append(name)
        return number


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
        if len(self._table.tokens) > self._max_tokens:
            self._table = _Table()
        table = self._table
        blocks = await asyncio.to_thread(_read, table, documents, metadatas)
        if words := table.unknown_words():
            answer = await lexemes_of(connection, self.language, words)
            await asyncio.to_thread(table.learn, answer)
        elif table.unknown:
            await asyncio.to_thread(table.learn, {})
        analysed, truncated = await asyncio.to_thread(_build, table, blocks)
        if truncated:
            self.truncated += truncated
            logger.warning(
                "%d chunks have more text than full-text search can hold: only the head of each "
                "is indexed", truncated,
            )
        return analysed


@dataclass(frozen=True, slots=True)
class _Block:
    """The tokens of some chunks, one after the other, and how many each field of each chunk has."""

    tokens: Ints
    fields: Ints  # chunks x (titles, headings, text)


def _read(
    table: _Table, documents: Sequence[str], metadatas: Sequence[Mapping[str, Any]]
) -> list[_Block]:
    blocks = []
    for start in range(0, len(documents), BLOCK):
        part = slice(start, start + BLOCK)
        fields = [
            (tokens(_field(metadata, TITLES)), tokens(_field(metadata, HEADINGS)), tokens(document))
            for document, metadata in zip(documents[part], metadatas[part], strict=True)
        ]
        counts = np.array([[len(field) for field in chunk] for chunk in fields], np.int64)
        found = list(chain.from_iterable(chain.from_iterable(fields)))
        blocks.append(_Block(table.number(found), counts.reshape(-1, 3)))
    return blocks


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
            entries = list(table.entries)
            sizes = np.array(table.sizes or [(0, 0, 0)], np.int64)
            self.names = list(table.names)
        self.positions, self.lengths, self.defines = sizes.T.copy()
        self.counts = np.fromiter(map(len, entries), np.int64, len(entries))
        self.starts = np.cumsum(self.counts) - self.counts
        flat = np.array(list(chain.from_iterable(entries)), np.int64).reshape(-1, 2)
        self.lexemes, self.offsets = flat.T.copy()


def _build(table: _Table, blocks: list[_Block]) -> tuple[list[Analysed], int]:
    arrays = _Arrays(table)
    analysed: list[Analysed] = []
    truncated = 0
    for block in blocks:
        lengths, built = _build_block(arrays, block)
        truncated += built.truncated
        starts = built.starts.tolist()
        for i, (tsvector, length) in enumerate(zip(built.tsvectors, lengths, strict=True)):
            part = slice(starts[i], starts[i + 1])
            analysed.append(
                Analysed(tsvector, length, table, built.lexemes[part], built.counts[part])
            )
    return analysed, truncated


def _build_block(arrays: _Arrays, block: _Block) -> tuple[list[int], tsvectors.Built]:
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


def statistics(batch: Sequence[Analysed]) -> dict[str, tuple[int, int]]:
    """Chunks and occurrences of each lexeme; under '' the chunks and their total length."""
    if not batch:
        return {}
    totals = {"": (len(batch), sum(chunk.length for chunk in batch))}
    tables = {id(chunk.table): chunk.table for chunk in batch}
    for key, table in tables.items():
        part = [chunk for chunk in batch if id(chunk.table) == key]
        lexemes = np.concatenate([chunk.lexemes for chunk in part])
        chunks = np.bincount(lexemes)
        occurrences = np.bincount(lexemes, np.concatenate([chunk.counts for chunk in part]))
        names = list(table.lexemes)
        for i in np.flatnonzero(chunks).tolist():
            so_far = totals.get(names[i], (0, 0))
            totals[names[i]] = (so_far[0] + int(chunks[i]), so_far[1] + int(occurrences[i]))
    return totals
