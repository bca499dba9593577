"""Health: the truth, within a second, whatever happens to the database."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import psycopg
import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient, Response
from prometheus_client.parser import text_string_to_metric_families

from agent_brain_postgres import PostgresBackend
from agent_brain_postgres.health import document, router
from agent_brain_postgres.plugin import plugin
from tests import servers
from tests.conftest import DIMENSIONS, MakeBackend, config_for

LIMIT = 1.0  # seconds that an answer may take

SHAPE = {
    "status": None,
    "reason": None,
    "backend": None,
    "pool": {
        "size", "active", "idle", "waiting", "min", "max", "requests_queued", "connections_lost",
    },
    "database": {"host", "port", "name", "server_version", "pgvector_version", "read_only"},
    "store": {"chunks", "dimensions", "schema_version", "embedding_model", "size_bytes"},
    "index": {"kind", "state", "progress"},
}


@pytest.fixture(scope="module")
def own() -> Iterator[servers.Server]:
    """A server that these tests may stop."""
    with servers.running() as server:
        yield server


@pytest.fixture
async def started(own: servers.Server) -> AsyncIterator[PostgresBackend]:
    await asyncio.to_thread(own.ensure_running)
    async with backend_on(own) as backend:
        yield backend


@asynccontextmanager
async def backend_on(server: servers.Server, **settings: Any) -> AsyncIterator[PostgresBackend]:
    backend = PostgresBackend(
        config_for(server.conninfo(), **settings), embedding_dimensions=DIMENSIONS
    )
    await backend.initialize()
    try:
        yield backend
    finally:
        await backend.close()


@asynccontextmanager
async def client_of(backend: PostgresBackend) -> AsyncIterator[AsyncClient]:
    routes = plugin.agent_brain_storage_router(backend)
    app = FastAPI()
    app.include_router(routes)
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        yield client


async def get(backend: PostgresBackend, path: str = "") -> Response:
    async with client_of(backend) as client:
        start = time.monotonic()
        response = await client.get(f"/health/postgres{path}")
        assert time.monotonic() - start < LIMIT
        return response


async def health(backend: PostgresBackend) -> dict[str, Any]:
    start = time.monotonic()
    found = await backend.health()
    assert time.monotonic() - start < LIMIT
    return found


async def until_healthy(backend: PostgresBackend) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while (found := await health(backend))["status"] != "healthy":
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.1)
    return found


async def fill(backend: PostgresBackend, count: int) -> None:
    await backend.upsert_documents(
        [f"c{i}" for i in range(count)],
        [[float(i + 1)] * DIMENSIONS for i in range(count)],
        [f"text number {i}" for i in range(count)],
        [{}] * count,
    )


async def test_the_document_has_the_contracts_shape(backend: PostgresBackend) -> None:
    found = await health(backend)
    assert {k: set(v) if isinstance(v, dict) else None for k, v in found.items()} == SHAPE
    assert json.loads(json.dumps(found)) == found


async def test_a_working_store_is_healthy_and_described(backend: PostgresBackend) -> None:
    await fill(backend, 3)
    await backend.set_embedding_metadata("openai", "text-embedding-3-large", DIMENSIONS)
    found = await health(backend)
    assert (found["status"], found["reason"]) == ("healthy", None)
    assert found["database"]["server_version"].split(".")[0].isdecimal()
    assert found["database"]["pgvector_version"].count(".") == 2
    assert found["database"]["read_only"] is False
    assert found["store"] == {
        "chunks": 3,
        "dimensions": DIMENSIONS,
        "schema_version": 1,
        "embedding_model": "openai/text-embedding-3-large",
        "size_bytes": found["store"]["size_bytes"],
    }
    assert found["store"]["size_bytes"] > 8192
    assert found["index"] == {"kind": "exact", "state": "none", "progress": 0.0}


async def test_the_count_follows_writes_and_deletions(backend: PostgresBackend) -> None:
    await fill(backend, 5)
    await backend.delete_by_ids(["c0", "c1"])
    assert (await health(backend))["store"]["chunks"] == 3
    await backend.reset()
    assert (await health(backend))["store"]["chunks"] == 0


async def test_the_route_answers_200_when_healthy(backend: PostgresBackend) -> None:
    response = await get(backend)
    assert (response.status_code, response.json()["status"]) == (200, "healthy")


async def test_before_initialize_it_is_unhealthy(config: Any) -> None:
    response = await get(PostgresBackend(config))
    assert response.status_code == 503
    assert "not initialized" in response.json()["reason"]


async def test_after_close_it_is_unhealthy(backend: PostgresBackend) -> None:
    await backend.close()
    assert (await get(backend)).status_code == 503


async def test_under_load_it_stays_healthy_and_quick(backend: PostgresBackend) -> None:
    await fill(backend, 200)
    searches = [
        asyncio.create_task(backend.hybrid_search("text number", [1.0] * DIMENSIONS, 10))
        for _ in range(100)
    ]
    found = await health(backend)
    await asyncio.gather(*searches)
    assert found["status"] in ("healthy", "degraded")
    assert (await health(backend))["status"] == "healthy"


@asynccontextmanager
async def exhausted(backend: PostgresBackend) -> AsyncIterator[None]:
    """Hold every connection of the pool."""
    pool, _ = backend._opened()
    release = asyncio.Event()

    async def hold(held: asyncio.Event) -> None:
        async with pool.connection():
            held.set()
            await release.wait()

    events = [asyncio.Event() for _ in range(backend.config.pool_max)]
    holders = [asyncio.create_task(hold(event)) for event in events]
    for event in events:
        await event.wait()
    yield
    release.set()
    await asyncio.gather(*holders)


async def test_an_exhausted_pool_is_degraded_not_hung(make_backend: MakeBackend) -> None:
    backend = await make_backend(pool_max=2)
    async with exhausted(backend):
        found = await health(backend)
        response = await get(backend)
    assert found["status"] == "degraded"
    assert "all 2 are in use" in found["reason"]
    assert found["pool"]["active"] == found["pool"]["max"] == 2
    assert found["store"]["chunks"] == 0
    assert response.status_code == 200
    assert (await health(backend))["status"] == "healthy"


async def test_many_who_ask_an_exhausted_pool_share_one_question(
    make_backend: MakeBackend,
) -> None:
    backend = await make_backend(pool_max=1)
    async with exhausted(backend):
        found = await asyncio.gather(*(health(backend) for _ in range(50)))
        pool, _ = backend._opened()
        assert pool.stats().get("requests_waiting", 0) <= 1
    assert {f["status"] for f in found} == {"degraded"}


async def test_with_the_server_stopped_it_is_unhealthy_with_the_reason(
    own: servers.Server, started: PostgresBackend
) -> None:
    await own.stopped()
    response = await get(started)
    found = response.json()
    assert response.status_code == 503
    assert found["status"] == "unhealthy"
    assert found["reason"]
    assert found["database"]["server_version"] is None
    assert found["database"]["host"] == "127.0.0.1"


async def test_with_the_server_back_it_is_healthy_again(
    own: servers.Server, started: PostgresBackend
) -> None:
    await own.stopped()
    assert (await health(started))["status"] == "unhealthy"
    await own.started()
    assert (await until_healthy(started))["reason"] is None


async def test_a_restart_between_two_questions_is_no_illness(
    own: servers.Server, started: PostgresBackend
) -> None:
    await fill(started, 3)
    await own.restarted()
    await until_healthy(started)
    assert len(await started.vector_search([1.0] * DIMENSIONS, 3)) == 3


async def test_a_killed_server_is_unhealthy_then_healthy(
    own: servers.Server, started: PostgresBackend
) -> None:
    await own.stopped(signal.SIGQUIT)
    assert (await health(started))["status"] == "unhealthy"
    await own.started()
    await until_healthy(started)


async def test_a_server_that_hangs_is_unhealthy_within_the_second(
    own: servers.Server, started: PostgresBackend
) -> None:
    own.pause()
    try:
        found = [await health(started) for _ in range(3)]
    finally:
        own.resume()
    assert {f["status"] for f in found} == {"unhealthy"}
    assert "did not answer" in found[0]["reason"]
    await until_healthy(started)


async def test_a_read_only_database_is_degraded(
    own: servers.Server, started: PostgresBackend
) -> None:
    own.execute("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
    try:
        found = await _until(started, "degraded")
    finally:
        own.execute(
            "SET default_transaction_read_only = off",
            "ALTER SYSTEM RESET default_transaction_read_only",
            "SELECT pg_reload_conf()",
        )
    assert "read-only" in found["reason"]
    assert found["database"]["read_only"] is True
    await until_healthy(started)


async def _until(backend: PostgresBackend, status: str) -> dict[str, Any]:
    for _ in range(50):
        found = await health(backend)
        if found["status"] == status:
            break
        await asyncio.sleep(0.05)
    return found


async def test_a_server_out_of_connections_is_named(own: servers.Server) -> None:
    await own.stopped()
    await own.started(
        "max_connections=6", "superuser_reserved_connections=0", "max_wal_senders=0"
    )
    others: list[psycopg.AsyncConnection[Any]] = []
    try:
        async with backend_on(own, pool_max=1) as backend, exhausted(backend):
            with suppress(psycopg.OperationalError):
                for _ in range(10):
                    others.append(await psycopg.AsyncConnection.connect(own.conninfo()))
            assert len(others) < 10
            found = await health(backend)
            assert found["status"] == "unhealthy"
            assert "max_connections" in found["reason"]
            for other in others:
                await other.close()
    finally:
        await own.restarted()


async def test_an_invalid_index_is_degraded(backend: PostgresBackend, dsn: str) -> None:
    await fill(backend, 3)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "CREATE INDEX chunks_hnsw_halfvec_cosine ON agent_brain.chunks USING hnsw"
            " ((l2_normalize(embedding)::halfvec(8)) halfvec_ip_ops)"
        )
        connection.execute(
            "UPDATE pg_index SET indisvalid = false"
            " WHERE indexrelid = 'agent_brain.chunks_hnsw_halfvec_cosine'::regclass"
        )
    found = await health(backend)
    assert found["index"]["state"] == "invalid"
    assert found["status"] == "degraded"
    assert "doctor --fix" in found["reason"]


async def test_tables_that_are_gone_are_unhealthy(backend: PostgresBackend, dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("DROP SCHEMA agent_brain CASCADE")
    found = await health(backend)
    assert found["status"] == "unhealthy"
    assert "42P01" in found["reason"]


async def test_no_answer_holds_the_password(
    own: servers.Server, started: PostgresBackend
) -> None:
    texts = [(await get(started)).text, (await get(started, "/metrics")).text]
    await own.stopped()
    texts += [(await get(started)).text, (await get(started, "/metrics")).text]
    await own.started()
    assert servers.PASSWORD not in "".join(texts)


async def metrics(backend: PostgresBackend) -> dict[str, Any]:
    response = await get(backend, "/metrics")
    assert response.status_code == 200
    families = text_string_to_metric_families(response.text)
    return {family.name: family for family in families}


async def test_the_metrics_say_what_the_document_says(backend: PostgresBackend) -> None:
    await fill(backend, 4)
    found = await metrics(backend)
    values = {
        (s.name, *s.labels.values()): s.value for f in found.values() for s in f.samples
    }
    assert values["agent_brain_postgres_up",] == 1
    assert values["agent_brain_postgres_chunks",] == 4
    assert values["agent_brain_postgres_status", "healthy"] == 1
    assert values["agent_brain_postgres_index_state", "none"] == 1
    assert values["agent_brain_postgres_pool_connections_max",] == backend.config.pool_max
    assert values["agent_brain_postgres_pool_requests_total",] > 0


async def test_the_metrics_follow_the_conventions(backend: PostgresBackend) -> None:
    for name, family in (await metrics(backend)).items():
        assert name.startswith("agent_brain_postgres_")
        assert family.documentation.endswith(".")
        samples = {sample.name for sample in family.samples}
        assert (family.type == "counter") == all(s.endswith("_total") for s in samples)
        assert not any(word in name for word in ("_ms", "milliseconds", "_mb", "_kb", "percent"))


async def test_the_metrics_of_a_stopped_server_say_that_it_is_down(
    own: servers.Server, started: PostgresBackend
) -> None:
    await own.stopped()
    found = await metrics(started)
    assert found["agent_brain_postgres_up"].samples[0].value == 0
    assert "agent_brain_postgres_chunks" not in found


async def test_the_metrics_speak_openmetrics_when_asked(backend: PostgresBackend) -> None:
    async with client_of(backend) as client:
        accept = {"accept": "application/openmetrics-text; version=1.0.0"}
        response = await client.get("/health/postgres/metrics", headers=accept)
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert response.text.endswith("# EOF\n")


async def test_health_can_be_asked_in_another_event_loop(config: Any) -> None:
    backend = PostgresBackend(config, embedding_dimensions=DIMENSIONS)

    async def once() -> str:
        await backend.initialize()
        found = await document(backend)
        await backend.close()
        return str(found["status"])

    statuses = [await asyncio.to_thread(asyncio.run, once()) for _ in range(2)]
    assert statuses == ["healthy", "healthy"]


def test_there_is_no_router_for_another_backend() -> None:
    assert router(object()) is None


def test_without_fastapi_there_is_no_router_and_health_still_works(dsn: str) -> None:
    script = textwrap.dedent(
        """
        import asyncio, sys
        sys.modules["fastapi"] = sys.modules["prometheus_client"] = None
        from agent_brain_postgres.plugin import plugin
        from agent_brain_postgres import PostgresBackend, PostgresConfig

        async def main():
            config = PostgresConfig(pool_size=1).with_connection(sys.argv[1])
            backend = PostgresBackend(config)
            assert plugin.agent_brain_storage_router(backend) is None
            await backend.initialize()
            print((await backend.health())["status"])
            await backend.close()

        asyncio.run(main())
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script, dsn], capture_output=True, text=True, check=False,
        env={**os.environ},
    )
    assert (done.stdout, done.returncode) == ("healthy\n", 0), done.stderr
