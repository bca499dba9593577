"""Corpus statistics: exact after every kind of change."""

from __future__ import annotations

import random
from collections import Counter

import psycopg

from agent_brain_postgres import PostgresBackend
from tests.searching import FILLER, found, store

STATISTICS = "SELECT lexeme, sum(chunks)::int, sum(occurrences)::int FROM {} GROUP BY lexeme"
COUNTED = """
    SELECT lexeme, count(*)::int, sum(cardinality(positions))::int
    FROM agent_brain.chunks, LATERAL unnest(lexemes) GROUP BY lexeme
    UNION ALL SELECT '', count(*)::int, sum(length)::int FROM agent_brain.chunks
"""


async def test_statistics_stay_exact_through_changes(backend: PostgresBackend, dsn: str) -> None:
    chance = random.Random(3)
    vocabulary = ["alpha", "beta", "getUserName", "def", "os.path.join", "日本語", "12", "the", "running"]
    alive: set[str] = set()
    for _ in range(12):
        names = [f"d{chance.randint(0, 30)}" for _ in range(8)]
        if chance.random() < 0.3 and alive:
            gone = chance.sample(sorted(alive), min(5, len(alive)))
            assert await backend.delete_by_ids(gone) == len(gone)
            alive -= set(gone)
        documents = {n: " ".join(chance.choices(vocabulary, k=9)) for n in names}
        await store(backend, documents, {n: {"title": chance.choice(vocabulary)} for n in names})
        alive |= set(documents)
        with psycopg.connect(dsn) as connection:
            kept = connection.execute(
                STATISTICS.format("agent_brain.lexeme_statistics")
            ).fetchall()
            counted = connection.execute(COUNTED).fetchall()
        assert Counter(row for row in kept if row[1]) == Counter(counted)


async def test_statistics_are_empty_after_reset(backend: PostgresBackend, dsn: str) -> None:
    await store(backend, FILLER)
    await backend.reset()
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("SELECT * FROM agent_brain.lexeme_statistics").fetchall()
    assert rows == []
    assert await found(backend, "nothing") == []
