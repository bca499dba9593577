"""Connections: waited for, given back, replaced when they die."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_brain_postgres import PostgresBackend, StorageError
from agent_brain_postgres.errors import ConnectionFailed
from agent_brain_postgres.pool import MAX_BACKOFF, backoff

from .chunks import make_chunks
from .conftest import DIMENSIONS, MakeBackend, config_for
from .proxy import Proxy

VECTOR = [1.0] + [0.0] * (DIMENSIONS - 1)


def sessions(dsn: str) -> int:
    """Count the other connections to a database."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        ).fetchone()
    assert row is not None
    return int(row[0])


async def until_sessions(dsn: str, count: int) -> None:
    for _ in range(100):
        if await asyncio.to_thread(sessions, dsn) == count:
            return
        await asyncio.sleep(0.05)
    assert sessions(dsn) == count


@given(attempt=st.integers(1, 40), first=st.floats(0, 300))
def test_backoff_doubles_with_jitter_up_to_a_limit(attempt: int, first: float) -> None:
    wait = backoff(attempt, first)
    assert 0.5 * min(MAX_BACKOFF, first * 2 ** (attempt - 1)) <= wait <= MAX_BACKOFF


async def test_a_server_that_starts_late_is_waited_for(
    dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Proxy(dsn) as proxy:
        await proxy.shut()
        backend = PostgresBackend(
            config_for(proxy.dsn, connect_attempts=8, connect_backoff=0.1),
            embedding_dimensions=DIMENSIONS,
        )
        with caplog.at_level(logging.WARNING):
            starting = asyncio.create_task(backend.initialize())
            await asyncio.sleep(0.3)
            await proxy.open()
            await starting
        assert "attempt 1 of 8" in caplog.text
        assert "Connection refused" in caplog.text
        assert await backend.get_count() == 0
        await backend.close()


async def test_attempts_end(dsn: str) -> None:
    async with Proxy(dsn) as proxy:
        await proxy.shut()
        backend = PostgresBackend(config_for(proxy.dsn, connect_attempts=3, connect_backoff=0.01))
        with pytest.raises(ConnectionFailed, match="running there"):
            await backend.initialize()
        assert not backend.is_initialized


@pytest.mark.parametrize(
    ("change", "says"),
    [({"user": "nobody_here"}, "role"), ({"dbname": "no_such_database"}, "database")],
)
async def test_what_waiting_cannot_mend_fails_at_the_first_attempt(
    dsn: str, change: dict[str, str], says: str
) -> None:
    async with Proxy(dsn) as proxy:
        config = config_for(
            psycopg.conninfo.make_conninfo(proxy.dsn, **change), connect_attempts=5
        )
        with pytest.raises(ConnectionFailed, match=says):
            await PostgresBackend(config).initialize()
        assert proxy.accepted == 1


async def test_a_failed_start_closes_what_it_opened(make_backend: MakeBackend, dsn: str) -> None:
    await (await make_backend(8)).close()
    with pytest.raises(StorageError):
        await make_backend(9)
    await until_sessions(dsn, 0)


async def test_closing_gives_every_connection_back(make_backend: MakeBackend, dsn: str) -> None:
    backend = await make_backend(pool_size=3)
    await asyncio.gather(*(backend.get_count() for _ in range(8)))
    await backend.close()
    await until_sessions(dsn, 0)


async def test_terminated_connections_are_replaced_without_an_error(
    make_backend: MakeBackend, dsn: str
) -> None:
    backend = await make_backend(pool_size=4)
    await backend.upsert_documents(*make_chunks(10))
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    for _ in range(8):
        assert len(await backend.vector_search(VECTOR, 3)) == 3
    assert await backend.upsert_documents(*make_chunks(5, prefix="after")) == 5


async def test_a_write_survives_a_restart_of_the_server(
    make_backend: MakeBackend, dsn: str
) -> None:
    backend = await make_backend(pool_size=2)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert await backend.upsert_documents(*make_chunks(5)) == 5
    assert await backend.get_count() == 5


async def test_a_server_that_went_away_is_an_error_and_its_return_is_noticed(dsn: str) -> None:
    async with Proxy(dsn) as proxy:
        backend = PostgresBackend(
            config_for(proxy.dsn, pool_timeout=1.0), embedding_dimensions=DIMENSIONS
        )
        await backend.initialize()
        await backend.upsert_documents(*make_chunks(5))
        await proxy.shut()
        with pytest.raises(StorageError):
            await backend.vector_search(VECTOR, 3)
        await proxy.open()
        for _ in range(40):
            try:
                assert len(await backend.vector_search(VECTOR, 3)) == 3
                break
            except StorageError:
                await asyncio.sleep(0.25)
        assert len(await backend.vector_search(VECTOR, 3)) == 3
        await backend.close()


async def test_a_stalled_server_does_not_hold_close_up(dsn: str) -> None:
    async with Proxy(dsn) as proxy:
        backend = PostgresBackend(
            config_for(proxy.dsn, pool_timeout=1.0), embedding_dimensions=DIMENSIONS
        )
        await backend.initialize()
        proxy.stall()
        search = asyncio.create_task(backend.vector_search(VECTOR, 3))
        await asyncio.sleep(0.1)
        search.cancel()
        started = time.monotonic()
        await backend.close()
        assert time.monotonic() - started < 20  # hours, if it waited for the network
        proxy.resume()
        await asyncio.gather(search, return_exceptions=True)


async def test_no_setting_of_a_search_stays_in_its_session(
    make_backend: MakeBackend,
) -> None:
    backend = await make_backend(pool_size=1, pool_max=1)
    await backend.upsert_documents(*make_chunks(300))
    assert backend._pool is not None

    async def session_settings() -> list[Any]:
        assert backend._pool is not None
        async with backend._pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT name, setting FROM pg_settings "
                "WHERE name LIKE 'hnsw%' OR name IN ('statement_timeout', 'work_mem') "
                "OR name LIKE 'enable%' OR name LIKE 'maintenance%' ORDER BY name"
            )
            return await cursor.fetchall()

    before = await session_settings()
    await backend.vector_search(VECTOR, 200)
    await backend.vector_search(VECTOR, 20, 0.0, {"language": "go"})
    await backend.hybrid_search("vector", VECTOR, 30)
    await backend.keyword_search("vector", 30)
    assert await session_settings() == before


async def test_the_logs_never_show_the_password(
    dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "s3cr3t-and-+ space"
    async with Proxy(dsn) as proxy:
        config = config_for(
            psycopg.conninfo.make_conninfo(proxy.dsn, password=secret),
            connect_attempts=2,
            connect_backoff=0.01,
        )
        backend = PostgresBackend(config, embedding_dimensions=DIMENSIONS)
        with caplog.at_level(logging.DEBUG):
            await backend.initialize()
            await backend.close()
            await proxy.shut()
            with pytest.raises(StorageError) as caught:
                await backend.initialize()
    assert secret not in caplog.text
    assert secret not in repr(caught.value) + str(caught.value) + repr(backend.config)


async def test_debug_logs_statements_without_their_values(
    make_backend: MakeBackend, caplog: pytest.LogCaptureFixture
) -> None:
    backend = await make_backend(debug=True)
    with caplog.at_level(logging.DEBUG, "agent_brain_postgres"):
        await backend.get_by_id("a secret id")
    assert "SELECT document, metadata FROM" in caplog.text
    assert "a secret id" not in caplog.text


async def test_text_is_utf8_whatever_the_environment_says(
    make_backend: MakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    backend = await make_backend()
    await backend.upsert_documents(["é"], [VECTOR], ["naïve Größe 日本"], [{"ключ": "значение"}])
    assert await backend.get_by_id("é") == {
        "text": "naïve Größe 日本", "metadata": {"ключ": "значение"}
    }
    assert [r.chunk_id for r in await backend.keyword_search("größe", 1)] == ["é"]
