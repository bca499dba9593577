"""Tsvectors that the client builds, against a plain model and the server itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import AsyncConnection

from agent_brain_postgres import tsvectors
from agent_brain_postgres.lexeme_table import Table, ask, lexemes_of
from agent_brain_postgres.lexemes import (
    GAP,
    HEADINGS,
    TITLES,
    Analysed,
    Counts,
    Vocabulary,
)
from agent_brain_postgres.pool import Connection
from agent_brain_postgres.slices import Slices, Texts
from agent_brain_postgres.tsvectors import MAX_BYTES, MAX_POSITION, MAX_POSITIONS
from agent_brain_postgres.words import DEFINING, analyse, tokens

ENGLISH = "pg_catalog.english"

# Of each lexeme, its positions with their labels.
Model = dict[str, dict[int, str]]


@pytest.fixture
async def connection(dsn: str) -> AsyncIterator[Connection]:
    async with await AsyncConnection.connect(dsn, autocommit=True) as connection:
        yield connection


async def model(
    connection: Connection, document: str, metadata: Mapping[str, Any]
) -> tuple[Model, int]:
    """Do with dictionaries what the package does with arrays."""
    texts = ["\n".join(str(metadata.get(key, "")) for key in keys) for keys in (TITLES, HEADINGS)]
    body = tokens(document)
    defined = [after for before, after in pairwise(body) if before in DEFINING]
    fields = zip("ABBC", (tokens(texts[0]), tokens(texts[1]), defined, body), strict=True)
    found: Model = {}
    at, length = 1, 0
    for label, field in fields:
        for token in field:
            words, positions = analyse(token)
            known = await lexemes_of(connection, ENGLISH, {w for w, _, lit, _ in words if not lit})
            for word, offset, literal, compound in words:
                lexemes = [word] if literal else known[word]
                length += bool(lexemes) and not compound
                for lexeme in lexemes:
                    found.setdefault(lexeme, {}).setdefault(
                        min(at + offset, MAX_POSITION), label
                    )
            at += positions
        at += GAP
    return {lexeme: dict(sorted(places.items())) for lexeme, places in found.items()}, length


async def searchable(
    vocabulary: Vocabulary,
    connection: Connection,
    documents: Sequence[str],
    metadatas: Sequence[Mapping[str, Any]],
) -> list[Analysed]:
    """Take a batch through the three steps."""
    reading = await asyncio.to_thread(vocabulary.read, documents, metadatas)
    await vocabulary.learn(connection, reading)
    return await asyncio.to_thread(vocabulary.build, reading)


def statistics(batch: Sequence[Analysed]) -> dict[str, tuple[int, int]]:
    """Count a batch: lexeme -> (chunks, occurrences), with the chunks and words under ''."""
    counts = Counts()
    counts.add(batch)
    totals = {"": (counts.chunks, counts.length)}
    for part in counts.by_table():
        columns = (part.lexemes.texts(), part.chunks.tolist(), part.occurrences.tolist())
        for name, chunks, occurrences in zip(*columns, strict=True):
            so_far = totals.get(name, (0, 0))
            totals[name] = (so_far[0] + chunks, so_far[1] + occurrences)
    return totals


async def read_back(connection: Connection, chunks: Sequence[Analysed]) -> list[Model]:
    """Send tsvectors to the server by COPY and read what it made of them."""
    await connection.execute("DROP TABLE IF EXISTS sent")
    await connection.execute("CREATE TEMPORARY TABLE sent (number serial, vector tsvector)")
    async with (
        connection.cursor() as cursor,
        cursor.copy("COPY sent (vector) FROM STDIN (FORMAT binary)") as copy,
    ):
        await copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8))
        for chunk in chunks:
            length = len(chunk.tsvector).to_bytes(4, "big")
            await copy.write(b"\0\1" + length + chunk.tsvector)
        await copy.write(b"\xff\xff")
    cursor = await connection.execute("""
        SELECT coalesce((SELECT jsonb_object_agg(lexeme, (
                SELECT jsonb_object_agg(place, weights[i])
                FROM unnest(positions) WITH ORDINALITY AS placed (place, i)
            )) FROM unnest(vector)), '{}')
        FROM sent ORDER BY number""")
    return [
        {lexeme: {int(p): w for p, w in places.items()} for lexeme, places in row[0].items()}
        for row in await cursor.fetchall()
    ]


CODE = st.lists(
    st.sampled_from(
        ["def", "class", "getUserName", "os.path.join", "the", "parsing", "is", "x", "日本語",
         "src/main.py", "HTTP2", "(", "\n", "don't", "Ünïcode", "v1.2", "a-b"]
    ) | st.text(max_size=6),
    max_size=40,
).map(" ".join)  # fmt: skip


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(batch=st.lists(st.tuples(CODE, CODE, CODE), min_size=1, max_size=5))
def test_the_server_reads_what_the_model_says(
    batch: list[tuple[str, str, str]], dsn: str
) -> None:
    async def check() -> None:
        async with await AsyncConnection.connect(dsn, autocommit=True) as connection:
            documents = [document for document, _, _ in batch]
            metadatas = [{"symbol_name": a, "section_title": b} for _, a, b in batch]
            analysed = await searchable(Vocabulary(ENGLISH), connection, documents, metadatas)
            expected = [
                await model(connection, document, metadata)
                for document, metadata in zip(documents, metadatas, strict=True)
            ]
            assert await read_back(connection, analysed) == [m for m, _ in expected]
            assert [chunk.length for chunk in analysed] == [length for _, length in expected]
            counted: dict[str, tuple[int, int]] = {"": (len(batch), sum(n for _, n in expected))}
            for found, _ in expected:
                for lexeme, places in found.items():
                    chunks, occurrences = counted.get(lexeme, (0, 0))
                    counted[lexeme] = chunks + 1, occurrences + len(places)
            assert statistics(analysed) == counted

    asyncio.run(check())


async def test_titles_are_a_headings_and_definitions_b_text_c(connection: Connection) -> None:
    metadata = {"symbol_name": "alpha", "file_name": "beta.py", "heading_path": ["gamma", "delta"]}
    document = "def epsilon(zeta): pass"
    [chunk] = await searchable(Vocabulary(ENGLISH), connection, [document], [metadata])
    [found] = await read_back(connection, [chunk])
    labels = {lexeme: "".join(places.values()) for lexeme, places in found.items()}
    assert {k: labels[k] for k in ("alpha", "beta", "gamma", "delta", "epsilon", "zeta")} == {
        "alpha": "A", "beta": "A", "gamma": "B", "delta": "B", "epsilon": "BC", "zeta": "C",
    }  # fmt: skip


async def test_no_phrase_reaches_from_one_field_into_the_next(connection: Connection) -> None:
    metadata = {"title": "north", "section_title": "south"}
    [chunk] = await searchable(Vocabulary(ENGLISH), connection, ["west"], [metadata])
    [found] = await read_back(connection, [chunk])
    places = [next(iter(found[word])) for word in ("north", "south", "west")]
    assert places[1] - places[0] > 2
    assert places[2] - places[1] > 2


async def test_a_text_beyond_the_limits_is_indexed_by_its_head(
    connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    huge = " ".join(f"w{i:x}q{'z' * 40}" for i in range(60_000))
    vocabulary = Vocabulary(ENGLISH)
    with caplog.at_level(logging.WARNING):
        chunks = await searchable(vocabulary, connection, [huge, "small"], [{}, {}])
    found, small = await read_back(connection, chunks)
    assert "w0q" + "z" * 40 in found
    assert f"w{59_999:x}q" + "z" * 40 not in found
    assert list(small) == ["small"]
    assert len(chunks[0].tsvector) <= MAX_BYTES + 4
    assert vocabulary.truncated == 1
    assert [r.message for r in caplog.records if r.levelno == logging.WARNING] == [
        "1 chunks have more text than full-text search can hold: only the head of each is indexed"
    ]


async def test_a_word_said_very_often_keeps_the_places_that_fit(connection: Connection) -> None:
    [chunk] = await searchable(Vocabulary(ENGLISH), connection, ["word " * 20_000 + "last"], [{}])
    [found] = await read_back(connection, [chunk])
    assert len(found["word"]) == MAX_POSITIONS
    assert list(found["last"]) == [MAX_POSITION]
    assert chunk.length == 20_001


async def test_each_word_is_asked_for_once(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    async def count(conn: Connection, language: str, words: str) -> str:
        asked.append(sorted({*words.split()} - DEFINING))
        return await ask(conn, language, words)

    monkeypatch.setattr("agent_brain_postgres.lexemes.ask", count)
    vocabulary = Vocabulary(ENGLISH)
    await searchable(vocabulary, connection, ["parsing files"], [{}])
    await searchable(vocabulary, connection, ["parsing Files again"], [{}])
    await searchable(vocabulary, connection, ["again parsing"], [{}])
    assert asked == [["files", "parsing"], ["again"]]


async def test_long_texts_fill_a_vocabulary_too(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_brain_postgres.lexemes.MAX_TEXT", 500)
    vocabulary = Vocabulary(ENGLISH)
    tables = []
    for text in ("a few words", "x" * 500, "a few words"):
        [chunk] = await searchable(vocabulary, connection, [text], [{}])
        tables.append(chunk.table)
    assert tables[0] is tables[1]
    assert tables[1] is not tables[2]


async def test_tokens_wait_until_all_that_they_consist_of_is_there(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter, waiting = Table._enter, []

    def watched(table: Table, *columns: Any) -> None:
        waiting.append(table.unfinished)
        enter(table, *columns)

    monkeypatch.setattr(Table, "_enter", watched)
    vocabulary = Vocabulary(ENGLISH)
    [chunk] = await searchable(vocabulary, connection, ["some words"], [{}])
    assert waiting == [True]
    assert not chunk.table.unfinished


def test_a_token_that_takes_very_many_places_keeps_its_lexeme() -> None:
    keys = tsvectors.lexeme_keys(np.array([1, 2]), np.array([0, 1 << 30]))
    keys += tsvectors.place_keys(np.array([0, 0]), np.array([7, 1 << 40]), np.array([1, 1]))
    names = Texts()
    names.extend(Slices.of(["zero", "one", "two"]))
    built = tsvectors.build(1, keys, names)
    assert built.lexemes.tolist() == [1, 2]


async def test_a_full_vocabulary_starts_afresh_and_still_answers(connection: Connection) -> None:
    vocabulary = Vocabulary(ENGLISH, max_tokens=3)
    for number in range(4):
        texts = [f"running word{number} another{number}"]
        [chunk] = await searchable(vocabulary, connection, texts, [{}])
        [found] = await read_back(connection, [chunk])
        assert "run" in found
        assert f"word{number}" in found


async def test_batches_at_the_same_time_share_a_vocabulary(dsn: str) -> None:
    vocabulary = Vocabulary(ENGLISH)
    texts = [[f"shared running text{i} own{i}x{j}" for j in range(30)] for i in range(8)]

    async def one(batch: list[str]) -> list[Model]:
        async with await AsyncConnection.connect(dsn, autocommit=True) as connection:
            analysed = await searchable(vocabulary, connection, batch, [{}] * len(batch))
            return await read_back(connection, analysed)

    for batch, found in zip(texts, await asyncio.gather(*map(one, texts)), strict=True):
        for text, lexemes in zip(batch, found, strict=True):
            assert {"share", "run", text.split()[2], text.split()[3]} <= lexemes.keys()


@pytest.mark.parametrize(("language", "lexeme"), [("german", "haus"), ("simple", "häuser")])
async def test_the_language_makes_the_lexemes(
    connection: Connection, language: str, lexeme: str
) -> None:
    [chunk] = await searchable(Vocabulary(f"pg_catalog.{language}"), connection, ["Häuser"], [{}])
    assert list(statistics([chunk])) == ["", lexeme]
