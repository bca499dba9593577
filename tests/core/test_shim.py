"""What the core uses beyond its storage protocol, on a backend of its own making."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agent_brain_postgres import PostgresBackend as Native
from agent_brain_postgres import core

from .cluster import Cluster

BEYOND = ("vector_store", "bm25_manager", "connection_manager", "schema_manager")
CHUNKS = (["a", "b"], [[1.0, 0.0], [0.0, 1.0]], ["a walrus", "a heron"], [{"n": 1}, {"n": 2}])


@pytest.fixture
def settings(cluster: Cluster) -> dict[str, Any]:
    return {
        "host": "127.0.0.1",
        "port": cluster.port,
        "database": cluster.create_database(),
        "user": cluster.user,
        "password": cluster.password,
        "pool_size": 2,
        "pool_max_overflow": 2,
        "connect_attempts": 1,
    }


@pytest.fixture
async def backend(settings: dict[str, Any]) -> AsyncIterator[Any]:
    core.install()
    from agent_brain_server.storage.postgres import PostgresBackend, PostgresConfig

    backend = PostgresBackend(config=PostgresConfig(**settings))
    yield backend
    await backend.close()
    core.uninstall()


def connections(cluster: Cluster, settings: dict[str, Any]) -> int:
    with cluster.connect("postgres") as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = %s", [settings["database"]]
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_the_native_backend_knows_nothing_of_it() -> None:
    assert not [name for name in (*BEYOND, "lend") if hasattr(Native, name)]


def test_before_initialize_nothing_fails(backend: Any) -> None:
    assert all(getattr(backend, name) is not None for name in BEYOND)
    assert backend.vector_store.is_initialized is False
    assert backend.bm25_manager.is_initialized is True


async def test_the_pool_is_reported_as_not_initialized_before(backend: Any) -> None:
    assert await backend.connection_manager.get_pool_status() == {"status": "not_initialized"}


async def test_the_pools_figures_add_up(backend: Any) -> None:
    await backend.initialize()
    async with backend.connection_manager.engine.connect():
        status = await backend.connection_manager.get_pool_status()
    assert status["status"] == "active"
    assert status["pool_size"] == 2
    assert status["checked_out"] >= 1
    assert status["total"] == status["pool_size"] + status["overflow"] <= status["maximum"] == 4


async def test_the_engine_runs_whatever_has_a_statement_as_its_str(backend: Any) -> None:
    text = importlib.import_module("sqlalchemy").text
    await backend.initialize()
    async with backend.connection_manager.engine.connect() as connection:
        result = await connection.execute(text("SELECT '100%' || version(), 2"))
        version, two = result.fetchone()
        assert (version[:15], two) == ("100%PostgreSQL ", 2)
        assert result.fetchone() is None


async def test_an_error_of_a_statement_is_the_cores(backend: Any) -> None:
    from agent_brain_server.storage.protocol import StorageError

    await backend.initialize()
    async with backend.connection_manager.engine.connect() as connection:
        with pytest.raises(StorageError, match="42P01"):
            await connection.execute("SELECT * FROM nothing")


async def test_resetting_the_vector_store_clears_everything(backend: Any) -> None:
    await backend.initialize()
    await backend.upsert_documents(*CHUNKS)
    await backend.set_embedding_metadata("ollama", "m", 2)
    assert backend.schema_manager.embedding_dimensions == 2
    await backend.vector_store.reset()
    backend.bm25_manager.reset()
    assert await backend.get_count() == 0
    assert await backend.keyword_search("walrus", 5) == []
    assert await backend.get_embedding_metadata() is None
    assert await backend.upsert_documents(*CHUNKS) == 2


async def test_repeated_initialize_leaks_nothing(
    backend: Any, cluster: Cluster, settings: dict[str, Any]
) -> None:
    await backend.initialize()
    await backend.upsert_documents(*CHUNKS)
    before = connections(cluster, settings)
    for _ in range(20):
        await backend.initialize()
        assert await backend.get_count() == 2
    assert connections(cluster, settings) <= max(before, 2)
    await backend.close()
    assert connections(cluster, settings) == 0


async def test_a_failed_start_closes_its_connections(
    backend: Any, cluster: Cluster, settings: dict[str, Any]
) -> None:
    from agent_brain_server.storage.protocol import StorageError

    await backend.initialize()
    await backend.upsert_documents(*CHUNKS)
    await backend.close()
    other = type(backend)(config=type(backend.config)(**settings, embedding_dimensions=3))
    for _ in range(3):
        with pytest.raises(StorageError, match=r"2 dimensions.*3"):
            await other.initialize()
    assert not other.is_initialized
    assert connections(cluster, settings) == 0
