"""The health document: pool, database, store and index, and one word for all of it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from agent_brain_postgres.health.probe import Answer, probe

if TYPE_CHECKING:
    from agent_brain_postgres.backend import PostgresBackend

logger = logging.getLogger(__name__)

# The document is there within a second; this leaves room for a busy event loop.
BUDGET = 0.8

_running: WeakKeyDictionary[PostgresBackend, asyncio.Task[Answer]] = WeakKeyDictionary()
_abandoned: set[asyncio.Task[Answer]] = set()


async def document(backend: PostgresBackend) -> dict[str, Any]:
    """Describe the state of a backend; never raises, and answers within a second.

    `status` is `healthy`, `degraded` (it works, but not as it should) or `unhealthy`; `reason`
    says why it is not healthy. What could not be asked is None.
    """
    answer = await _ask(backend)
    config = backend._pool.config if backend._pool is not None else backend.config
    return {
        "status": answer.status,
        "reason": answer.reason,
        "backend": "postgres",
        "pool": _pool(backend),
        "database": {
            "host": config.host,
            "port": config.port,
            "name": config.database,
            "server_version": answer.facts.get("server_version"),
            "pgvector_version": answer.facts.get("pgvector_version"),
            "read_only": answer.facts.get("read_only"),
        },
        "store": {
            "chunks": answer.facts.get("chunks"),
            "dimensions": backend.embedding_dimensions,
            "schema_version": answer.facts.get("schema_version"),
            "embedding_model": answer.facts.get("embedding_model"),
            "size_bytes": answer.facts.get("size_bytes"),
        },
        "index": {key: answer.index.get(key) for key in ("kind", "state", "progress")},
    }


def _pool(backend: PostgresBackend) -> dict[str, int]:
    stats = pool_stats(backend)
    size, idle = stats.get("pool_size", 0), stats.get("pool_available", 0)
    return {
        "size": size,
        "active": size - idle,
        "idle": idle,
        "waiting": stats.get("requests_waiting", 0),
        "min": stats.get("pool_min", backend.config.pool_size),
        "max": stats.get("pool_max", backend.config.pool_max),
        "requests_queued": stats.get("requests_queued", 0),
        "connections_lost": stats.get("connections_lost", 0),
    }


def pool_stats(backend: PostgresBackend) -> dict[str, int]:
    """Give the counters of a backend's pool; none while it is closed."""
    return backend._pool.stats() if backend._pool is not None else {}


async def _ask(backend: PostgresBackend) -> Answer:
    """Ask the database; all who ask at the same time share one question."""
    task = _running.get(backend)
    if task is None or task.done() or task.get_loop() is not asyncio.get_running_loop():
        task = asyncio.create_task(probe(backend))
        _running[backend] = task
    done, _ = await asyncio.wait({task}, timeout=BUDGET)
    if not done:
        _abandon(task)
        return Answer.unhealthy(f"the database did not answer within {BUDGET} s")
    if task.cancelled():
        return Answer.unhealthy("the question was cancelled")
    if (error := task.exception()) is not None:
        logger.error("asking for the database's health failed", exc_info=error)
        return Answer.unhealthy(f"asking the database failed with {type(error).__name__}")
    return task.result()


def _abandon(task: asyncio.Task[Answer]) -> None:
    """Cancel without waiting: the driver takes seconds to cancel a query on a dead network."""
    task.cancel()
    _abandoned.add(task)
    task.add_done_callback(_forget)


def _forget(task: asyncio.Task[Answer]) -> None:
    _abandoned.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.debug("an abandoned health question failed: %s", type(error).__name__)
