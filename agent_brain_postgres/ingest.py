"""Writing chunks: compared by fingerprint, analysed in the client, copied in; all or nothing."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg import sql

from agent_brain_postgres import pending, statistics, write_lock
from agent_brain_postgres.batch import Batch
from agent_brain_postgres.chunk_copy import ChunkCopy
from agent_brain_postgres.filters import Filter
from agent_brain_postgres.lexemes import Vocabulary
from agent_brain_postgres.pool import Connection, Pool, connection_lost
from agent_brain_postgres.store import Store

if TYPE_CHECKING:
    from typing_extensions import LiteralString

logger = logging.getLogger(__name__)

R = TypeVar("R")

ATTEMPTS = 5  # of a transaction that collided with another

COLLISIONS = (
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
    psycopg.errors.UniqueViolation,  # another process wrote the same new id first
)

# Rows of the batch that the store has, and whether in exactly this form.
KNOWN: LiteralString = """
SELECT given.chunk_id, chunk.fingerprint = given.fingerprint
FROM unnest(%b::text[], %b::bytea[]) AS given (chunk_id, fingerprint)
JOIN {chunks} AS chunk ON chunk.chunk_id = given.chunk_id
"""

# Removes rows, locked in the order of their ids so that concurrent writers never wait in a
# circle, and takes them out of the corpus statistics.
DELETE: LiteralString = """
WITH doomed AS MATERIALIZED (
    SELECT chunk_id FROM {chunks}
    WHERE {condition}
    ORDER BY chunk_id COLLATE "C"
    FOR UPDATE
), gone AS (
    DELETE FROM {chunks} AS chunk USING doomed
    WHERE chunk.chunk_id = doomed.chunk_id
    RETURNING chunk.lexemes, chunk.length
), counted AS (
    INSERT INTO {lexeme_statistics} (lexeme, chunks, occurrences)
    SELECT word.lexeme, -count(*), -sum(pg_catalog.cardinality(word.positions))
    FROM gone, LATERAL pg_catalog.unnest(gone.lexemes) AS word
    GROUP BY word.lexeme
    UNION ALL
    SELECT '', -count(*), -sum(length) FROM gone HAVING count(*) > 0
)
SELECT count(*) FROM gone
"""

def _named(statement: LiteralString, store: Store, **more: sql.Composable) -> sql.Composed:
    return sql.SQL(statement).format(
        chunks=store.chunks, lexeme_statistics=store.lexeme_statistics, **more
    )


async def count_changed(pool: Pool, store: Store, batch: Batch) -> int:
    """Count the rows of a batch that differ from what is there."""
    known = await pool.read(lambda connection: _known(connection, store, batch))
    return len(batch) - sum(known.values())


async def upsert(pool: Pool, store: Store, vocabulary: Vocabulary, batch: Batch) -> int:
    """Store the rows of a batch that differ from what is there; the number written.

    One transaction: either every row is written or none.
    """

    async def work(connection: Connection) -> int:
        known = await _known(connection, store, batch)
        changed = batch.only([i for i, one in enumerate(batch.ids) if not known.get(one)])
        outdated = [one for one in changed.ids if one in known]
        if outdated:
            await _delete_ids(connection, store, outdated)
        if changed.ids:
            await ChunkCopy(pool, connection, store, vocabulary, changed).run()
        return len(changed)

    written = await _repeat(pool, store, work)
    if written:
        await _tidy(pool, store)
    return written


async def _known(connection: Connection, store: Store, batch: Batch) -> dict[str, bool]:
    """Give the ids that the store has, and whether it has the very same row."""
    cursor = await connection.execute(
        _named(KNOWN, store), (batch.ids, batch.fingerprints), binary=True
    )
    return dict(await cursor.fetchall())


async def _tidy(pool: Pool, store: Store) -> None:
    """Leave what searches read in good order; best effort, since no result depends on it."""
    try:
        async with pool.connection() as connection:
            await statistics.compact(connection, store)
            await pending.merge(connection, store)
    except psycopg.Error as error:
        logger.debug("tidying was left to the next batch: %s", type(error).__name__)


async def _delete_ids(connection: Connection, store: Store, ids: list[str]) -> int:
    condition = sql.SQL("chunk_id = ANY (%(ids)s::text[])")
    return await _delete(connection, store, condition, {"ids": ids})


async def _delete(
    connection: Connection, store: Store, condition: sql.Composable, parameters: dict[str, Any]
) -> int:
    cursor = await connection.execute(_named(DELETE, store, condition=condition), parameters)
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def delete_ids(pool: Pool, store: Store, ids: list[str]) -> int:
    """Delete chunks by id; the number that existed."""
    deleted = await _repeat(pool, store, lambda connection: _delete_ids(connection, store, ids))
    await _tidy(pool, store)
    return deleted


async def delete_where(pool: Pool, store: Store, where: Filter) -> int:
    """Delete the chunks that a filter matches; their number."""
    deleted = await _repeat(
        pool, store, lambda connection: _delete(connection, store, where.sql, dict(where.params))
    )
    await _tidy(pool, store)
    return deleted


async def _repeat(
    pool: Pool, store: Store, work: Callable[[Connection], Awaitable[R]]
) -> R:
    """Run `work` in a transaction, again when it collided or its connection was dead.

    Every write here can be repeated: it leaves the same rows, however often it runs. Collisions are
    with programs that do not wait their turn.
    """
    for attempt in range(1, ATTEMPTS):
        try:
            return await _in_turn(pool, store, work)
        except COLLISIONS as error:
            logger.info("attempt %d collided (SQLSTATE %s); repeating", attempt, error.sqlstate)
        except psycopg.OperationalError as error:
            if not connection_lost(error) or attempt > 1:
                raise
            logger.warning("connection lost (%s); repeating", type(error).__name__)
            await pool.drop_dead()
    return await _in_turn(pool, store, work)


async def _in_turn(
    pool: Pool, store: Store, work: Callable[[Connection], Awaitable[R]]
) -> R:
    async with pool.transaction() as connection:
        await write_lock.take(connection, store, pool.config.statement_timeout)
        return await work(connection)
