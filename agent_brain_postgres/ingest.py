"""Writing chunks: compared by fingerprint, analysed in the client, copied in; all or nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import psycopg
from psycopg import sql

from agent_brain_postgres import copy_format, statistics
from agent_brain_postgres.batch import BLOCK_BYTES, Batch
from agent_brain_postgres.filters import Filter
from agent_brain_postgres.lexemes import Analysed, Counted, Counts, Reading, Vocabulary
from agent_brain_postgres.numbers import Texts
from agent_brain_postgres.pool import Connection, Pool, connection_lost
from agent_brain_postgres.store import Store

if TYPE_CHECKING:
    from typing_extensions import LiteralString

logger = logging.getLogger(__name__)

R = TypeVar("R")

AHEAD = 3  # blocks that wait to be stored: what bounds the memory of a batch

ATTEMPTS = 5  # of a transaction that collided with another

COLLISIONS = (
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
    psycopg.errors.UniqueViolation,  # another process wrote the same new id first
)

# Rows of the batch that the store has, and whether in exactly this form.
KNOWN: LiteralString = """
SELECT given.chunk_id, chunk.fingerprint = given.fingerprint
FROM unnest(%s::text[], %s::bytea[]) AS given (chunk_id, fingerprint)
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

COPY_CHUNKS: LiteralString = """
COPY {chunks} (chunk_id, document, metadata, embedding, lexemes, length, fingerprint)
FROM STDIN (FORMAT binary)
"""

COPY_STATISTICS: LiteralString = """
COPY {lexeme_statistics} (lexeme, chunks, occurrences) FROM STDIN (FORMAT binary)
"""

# Searches would scan the pending entries one by one until autovacuum merges them.
MERGE_PENDING: LiteralString = "SELECT pg_catalog.gin_clean_pending_list(%s::pg_catalog.regclass)"


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

    One transaction: either every row is written or none. A transaction that collides with another
    (deadlock, or the same new id) is repeated.
    """

    async def work(connection: Connection) -> int:
        known = await _known(connection, store, batch)
        changed = batch.only([i for i, one in enumerate(batch.ids) if not known.get(one)])
        outdated = [one for one in changed.ids if one in known]
        if outdated:
            await _delete_ids(connection, store, outdated)
        if changed.ids:
            await _copy(connection, store, vocabulary, changed)
        return len(changed)

    written = await _repeat(pool, work)
    if written:
        await _tidy(pool, store)
    return written


async def _known(connection: Connection, store: Store, batch: Batch) -> dict[str, bool]:
    """Give the ids that the store has, and whether it has the very same row."""
    cursor = await connection.execute(
        _named(KNOWN, store), (batch.ids, batch.fingerprints), binary=True
    )
    return dict(await cursor.fetchall())


async def _copy(
    connection: Connection, store: Store, vocabulary: Vocabulary, batch: Batch
) -> None:
    """Copy the chunks in, block by block.

    Both sides work all the time: the client reads a block and puts the one before together, while
    the server says what the new words are, which the client waits for, or else stores.
    """
    _let_the_kernel_hold_a_block(connection)
    jobs: asyncio.PriorityQueue[_Job] = asyncio.PriorityQueue()
    await _together(_prepare(store, vocabulary, batch, jobs), _serve(connection, jobs))


def _let_the_kernel_hold_a_block(connection: Connection) -> None:
    """Widen a Unix socket, so that the server reads on while the interpreter is busy elsewhere.

    TCP widens by itself, and would stop doing so.
    """
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as sender:
        if sender.family == getattr(socket, "AF_UNIX", None):
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BLOCK_BYTES)


@dataclass(frozen=True, slots=True, order=True)
class _Job:
    """Something to ask of the server; the lowest kind goes first, then the lowest number."""

    kind: int
    number: int
    work: Callable[[Connection], Awaitable[None]] = field(compare=False)


_WORDS, _ROWS, _END = range(3)


@dataclass(frozen=True, slots=True)
class _Block:
    """Rows that were read; the event is set when the server has said what their words are."""

    rows: range
    reading: Reading
    learnt: asyncio.Event


async def _prepare(
    store: Store, vocabulary: Vocabulary, batch: Batch, jobs: asyncio.PriorityQueue[_Job]
) -> None:
    room = asyncio.Semaphore(AHEAD)
    counts = Counts()
    before: _Block | None = None
    number = 0
    for number, rows in enumerate([*batch.blocks(), None]):
        block = None
        if rows is not None:
            reading = await asyncio.to_thread(_read, vocabulary, batch, rows)
            block = _Block(rows, reading, asyncio.Event())
            jobs.put_nowait(_Job(_WORDS, number, partial(_learn, vocabulary, block)))
        if before is not None:
            await before.learnt.wait()
            await room.acquire()
            encode = partial(_encode_block, store, vocabulary, batch, before, counts)
            data = await asyncio.to_thread(encode)
            copy = partial(_copy_bytes, statement=_named(COPY_CHUNKS, store), data=data, room=room)
            jobs.put_nowait(_Job(_ROWS, number, copy))
        before = block
    data = await asyncio.to_thread(_encode_statistics, counts)
    copy = partial(_copy_bytes, statement=_named(COPY_STATISTICS, store), data=data, room=room)
    jobs.put_nowait(_Job(_ROWS, number + 1, copy))
    jobs.put_nowait(_Job(_END, 0, copy))


async def _serve(connection: Connection, jobs: asyncio.PriorityQueue[_Job]) -> None:
    while (job := await jobs.get()).kind != _END:
        await job.work(connection)


async def _learn(vocabulary: Vocabulary, block: _Block, connection: Connection) -> None:
    await vocabulary.learn(connection, block.reading)
    block.learnt.set()


async def _together(*work: Coroutine[Any, Any, None]) -> None:
    """Run coroutines side by side until all are done or one fails; none outlives this."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def _read(vocabulary: Vocabulary, batch: Batch, block: range) -> Reading:
    part = slice(block.start, block.stop)
    return vocabulary.read(batch.documents[part], batch.metadatas[part])


def _encode_block(
    store: Store, vocabulary: Vocabulary, batch: Batch, block: _Block, counts: Counts
) -> bytes:
    analysed = vocabulary.build(block.reading)
    counts.add(analysed)
    return b"".join(_encode_chunks(store, batch, block.rows, analysed))


def _encode_chunks(
    store: Store, batch: Batch, block: range, analysed: list[Analysed]
) -> list[bytes]:
    vectors = copy_format.vectors(batch.matrix(block), half=store.column == "halfvec")
    rows = [
        copy_format.copy_row(
            (
                batch.ids[i].encode(),
                batch.documents[i].encode(),
                copy_format.jsonb(batch.json[i]),
                vector,
                chunk.tsvector,
                copy_format.int4(chunk.length),
                batch.fingerprints[i],
            )
        )
        for i, vector, chunk in zip(block, vectors, analysed, strict=True)
    ]
    return [copy_format.HEADER, *rows, copy_format.TRAILER]


def _encode_statistics(counts: Counts) -> bytes:
    totals = Texts()
    totals.extend([""])
    whole = Counted(totals, *(np.array([n]) for n in (0, counts.chunks, counts.length)))
    rows = [
        copy_format.texts_and_numbers(part.names, part.lexemes, part.chunks, part.occurrences)
        for part in (whole, *counts.by_table())
    ]
    return b"".join([copy_format.HEADER, *rows, copy_format.TRAILER])


async def _copy_bytes(
    connection: Connection, *, statement: sql.Composed, data: bytes, room: asyncio.Semaphore
) -> None:
    async with connection.cursor() as cursor, cursor.copy(statement) as copy:
        await copy.write(data)
    room.release()


async def _tidy(pool: Pool, store: Store) -> None:
    """Leave what searches read in good order; best effort, since no result depends on it."""
    try:
        async with pool.connection() as connection:
            await statistics.compact(connection, store)
            for index in ("chunks_lexemes", "chunks_metadata"):  # only their owner may
                await connection.execute(MERGE_PENDING, (store.table(index).as_string(None),))
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
    deleted = await _repeat(pool, lambda connection: _delete_ids(connection, store, ids))
    await _tidy(pool, store)
    return deleted


async def delete_where(pool: Pool, store: Store, where: Filter) -> int:
    """Delete the chunks that a filter matches; their number."""
    deleted = await _repeat(
        pool, lambda connection: _delete(connection, store, where.sql, dict(where.params))
    )
    await _tidy(pool, store)
    return deleted


async def _repeat(pool: Pool, work: Callable[[Connection], Awaitable[R]]) -> R:
    """Run `work` in a transaction, again when it collided or its connection was dead.

    Every write here can be repeated: it leaves the same rows, however often it runs.
    """
    for attempt in range(1, ATTEMPTS):
        try:
            async with pool.transaction() as connection:
                return await work(connection)
        except COLLISIONS as error:
            logger.info("attempt %d collided (SQLSTATE %s); repeating", attempt, error.sqlstate)
        except psycopg.OperationalError as error:
            if not connection_lost(error) or attempt > 1:
                raise
            logger.warning("connection lost (%s); repeating", type(error).__name__)
            await pool.drop_dead()
    async with pool.transaction() as connection:
        return await work(connection)
