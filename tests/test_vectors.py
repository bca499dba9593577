"""Vector search: the rows it promises, their scores, and what it leaves behind."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from typing import Any

import numpy as np
import psycopg
import pytest

from agent_brain_postgres import PostgresBackend, vectors
from agent_brain_postgres.filters import compile_where
from agent_brain_postgres.store import Metric
from tests.conftest import MakeBackend
from tests.nearest import fill, ids_of, make_metadata, make_vectors, nearest, scores

ROWS, DIMENSIONS = 3_000, 32
METRICS: tuple[Metric, ...] = ("cosine", "l2", "inner_product")


@pytest.fixture
async def indexed(make_backend: MakeBackend) -> PostgresBackend:
    """A store of `ROWS` rows, large enough for an index, which is ready."""
    return await _indexed(make_backend)


async def _indexed(make_backend: MakeBackend, metric: Metric = "cosine") -> PostgresBackend:
    rows = make_vectors(ROWS, DIMENSIONS)
    backend = await make_backend(DIMENSIONS, metric=metric)
    await fill(backend, rows, make_metadata(ROWS, rows))
    await backend.wait_until_indexed()
    return backend


def _query(seed: int = 5) -> Any:
    return make_vectors(1, DIMENSIONS, seed)[0]


@pytest.mark.parametrize("top_k", [1, 10, 41, 100, 700, 2_999])
async def test_gives_top_k_rows_whenever_there_are_as_many(
    indexed: PostgresBackend, top_k: int
) -> None:
    assert len(await indexed.vector_search(_query(), top_k, 0.0)) == top_k


async def test_gives_every_row_when_more_are_asked_for(indexed: PostgresBackend) -> None:
    found = await indexed.vector_search(_query(), ROWS + 50, 0.0)
    assert {result.chunk_id for result in found} == set(ids_of(ROWS))


@pytest.mark.parametrize("top_k", [0, -1])
async def test_gives_nothing_for_no_rows(indexed: PostgresBackend, top_k: int) -> None:
    assert await indexed.vector_search(_query(), top_k, 0.0) == []


@pytest.mark.parametrize("way", ["index", "exact", "sample"])
@pytest.mark.parametrize("key", ["half", "tenth", "hundredth", "thousandth"])
async def test_a_filter_never_costs_rows_whatever_way_is_taken(
    indexed: PostgresBackend, way: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadatas = make_metadata(ROWS, make_vectors(ROWS, DIMENSIONS))
    matching = sum(metadata[key] for metadata in metadatas)
    real = vectors.choose

    def choose(*arguments: Any) -> vectors.Plan:
        plan = real(*arguments)
        return vectors.Plan(way, plan.top_k, plan.condition, plan.columns)  # type: ignore[arg-type]

    monkeypatch.setattr(vectors, "choose", choose)
    found = await indexed.vector_search(_query(), 20, 0.0, {key: True})
    assert len(found) == min(20, matching)
    assert all(result.metadata[key] is True for result in found)


async def test_a_filter_that_matches_nothing_finds_nothing(indexed: PostgresBackend) -> None:
    assert await indexed.vector_search(_query(), 10, 0.0, {"half": "no such value"}) == []


async def test_rows_that_were_deleted_are_made_up_for(indexed: PostgresBackend) -> None:
    await indexed.delete_by_ids(ids_of(ROWS)[: ROWS - 60])
    assert len(await indexed.vector_search(_query(), 50, 0.0)) == 50


async def test_rows_stored_after_the_index_are_found(indexed: PostgresBackend) -> None:
    await indexed.upsert_documents(["late"], [_query()], ["late"], [{}])
    best = await indexed.vector_search(_query(), 1, 0.0)
    assert [result.chunk_id for result in best] == ["late"]


@pytest.mark.parametrize("metric", METRICS)
async def test_scores_are_those_of_the_contract(make_backend: MakeBackend, metric: Metric) -> None:
    backend = await _indexed(make_backend, metric)
    expected = dict(
        zip(ids_of(ROWS), scores(make_vectors(ROWS, DIMENSIONS), _query(), metric), strict=True)
    )
    found = await backend.vector_search(_query(), 30, 0.0)
    assert [result.score for result in found] == pytest.approx(
        [expected[result.chunk_id] for result in found], abs=1e-5
    )


@pytest.mark.parametrize("metric", METRICS)
async def test_scores_are_from_0_to_1_and_descend(
    make_backend: MakeBackend, metric: Metric
) -> None:
    backend = await _indexed(make_backend, metric)
    found = [result.score for result in await backend.vector_search(_query() * 37, ROWS, 0.0)]
    assert found == sorted(found, reverse=True)
    assert all(0 <= score <= 1 for score in found)


@pytest.mark.parametrize("metric", METRICS)
async def test_the_threshold_cuts_where_it_says(make_backend: MakeBackend, metric: Metric) -> None:
    backend = await _indexed(make_backend, metric)
    everything = await backend.vector_search(_query(), 40, 0.0)
    threshold = everything[15].score
    found = await backend.vector_search(_query(), 40, threshold)
    assert found == [result for result in everything if result.score >= threshold]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("rows", [50, ROWS])
async def test_a_zero_query_finds_top_k_rows_without_a_score_that_is_no_number(
    make_backend: MakeBackend, metric: Metric, rows: int
) -> None:
    backend = await make_backend(DIMENSIONS, metric=metric)
    await fill(backend, make_vectors(rows, DIMENSIONS))
    await backend.wait_until_indexed()
    found = await backend.vector_search(np.zeros(DIMENSIONS), 20, 0.0)
    assert len(found) == 20
    assert all(0 <= result.score <= 1 for result in found)


@pytest.mark.parametrize("metric", METRICS)
async def test_zero_vectors_are_found_last(make_backend: MakeBackend, metric: Metric) -> None:
    rows = make_vectors(ROWS, DIMENSIONS)
    rows[::3] = 0
    backend = await make_backend(DIMENSIONS, metric=metric)
    await fill(backend, rows)
    await backend.wait_until_indexed()
    found = await backend.vector_search(_query(), ROWS, 0.0)
    assert {result.chunk_id for result in found} == set(ids_of(ROWS))
    if metric == "cosine":
        assert {result.score for result in found[-ROWS // 3 :]} == {0.0}


async def test_a_store_without_an_index_answers_exactly(make_backend: MakeBackend) -> None:
    rows = make_vectors(500, DIMENSIONS)
    backend = await make_backend(DIMENSIONS)
    await fill(backend, rows)
    found = await backend.vector_search(_query(), 10, 0.0)
    assert {result.chunk_id for result in found} == nearest(rows, _query(), 10)


async def test_a_small_store_tells_neighbours_apart_that_half_precision_does_not(
    make_backend: MakeBackend,
) -> None:
    angles = np.pi / 4 + 2e-5 * np.arange(100)[::-1]
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    backend = await make_backend(2)
    await fill(backend, rows)
    found = await backend.vector_search([1.0, 0.0], 10, 0.0)
    assert [result.chunk_id for result in found] == ids_of(100)[:-11:-1]


async def test_settings_do_not_stay_in_the_connection(make_backend: MakeBackend) -> None:
    backend = await make_backend(DIMENSIONS, pool_size=1, pool_max=1)
    await fill(backend, make_vectors(ROWS, DIMENSIONS))
    await backend.wait_until_indexed()
    await backend.vector_search(_query(), 300, 0.0)
    assert backend._pool is not None
    async with backend._pool.connection() as connection:
        rows = await (await connection.execute(
            "SELECT name, setting, source FROM pg_catalog.pg_settings WHERE name LIKE 'hnsw.%'"
        )).fetchall()
    assert {source for _, _, source in rows} == {"default"}


@pytest.mark.parametrize("where", [None, {"half": True}, {"number": {"$gt": 2_000}}])
async def test_a_search_is_one_round_trip(
    make_backend: MakeBackend, where: dict[str, Any] | None
) -> None:
    backend = await make_backend(DIMENSIONS, pool_size=1, pool_max=1)
    rows = make_vectors(ROWS, DIMENSIONS)
    await fill(backend, rows, make_metadata(ROWS, rows))
    await backend.wait_until_indexed()
    assert backend._pool is not None
    assert backend._store is not None
    backend._store.estimates.rows = 10_000  # large enough for a sample
    for _ in range(8):  # until the statement is prepared
        await backend.vector_search(_query(), 10, 0.0, where)
    assert await _round_trips(backend, where) == 1


async def _round_trips(backend: PostgresBackend, where: dict[str, Any] | None) -> int:
    assert backend._pool is not None
    with tempfile.TemporaryFile("w+") as trace:
        async with backend._pool.connection() as connection:
            connection.pgconn.trace(trace.fileno())
        await backend.vector_search(_query(), 10, 0.0, where)
        async with backend._pool.connection() as connection:
            connection.pgconn.untrace()
        trace.seek(0)
        return sum("ReadyForQuery" in line for line in trace)


@pytest.mark.parametrize("key", ["half", "hundredth"])
async def test_without_iterative_scans_a_filter_costs_no_rows_either(
    indexed: PostgresBackend, key: str
) -> None:
    assert indexed._store is not None
    indexed._store = replace(indexed._store, pgvector=(0, 7, 4))  # the oldest that is accepted
    indexed._store.estimates.rows = 10_000
    matching = sum(m[key] for m in make_metadata(ROWS, make_vectors(ROWS, DIMENSIONS)))
    for _ in range(2):
        found = await indexed.vector_search(_query(), 30, 0.0, {key: True})
        assert len(found) == min(30, matching)


async def test_what_a_sample_says_of_a_filter_is_remembered(indexed: PostgresBackend) -> None:
    assert indexed._store is not None
    estimates = indexed._store.estimates
    estimates.rows = 10_000
    condition = compile_where({"half": True})
    assert vectors.choose(indexed._store, 10, condition, ()).way == "sample"
    await indexed.vector_search(_query(), 10, 0.0, {"half": True})
    assert vectors.choose(indexed._store, 10, condition, ()).way == "index"


async def test_a_rare_value_is_read_and_a_common_one_is_scanned(indexed: PostgresBackend) -> None:
    assert indexed._store is not None
    indexed._store.estimates.rows = 10_000  # large enough for a sample
    for key in ("half", "thousandth"):
        await indexed.vector_search(_query(), 10, 0.0, {key: True})
    ways = {
        key: vectors.choose(indexed._store, 10, compile_where({key: True}), ()).way
        for key in ("half", "thousandth")
    }
    assert ways == {"half": "index", "thousandth": "exact"}


async def test_the_filter_of_a_rare_value_is_served_by_an_index(
    indexed: PostgresBackend, dsn: str
) -> None:
    assert indexed._store is not None
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE agent_brain.chunks")
    condition = compile_where({"thousandth": True})
    plan = await _explain(indexed, condition, "exact")
    assert "chunks_metadata" in plan


async def _explain(backend: PostgresBackend, condition: Any, way: Any) -> str:
    store = backend._store
    assert store is not None
    assert backend._pool is not None
    text = condition.sql.as_string(None)
    plan = vectors.Plan(way, 10, None if condition.empty else text, ("chunk_id",))
    params = vectors.parameters(store, plan, _query(), condition)
    async with backend._pool.connection() as connection:
        statement = "EXPLAIN " + vectors.nearest(store, plan).as_string(None)
        rows = await (await connection.execute(statement.encode(), params)).fetchall()
    return "\n".join(row[0] for row in rows)


async def test_the_index_is_used_with_and_without_a_filter(indexed: PostgresBackend) -> None:
    for where in (None, {"half": True}):
        assert "chunks_hnsw_halfvec_cosine" in await _explain(
            indexed, compile_where(where), "index"
        )
