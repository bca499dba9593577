"""Building an index: on a connection of its own, by one process at a time, while others work."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from agent_brain_postgres import index_state, ladder
from agent_brain_postgres.config import PostgresConfig
from agent_brain_postgres.pool import Connection, connect
from agent_brain_postgres.store import Store

if TYPE_CHECKING:
    from typing_extensions import LiteralString

logger = logging.getLogger(__name__)

MEGABYTE = 1024 * 1024
MIN_MEMORY = 64 * MEGABYTE
MAX_MEMORY = 2048 * MEGABYTE
CLEAN_UP_TIMEOUT = 1.0  # seconds
GRAPH_BYTES = 1_000  # of a node with m = 16: links, header, allocation

LOCK_KEY: LiteralString = "hashtextextended('agent_brain_postgres index ' || %s::text, 0)"

TRY_LOCK: LiteralString = "SELECT pg_catalog.pg_try_advisory_lock(pg_catalog." + LOCK_KEY + ")"

TRY_LOCK_IN_TRANSACTION: LiteralString = (
    "SELECT pg_catalog.pg_try_advisory_xact_lock(pg_catalog." + LOCK_KEY + ")"
)

# More than the server's own setting when the data asks for it, never less. Beyond twice the shared
# buffers the machine may not have it.
MEMORY: LiteralString = """
SELECT pg_catalog.set_config('maintenance_work_mem', greatest(
    pg_catalog.pg_size_bytes(pg_catalog.current_setting('maintenance_work_mem')),
    least(%(wanted)s::bigint,
          greatest(%(least)s::bigint,
                   8 * pg_catalog.pg_size_bytes(pg_catalog.current_setting('shared_buffers'))))
    ) / 1024 || 'kB', %(local)s)
"""

NO_TIMEOUT: LiteralString = "SELECT pg_catalog.set_config('statement_timeout', '0', %s)"

# The graph of a parallel build lies in /dev/shm, which is 64 MB in a container by default.
NO_WORKERS: LiteralString = (
    "SELECT pg_catalog.set_config('max_parallel_maintenance_workers', '0', %s)"
)

CREATE: LiteralString = """
CREATE INDEX {concurrently} {name} ON {chunks}
USING hnsw (({expression}) {operator_class})
WITH (m = {m}, ef_construction = {ef_construction})
"""

DROP: LiteralString = "DROP INDEX {concurrently} IF EXISTS {name}"

CANCEL_BUILDS: LiteralString = """
SELECT pg_catalog.pg_cancel_backend(pid)
FROM pg_catalog.pg_stat_progress_create_index
WHERE relid = pg_catalog.to_regclass(%s)
"""


async def build(config: PostgresConfig, store: Store) -> bool:
    """Remove what no search can use, build what is missing; False when another process is at it.

    Reads and writes go on meanwhile. Behind PgBouncer, where neither `CONCURRENTLY` nor a lock of
    the session is possible with settings of one's own, writes wait.
    """
    connection = await connect(config)
    try:
        if config.pgbouncer:
            return await _build_in_transaction(connection, config, store)
        return await _build_concurrently(connection, config, store)
    finally:
        await connection.close()


async def _build_concurrently(
    connection: Connection, config: PostgresConfig, store: Store
) -> bool:
    if not await _locked(connection, TRY_LOCK, store):
        return False
    await connection.execute(NO_TIMEOUT, (False,))
    state = await index_state.read(connection, store)
    for name in state.leftovers:
        await drop(connection, store, name, concurrently=True)
    if not state.missing:
        return True
    await _set_memory(connection, config, store, state.rows, local=False)
    try:
        await _create(connection, config, store, concurrently=True)
    except BaseException:
        await _drop_unfinished(connection, store)
        raise
    return True


async def _build_in_transaction(
    connection: Connection, config: PostgresConfig, store: Store
) -> bool:
    async with connection.transaction():
        if not await _locked(connection, TRY_LOCK_IN_TRANSACTION, store):
            return False
        await connection.execute(NO_TIMEOUT, (True,))
        state = await index_state.read(connection, store)
        for name in state.leftovers:
            await drop(connection, store, name)
        if state.missing:
            await _set_memory(connection, config, store, state.rows, local=True)
            await _create(connection, config, store, concurrently=False)
    return True


async def _drop_unfinished(connection: Connection, store: Store) -> None:
    """Drop what a cancelled build leaves behind, if that is quick: every write would maintain it."""
    with contextlib.suppress(psycopg.Error, TimeoutError, asyncio.TimeoutError):
        await connection.execute("SELECT pg_catalog.set_config('lock_timeout', '500ms', false)")
        await asyncio.wait_for(drop(connection, store, _name(store)), CLEAN_UP_TIMEOUT)


async def _locked(connection: Connection, statement: LiteralString, store: Store) -> bool:
    row = await (await connection.execute(statement, (store.schema,))).fetchone()
    return row is not None and bool(row[0])


async def _set_memory(
    connection: Connection, config: PostgresConfig, store: Store, rows: int, *, local: bool
) -> None:
    wanted = memory(store, rows, config.hnsw_m)
    await connection.execute(
        MEMORY, {"wanted": wanted, "least": 1024 * MEGABYTE, "local": local}
    )


def memory(store: Store, rows: int, m: int) -> int:
    """Give the bytes that the graph takes while it is built."""
    chosen = ladder.store_rung(store)
    assert chosen is not None
    assert store.dimensions is not None
    bits = {"hnsw": 32, "hnsw_halfvec": 16, "hnsw_binary": 1}.get(chosen.kind, 32)
    node = store.dimensions * bits // 8 + GRAPH_BYTES * max(m, 16) // 16
    return min(MAX_MEMORY, max(MIN_MEMORY, rows * node * 5 // 4))


async def _create(
    connection: Connection, config: PostgresConfig, store: Store, *, concurrently: bool
) -> None:
    statement = create_statement(config, store, concurrently=concurrently)
    try:
        await _run(connection, statement, nested=not concurrently)
    except (psycopg.errors.DiskFull, psycopg.errors.OutOfMemory) as error:
        logger.warning("index build without parallel workers, since: %s", error.diag.message_primary)
        if concurrently:  # which leaves an invalid index behind
            await drop(connection, store, _name(store))
        await connection.execute(NO_WORKERS, (not concurrently,))
        await _run(connection, statement, nested=not concurrently)


async def _run(connection: Connection, statement: sql.Composed, *, nested: bool) -> None:
    if nested:
        async with connection.transaction():
            await connection.execute(statement)
    else:
        await connection.execute(statement)


def create_statement(
    config: PostgresConfig, store: Store, *, concurrently: bool = True
) -> sql.Composed:
    """Compose CREATE INDEX for the store's rung of the ladder."""
    chosen = ladder.store_rung(store)
    assert chosen is not None, "an index needs the dimensions"
    return sql.SQL(CREATE).format(
        concurrently=sql.SQL("CONCURRENTLY" if concurrently else ""),
        name=sql.Identifier(ladder.index_name(store, chosen)),
        chunks=store.chunks,
        expression=ladder.indexed(store, chosen, sql.Identifier("embedding")),
        operator_class=sql.SQL("{}.{}").format(
            sql.Identifier(store.extension_schema), sql.SQL(chosen.operator_class)
        ),
        m=sql.Literal(config.hnsw_m),
        ef_construction=sql.Literal(config.hnsw_ef_construction),
    )


def _name(store: Store) -> str:
    chosen = ladder.store_rung(store)
    assert chosen is not None
    return ladder.index_name(store, chosen)


async def drop(
    connection: Connection, store: Store, name: str, *, concurrently: bool = False
) -> None:
    """Drop an index of the store if it is there."""
    await connection.execute(
        sql.SQL(DROP).format(
            concurrently=sql.SQL("CONCURRENTLY" if concurrently else ""), name=store.table(name)
        )
    )


async def cancel_others(connection: Connection, store: Store) -> None:
    """Ask whoever builds an index on the chunks to stop."""
    await connection.execute(CANCEL_BUILDS, (store.chunks.as_string(None),))
