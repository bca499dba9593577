"""The questions that the health document asks of the database."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg_pool import PoolTimeout

from agent_brain_postgres import index_state
from agent_brain_postgres.errors import StorageError, connection_failed, translate
from agent_brain_postgres.pool import Connection, Pool, connection_lost
from agent_brain_postgres.store import Store

if TYPE_CHECKING:
    from typing_extensions import LiteralString

    from agent_brain_postgres.backend import PostgresBackend

# Seconds to wait for a connection of the pool before a separate one is tried.
POOL_PATIENCE = 0.25

# Everything in one round trip. The corpus statistics know the number of chunks without counting.
FACTS: LiteralString = """
SELECT
    pg_catalog.current_setting('server_version') AS server_version,
    (SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'vector') AS pgvector_version,
    pg_catalog.current_setting('transaction_read_only') = 'on' AS read_only,
    (SELECT coalesce(sum(s.chunks), 0)::bigint FROM {lexeme_statistics} s WHERE s.lexeme = '')
        AS chunks,
    (SELECT m.value FROM {meta} m WHERE m.key = 'schema_version') AS schema_version,
    (SELECT e.provider || '/' || e.model FROM {embedding_metadata} e LIMIT 1) AS embedding_model,
    (SELECT sum(pg_catalog.pg_total_relation_size(c.oid))::bigint FROM pg_catalog.pg_class c
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = {schema} AND c.relkind = 'r') AS size_bytes
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the database said, or why it said nothing."""

    status: str = "healthy"
    reason: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    index: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def unhealthy(cls, reason: str) -> Answer:
        """Nothing works."""
        return cls("unhealthy", reason)


async def probe(backend: PostgresBackend) -> Answer:
    """Ask through the pool, which is what searches use; without it where it has none to give."""
    if not backend.is_initialized:
        return Answer.unhealthy("the backend is not initialized")
    pool, store = backend._opened()
    try:
        return await _through_pool(pool, store)
    except PoolTimeout:
        return await _beside_pool(pool, store)
    except StorageError as error:
        return Answer.unhealthy(str(error))
    except (psycopg.Error, OSError) as error:
        return Answer.unhealthy(str(translate(error, "health")))


async def _through_pool(pool: Pool, store: Store) -> Answer:
    try:
        async with pool.connection(timeout=POOL_PATIENCE) as connection:
            return await _examine(connection, store)
    except psycopg.OperationalError as error:
        if isinstance(error, PoolTimeout) or not connection_lost(error):
            raise
    # A restarted server leaves only dead connections behind; replace them and look again.
    await pool.drop_dead()
    async with pool.connection(timeout=POOL_PATIENCE) as connection:
        return await _examine(connection, store)


async def _beside_pool(pool: Pool, store: Store) -> Answer:
    """Tell a pool that is exhausted from a database that is gone."""
    try:
        connection = await psycopg.AsyncConnection.connect(pool.config.conninfo(), autocommit=True)
    except (psycopg.Error, OSError) as error:
        return Answer.unhealthy(str(connection_failed(error, target(pool))))
    async with connection:
        answer = await _examine(connection, store)
    stats = pool.stats()
    waiting = stats.get("requests_waiting", 0)
    return Answer(
        "degraded",
        f"no connection of the pool came free within {POOL_PATIENCE} s: all "
        f"{stats.get('pool_max', 0)} are in use and {waiting} requests wait; raise pool_max",
        answer.facts,
        answer.index,
    )


def target(pool: Pool) -> str:
    """Name the database, without a secret."""
    config = pool.config
    return f"{config.host}:{config.port}/{config.database}"


async def _examine(connection: Connection, store: Store) -> Answer:
    facts = await _facts(connection, store)
    state = await index_state.read(connection, store)
    index = {"kind": state.kind, "state": state.state, "progress": state.progress}
    if facts["read_only"]:
        reason = "the database is read-only: searches work, indexing does not"
        return Answer("degraded", reason, facts, index)
    if state.state == "invalid":
        reason = "the vector index is invalid and unused: run `agent-brain-postgres doctor --fix`"
        return Answer("degraded", reason, facts, index)
    return Answer(facts=facts, index=index)


async def _facts(connection: Connection, store: Store) -> dict[str, Any]:
    statement = sql.SQL(FACTS).format(
        lexeme_statistics=store.lexeme_statistics,
        meta=store.table("meta"),
        embedding_metadata=store.table("embedding_metadata"),
        schema=sql.Literal(store.schema),
    )
    cursor = connection.cursor(row_factory=dict_row)
    await cursor.execute(statement)
    row = await cursor.fetchone()
    assert row is not None
    version = row["schema_version"]
    row["schema_version"] = int(version) if version and version.isdecimal() else version
    return row
