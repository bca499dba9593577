"""The index ladder, and the background build: when, by whom, and what may go on meanwhile."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import psycopg
import pytest

from agent_brain_postgres import PostgresBackend, StorageError, build, index_state, indexing, ladder
from agent_brain_postgres.store import Metric, Store
from tests.conftest import MakeBackend
from tests.nearest import fill, make_vectors

ROWS, DIMENSIONS = 3_000, 16

RUNGS = [
    (64, "cosine", "hnsw_halfvec"),
    (64, "l2", "hnsw"),
    (64, "inner_product", "hnsw"),
    (2_000, "l2", "hnsw"),
    (2_001, "l2", "hnsw_halfvec"),
    (3_072, "cosine", "hnsw_halfvec"),
    (4_000, "inner_product", "hnsw_halfvec"),
    (4_001, "cosine", "hnsw_binary"),
    (16_000, "l2", "hnsw_binary"),
]


@pytest.fixture
async def full(make_backend: MakeBackend) -> PostgresBackend:
    """A store that is due for an index, which nobody has waited for."""
    backend = await make_backend(DIMENSIONS)
    await fill(backend, make_vectors(ROWS, DIMENSIONS))
    return backend


async def _index(backend: PostgresBackend) -> dict[str, Any]:
    index: dict[str, Any] = (await backend.health())["index"]
    return index


def _indexes(dsn: str) -> dict[str, bool]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        return dict(connection.execute(
            "SELECT relname, indisvalid FROM pg_index JOIN pg_class ON oid = indexrelid"
            " WHERE relname LIKE 'chunks_hnsw%'"
        ).fetchall())


async def _until(condition: Any, seconds: float = 20.0) -> None:
    """Wait for something that happens by itself."""
    end = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(("dimensions", "metric", "kind"), RUNGS)
def test_the_ladder_chooses_by_dimensions_and_metric(
    dimensions: int, metric: Metric, kind: str
) -> None:
    assert ladder.decide(1_000_000, dimensions, metric) == kind


@pytest.mark.parametrize("dimensions", [3, 256, 2_000, 3_072, 8_192])
def test_a_small_store_is_read_exactly(dimensions: int) -> None:
    limit = ladder.crossover(dimensions)
    assert ladder.decide(limit - 1, dimensions, "cosine") == "exact"
    assert ladder.decide(limit, dimensions, "cosine") != "exact"


@pytest.mark.parametrize(
    ("dimensions", "metric"),
    [(64, "cosine"), (64, "l2"), (64, "inner_product"), (2_100, "l2"), (2_100, "inner_product"),
     (2_100, "cosine"), (4_100, "cosine"), (4_100, "l2")],
)
@pytest.mark.parametrize("storage", ["vector", "halfvec"])
async def test_queries_use_the_index_that_was_built(
    make_backend: MakeBackend, dsn: str, dimensions: int, metric: Metric, storage: str
) -> None:
    backend = await make_backend(dimensions, metric=metric, embedding_type=storage)
    await fill(backend, make_vectors(60, dimensions))
    store = backend._store
    assert store is not None
    assert store.column == storage
    statement = build.create_statement(backend.config, store, concurrently=False)
    query = psycopg.sql.SQL("EXPLAIN SELECT chunk_id FROM {} ORDER BY {} LIMIT 5").format(
        store.chunks, _distance(store, dimensions)
    )
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement)
        connection.execute("SET enable_seqscan = off")
        plan = "\n".join(row[0] for row in connection.execute(query))
    assert f"using {next(iter(_indexes(dsn)))}" in plan


def _distance(store: Store, dimensions: int) -> psycopg.sql.Composed:
    chosen = ladder.store_rung(store)
    assert chosen is not None
    vector = psycopg.sql.Literal("[" + ",".join(["1"] * dimensions) + "]")
    query = psycopg.sql.SQL("{}::{}").format(vector, store.vector_type(store.column))
    return ladder.index_distance(store, chosen, query)


async def test_a_store_below_the_crossover_has_no_index(make_backend: MakeBackend) -> None:
    backend = await make_backend(DIMENSIONS)
    await fill(backend, make_vectors(100, DIMENSIONS))
    await backend.wait_until_indexed()
    assert await _index(backend) == {"kind": "exact", "state": "none", "progress": 0.0}


async def test_waiting_builds_the_index_at_once(full: PostgresBackend) -> None:
    await full.wait_until_indexed(timeout=60)
    assert await _index(full) == {"kind": "hnsw_halfvec", "state": "ready", "progress": 1.0}


async def test_the_index_is_built_without_being_asked_for(
    make_backend: MakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "QUIET", 0.05)
    backend = await make_backend(DIMENSIONS)
    await fill(backend, make_vectors(ROWS, DIMENSIONS))

    async def ready() -> bool:
        return bool((await _index(backend))["state"] == "ready")

    await _until(ready)


async def test_a_build_waits_for_a_pause_in_the_writing(full: PostgresBackend, dsn: str) -> None:
    await asyncio.sleep(indexing.QUIET / 4)
    assert _indexes(dsn) == {}


async def test_an_index_left_invalid_is_rebuilt(
    full: PostgresBackend, dsn: str, make_backend: MakeBackend
) -> None:
    await full.wait_until_indexed()
    await full.close()
    with psycopg.connect(dsn, autocommit=True) as connection:  # what a crash leaves behind
        connection.execute(
            "UPDATE pg_index SET indisvalid = false FROM pg_class"
            " WHERE oid = indexrelid AND relname LIKE 'chunks_hnsw%'"
        )
    backend = await make_backend(DIMENSIONS)
    await backend.wait_until_indexed(timeout=60)
    assert (await _index(backend))["state"] == "ready"
    assert list(_indexes(dsn).values()) == [True]


async def test_an_invalid_index_is_reported(full: PostgresBackend, dsn: str) -> None:
    await full.wait_until_indexed()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "UPDATE pg_index SET indisvalid = false FROM pg_class"
            " WHERE oid = indexrelid AND relname LIKE 'chunks_hnsw%'"
        )
    assert (await _index(full))["state"] == "invalid"


async def test_several_processes_build_one_index(
    full: PostgresBackend, make_backend: MakeBackend, dsn: str
) -> None:
    others = [await make_backend(DIMENSIONS) for _ in range(3)]
    await asyncio.gather(*(each.wait_until_indexed(timeout=60) for each in (full, *others)))
    assert list(_indexes(dsn).values()) == [True]


async def test_another_metric_replaces_the_index(
    full: PostgresBackend, make_backend: MakeBackend, dsn: str
) -> None:
    await full.wait_until_indexed()
    await full.close()
    backend = await make_backend(DIMENSIONS, metric="l2")
    await backend.wait_until_indexed(timeout=60)
    assert _indexes(dsn) == {"chunks_hnsw_l2": True}


async def test_behind_pgbouncer_the_index_is_built_too(
    make_backend: MakeBackend, dsn: str
) -> None:
    backend = await make_backend(DIMENSIONS, pgbouncer=True)
    await fill(backend, make_vectors(ROWS, DIMENSIONS))
    await backend.wait_until_indexed(timeout=60)
    assert list(_indexes(dsn).values()) == [True]


@pytest.fixture
def slow_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a build wait on the server, where it can be cancelled, before it begins."""
    real = build._run

    async def run(connection: Any, statement: Any, **more: Any) -> None:
        await connection.execute("SELECT pg_sleep(20)")
        await real(connection, statement, **more)

    monkeypatch.setattr(build, "_run", run)


@pytest.mark.usefixtures("slow_build")
async def test_close_does_not_wait_for_a_build(full: PostgresBackend, dsn: str) -> None:
    waiter = asyncio.create_task(full.wait_until_indexed())
    await asyncio.sleep(0.5)
    began = time.monotonic()
    await full.close()
    assert time.monotonic() - began < 5
    with pytest.raises(StorageError, match="closed"):
        await waiter
    with psycopg.connect(dsn, autocommit=True) as connection:
        sleeping = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(20)%'"
            " AND pid <> pg_backend_pid() AND state = 'active' AND datname = current_database()"
        ).fetchone()
    assert sleeping == (0,)


@pytest.mark.usefixtures("slow_build")
async def test_reads_and_writes_go_on_during_a_build(full: PostgresBackend) -> None:
    waiter = asyncio.create_task(full.wait_until_indexed())
    await asyncio.sleep(0.3)
    vector = make_vectors(1, DIMENSIONS, 9)[0]
    await full.upsert_documents(["meanwhile"], [vector], ["meanwhile"], [{}])
    found = await full.vector_search(vector, 1, 0.0)
    assert [result.chunk_id for result in found] == ["meanwhile"]
    assert not waiter.done()
    waiter.cancel()


@pytest.mark.usefixtures("slow_build")
async def test_reset_cancels_a_build(full: PostgresBackend) -> None:
    waiter = asyncio.create_task(full.wait_until_indexed())
    await asyncio.sleep(0.5)
    began = time.monotonic()
    await full.reset()
    assert time.monotonic() - began < 5
    await asyncio.wait_for(waiter, 10)  # an empty store has what it needs
    assert await full.get_count() == 0


async def test_reset_leaves_no_index_to_slow_the_next_ingest(
    full: PostgresBackend, dsn: str
) -> None:
    await full.wait_until_indexed()
    await full.reset()
    assert _indexes(dsn) == {}


async def test_after_reset_the_index_is_built_again(full: PostgresBackend, dsn: str) -> None:
    await full.wait_until_indexed()
    await full.reset()
    await fill(full, make_vectors(ROWS, DIMENSIONS))
    await full.wait_until_indexed(timeout=60)
    assert list(_indexes(dsn).values()) == [True]


@pytest.mark.usefixtures("slow_build")
async def test_waiting_has_a_limit(full: PostgresBackend) -> None:
    with pytest.raises(StorageError, match=r"not ready after 0\.3 s"):
        await full.wait_until_indexed(timeout=0.3)


async def test_waiting_reports_why_there_is_no_index(
    full: PostgresBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run(connection: Any, statement: Any, **more: Any) -> None:
        await connection.execute("SELECT 1 / 0")

    monkeypatch.setattr(build, "_run", run)
    with pytest.raises(StorageError, match="division by zero"):
        await full.wait_until_indexed(timeout=30)


async def test_a_parallel_build_without_shared_memory_is_repeated_without_workers(
    full: PostgresBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = build._run
    refused: list[bool] = []

    async def run(connection: Any, statement: Any, **more: Any) -> None:
        if not refused:
            refused.append(True)
            raise psycopg.errors.DiskFull("could not resize shared memory segment")
        row = await (await connection.execute("SHOW max_parallel_maintenance_workers")).fetchone()
        assert row == ("0",)
        await real(connection, statement, **more)

    monkeypatch.setattr(build, "_run", run)
    await full.wait_until_indexed(timeout=30)
    assert (await _index(full))["state"] == "ready"


async def test_a_batch_that_outgrows_the_index_is_stored_without_it(
    full: PostgresBackend, dsn: str
) -> None:
    await full.wait_until_indexed()
    more = make_vectors(3_000, DIMENSIONS, seed=4)
    ids = [f"more_{i}" for i in range(3_000)]
    await full.upsert_documents(ids, more, ids, [{}] * 3_000)
    assert _indexes(dsn) == {}
    assert len(await full.vector_search(more[0], 10, 0.0)) == 10
    await full.wait_until_indexed(timeout=60)
    assert list(_indexes(dsn).values()) == [True]


async def test_a_batch_that_changes_nothing_leaves_the_index(
    full: PostgresBackend, dsn: str
) -> None:
    await full.wait_until_indexed()
    await fill(full, make_vectors(ROWS, DIMENSIONS))
    assert list(_indexes(dsn).values()) == [True]


async def test_a_small_batch_goes_into_the_index(full: PostgresBackend, dsn: str) -> None:
    await full.wait_until_indexed()
    await full.upsert_documents(["one"], make_vectors(1, DIMENSIONS, 9), ["one"], [{}])
    assert list(_indexes(dsn).values()) == [True]


async def test_searches_work_from_the_first_batch_to_the_last(make_backend: MakeBackend) -> None:
    backend = await make_backend(DIMENSIONS)
    rows = make_vectors(6_000, DIMENSIONS)
    for start in range(0, 6_000, 1_500):
        ids = [f"row_{i}" for i in range(start, start + 1_500)]
        await backend.upsert_documents(ids, rows[start : start + 1_500], ids, [{}] * 1_500)
        found = await backend.vector_search(rows[start], 10, 0.0)
        assert len(found) == 10
        assert found[0].chunk_id == f"row_{start}"
        if start == 3_000:
            await backend.wait_until_indexed()


@pytest.mark.parametrize("rows", [1_000, 100_000, 10_000_000])
def test_the_memory_of_a_build_follows_the_data_within_bounds(rows: int) -> None:
    store = Store("s", 256, "cosine", "pg_catalog.english")
    assert build.MIN_MEMORY <= build.memory(store, rows, 16) <= build.MAX_MEMORY
    assert build.memory(store, rows, 16) <= build.memory(store, 2 * rows, 16)


async def test_progress_is_between_0_and_1(full: PostgresBackend) -> None:
    assert index_state._progress(100, 50, 0, 0) == 0.5
    assert index_state._progress(100, 500, 1, 1) < 1
    assert index_state._progress(0, None, None, None) == 0
