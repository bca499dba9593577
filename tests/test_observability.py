"""What a running store tells its operators: logs without secrets, traces without our own code."""

from __future__ import annotations

import asyncio
import logging
import pkgutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import agent_brain_postgres
from agent_brain_postgres import PostgresBackend, StorageError
from tests import servers
from tests.conftest import DIMENSIONS, config_for

TEXT = "confidential chunk text"


@pytest.fixture(scope="module")
def own() -> Iterator[servers.Server]:
    with servers.running() as server:
        yield server


def backend_on(server: servers.Server, **settings: Any) -> PostgresBackend:
    config = config_for(server.conninfo(), **settings)
    return PostgresBackend(config, embedding_dimensions=DIMENSIONS)


async def work(backend: PostgresBackend) -> None:
    """Do a bit of everything."""
    await backend.initialize()
    await backend.upsert_documents(["a"], [[1.0] * DIMENSIONS], [TEXT], [{"k": TEXT}])
    await backend.hybrid_search(TEXT, [1.0] * DIMENSIONS, 3)
    await backend.health()
    await backend.delete_by_metadata({"k": TEXT})
    await backend.reset()


async def test_no_record_holds_a_secret_or_a_chunk(
    own: servers.Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    backend = backend_on(own, pool_timeout=1)
    await work(backend)
    await own.stopped()
    with pytest.raises(StorageError):
        await backend.get_count()
    await own.started()
    await backend.close()
    told = [record for record in caplog.records if record.name != "psycopg"]
    text = "\n".join(record.getMessage() for record in told)
    assert servers.PASSWORD not in text
    loud = "\n".join(r.getMessage() for r in told if r.levelno > logging.DEBUG)
    assert TEXT not in loud


async def test_a_retry_says_attempt_wait_and_reason(caplog: pytest.LogCaptureFixture) -> None:
    config = config_for(f"host=127.0.0.1 port={servers.free_port()} password=hidden")
    config.connect_attempts, config.connect_backoff = 2, 0.05
    with pytest.raises(StorageError):
        await PostgresBackend(config).initialize()
    (record,) = [r for r in caplog.records if r.name == "agent_brain_postgres.pool"]
    message = record.getMessage()
    assert "attempt 1 of 2" in message
    assert "refused" in message
    assert message.rstrip().endswith(" s")
    assert "hidden" not in message


def test_every_module_logs_under_its_own_name() -> None:
    for info in pkgutil.walk_packages(agent_brain_postgres.__path__, "agent_brain_postgres."):
        if info.name.endswith("__main__"):
            continue
        try:
            module = import_module(info.name)
        except ImportError:  # an extra, or the core, that is not installed here
            continue
        logger = getattr(module, "logger", None)
        if isinstance(logger, logging.Logger):
            assert logger.name == info.name


def test_no_module_configures_logging(project_root: Path) -> None:
    for path in (project_root / "agent_brain_postgres").rglob("*.py"):
        text = path.read_text()
        assert "logging.basicConfig" not in text, path
        assert ".addHandler(" not in text, path


async def test_opentelemetry_sees_each_statement_without_code_of_ours(dsn: str) -> None:
    """What docs/deployment.md shows."""
    reason = "pip install opentelemetry-instrumentation-psycopg opentelemetry-sdk"
    instrumentation = pytest.importorskip("opentelemetry.instrumentation.psycopg", reason=reason)
    trace = pytest.importorskip("opentelemetry.sdk.trace", reason=reason)
    export = import_module("opentelemetry.sdk.trace.export")
    memory = import_module("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    exporter = memory.InMemorySpanExporter()
    provider = trace.TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(exporter))
    instrumentor = instrumentation.PsycopgInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    try:
        backend = PostgresBackend(config_for(dsn), embedding_dimensions=DIMENSIONS)
        await work(backend)
        exporter.clear()
        tracer = provider.get_tracer("host")
        with tracer.start_as_current_span("request") as request:
            await backend.keyword_search("confidential", 3)
        await asyncio.sleep(0)
        await backend.close()
    finally:
        instrumentor.uninstrument()
    spans = exporter.get_finished_spans()
    ours = [s for s in spans if s.parent and s.parent.span_id == request.context.span_id]
    assert ours
    assert all(s.attributes["db.system"] == "postgresql" for s in ours)
    assert not any(TEXT in str(s.attributes) for s in ours)
