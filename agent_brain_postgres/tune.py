"""Measuring the index of a user's own store against exact search, to choose `hnsw_ef_search`."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from psycopg import sql

from agent_brain_postgres import ladder, schema, vectors
from agent_brain_postgres.errors import PostgresStorageError
from agent_brain_postgres.estimates import Estimates
from agent_brain_postgres.filters import compile_where
from agent_brain_postgres.indexing import EF_SEARCH_KEY
from agent_brain_postgres.pool import Connection, Pool
from agent_brain_postgres.store import Store

if TYPE_CHECKING:
    from typing_extensions import LiteralString

EF_SEARCH = (10, 20, 40, 60, 80, 120, 160, 240, 400, 800)
REPEATS = 2  # of each query; the faster one counts
# A question is near what answers it, but is none of the stored texts.
NOISE = 0.3
SAMPLED_ROWS = 20_000  # at least: in whole pages, of which a few per cent of few may be none
EXACT_SECONDS = 60.0  # that finding the true answers may take

SAMPLE: LiteralString = """
SELECT embedding::{vector} FROM {chunks} TABLESAMPLE SYSTEM (%(percent)s)
ORDER BY pg_catalog.random() LIMIT %(count)s
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """One setting: recall of the `k` nearest (0-1), and latency in milliseconds."""

    ef_search: int
    recall: float
    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class Truth:
    """Sampled queries and their true nearest rows, and how long exact search took."""

    queries: list[vectors.FloatVector]
    answers: list[set[str]]
    p50: float


async def sample(pool: Pool, store: Store, rows: int, count: int, k: int) -> Truth:
    """Sample queries from the store and find their true answers, as many as time allows."""
    async with pool.connection() as connection:
        queries = await _queries(connection, store, rows, count)
        answers, times = [], []
        began = time.perf_counter()
        for query in queries:
            answer, took = await _timed(connection, store, query, k, "exact")
            answers.append(answer)
            times.append(took)
            if time.perf_counter() - began > EXACT_SECONDS:
                break
    return Truth(queries[: len(answers)], answers, float(np.percentile(times, 50)))


async def _queries(
    connection: Connection, store: Store, rows: int, count: int
) -> list[vectors.FloatVector]:
    statement = sql.SQL(SAMPLE).format(vector=store.vector_type("vector"), chunks=store.chunks)
    percent = min(100.0, 100.0 * max(20 * count, SAMPLED_ROWS) / max(rows, 1))
    cursor = await connection.execute(
        statement, {"percent": percent, "count": count}, binary=True
    )
    random = np.random.default_rng(0)
    found = []
    for (vector,) in await cursor.fetchall():
        values = vector.to_numpy() if hasattr(vector, "to_numpy") else np.asarray(vector)
        noise = random.standard_normal(values.size)
        noise *= NOISE * np.linalg.norm(values) / np.linalg.norm(noise)
        found.append(np.asarray(values + noise, np.float32))
    if not found:
        raise PostgresStorageError("the store has no chunks to measure with")
    return found


async def measure(
    pool: Pool, store: Store, rows: int, truth: Truth, k: int
) -> AsyncIterator[Measured]:
    """Measure one `ef_search` after the other."""
    async with pool.connection() as connection:
        for ef in (ef for ef in EF_SEARCH if ef >= k):
            yield await _measure_one(connection, store, rows, truth, k, ef)


async def _measure_one(
    connection: Connection, store: Store, rows: int, truth: Truth, k: int, ef: int
) -> Measured:
    tried = replace(store, estimates=Estimates(rows=rows, ef_search=ef))
    times, hits = [], []
    for query, answer in zip(truth.queries, truth.answers, strict=True):
        runs = [await _timed(connection, tried, query, k, "index") for _ in range(REPEATS)]
        times.append(min(took for _, took in runs))
        hits.append(len(answer & runs[0][0]) / max(len(answer), 1))
    p50, p95 = np.percentile(times, [50, 95])
    return Measured(ef, float(np.mean(hits)), float(p50), float(p95))


async def _timed(
    connection: Connection, store: Store, query: vectors.FloatVector, k: int, way: vectors.Way
) -> tuple[set[str], float]:
    everything = compile_where(None)
    plan = vectors.Plan(way, k, None, ("chunk_id",))
    params = vectors.parameters(store, plan, query, everything)
    statement = vectors.nearest(store, plan)
    began = time.perf_counter()
    rows = await (await connection.execute(statement, params)).fetchall()
    return {row[0] for row in rows}, 1000 * (time.perf_counter() - began)


def recommend(measured: list[Measured], wanted: float) -> Measured:
    """Choose the fastest setting that reaches the recall wanted, else the most accurate."""
    enough = [one for one in measured if one.recall >= wanted]
    if enough:
        return min(enough, key=lambda one: one.ef_search)
    return max(measured, key=lambda one: (one.recall, -one.ef_search))


async def apply(connection: Connection, store: Store, ef_search: int | None) -> None:
    """Store the value for every process that uses the store; None makes it automatic again.

    Running processes take it up within a minute. `hnsw_ef_search` in the settings wins.
    """
    value = None if ef_search is None else str(ef_search)
    await schema.write_meta(connection, store, EF_SEARCH_KEY, value)


def automatic(rows: int, k: int) -> int:
    """Give the value that is used when nothing is set."""
    return ladder.ef_search(k, rows)
