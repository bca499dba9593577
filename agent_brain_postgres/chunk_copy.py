"""Copying a batch of chunks in, block by block, with the client and the server always at work."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
from psycopg import sql

from agent_brain_postgres import copy_format, pending
from agent_brain_postgres.batch import BLOCK_BYTES, BLOCK_ROWS, Batch
from agent_brain_postgres.lexemes import Analysed, Counted, Counts, Reading, Vocabulary
from agent_brain_postgres.pool import Connection, Pool
from agent_brain_postgres.slices import Slices
from agent_brain_postgres.store import Store

if TYPE_CHECKING:
    from typing_extensions import LiteralString

SPARE_TIMEOUT = 0.1  # seconds

AHEAD = 3  # blocks that wait to be stored: what bounds the memory of a batch

COPY_CHUNKS: LiteralString = """
COPY {table} (chunk_id, document, metadata, embedding, lexemes, length, fingerprint)
FROM STDIN (FORMAT binary)
"""

COPY_STATISTICS: LiteralString = """
COPY {table} (lexeme, chunks, occurrences) FROM STDIN (FORMAT binary)
"""


@dataclass(frozen=True, slots=True, order=True)
class _Job:
    """Something to ask of the server, or the end; the lowest kind goes first, then the number."""

    kind: int
    number: int
    work: Callable[[], Awaitable[None]] | None = field(compare=False)


_WORDS, _ROWS, _END = range(3)


@dataclass(frozen=True, slots=True)
class _Block:
    """Rows that were read; the event is set when the server has said what their words are."""

    rows: range
    reading: Reading
    learnt: asyncio.Event


class ChunkCopy:
    """One batch on its way into the tables, on a connection that is in a transaction.

    The client reads a block and puts the one before together; meanwhile the server says what the
    new words are, which the client waits for, or else stores.
    """

    def __init__(
        self, pool: Pool, connection: Connection, store: Store, vocabulary: Vocabulary, batch: Batch
    ) -> None:
        self._pool, self._connection, self._store = pool, connection, store
        self._vocabulary, self._batch = vocabulary, batch
        self._jobs: asyncio.PriorityQueue[_Job] = asyncio.PriorityQueue()
        self._asked = 0
        self._room = asyncio.Semaphore(AHEAD)
        self._stored = asyncio.Event()
        self._over = False
        self._counts = Counts()

    async def run(self) -> None:
        """Copy the chunks in, and what they add to the corpus statistics."""
        _let_the_kernel_hold_a_block(self._connection)
        await _together(self._prepare(), self._serve(), self._merge())

    async def _prepare(self) -> None:
        before: _Block | None = None
        for rows in self._batch.blocks():
            block = await self._read(rows)
            if before is not None:
                await self._put_together(before)
            before = block
        if before is not None:
            await self._put_together(before)
        data = await asyncio.to_thread(_encode_statistics, self._counts)
        self._ask(_ROWS, partial(self._copy, COPY_STATISTICS, self._store.lexeme_statistics, data))
        self._ask(_END, None)

    async def _serve(self) -> None:
        while work := (await self._jobs.get()).work:
            await work()
        self._over = True
        self._stored.set()

    async def _merge(self) -> None:
        """Merge what was stored into the indexes on a second connection, if there is one to spare.

        Otherwise the first one does it while it stores, whenever there is too much. A small batch
        does not need it, and behind PgBouncer the second might wait for the first to end.
        """
        idle = self._pool.stats().get("pool_available", 0)
        if not idle or len(self._batch) <= BLOCK_ROWS or self._pool.config.pgbouncer:
            return
        with contextlib.suppress(psycopg.Error):
            async with self._pool.connection(timeout=SPARE_TIMEOUT) as spare:
                while not self._over:
                    await self._stored.wait()
                    self._stored.clear()
                    await pending.merge(spare, self._store)

    def _ask(self, kind: int, work: Callable[[], Awaitable[None]] | None) -> None:
        self._asked += 1
        self._jobs.put_nowait(_Job(kind, self._asked, work))

    async def _read(self, rows: range) -> _Block:
        part = slice(rows.start, rows.stop)
        documents, metadatas = self._batch.documents[part], self._batch.metadatas[part]
        reading = await asyncio.to_thread(self._vocabulary.read, documents, metadatas)
        block = _Block(rows, reading, asyncio.Event())
        self._ask(_WORDS, partial(self._learn, block))
        return block

    async def _learn(self, block: _Block) -> None:
        await self._vocabulary.learn(self._connection, block.reading)
        block.learnt.set()

    async def _put_together(self, block: _Block) -> None:
        await block.learnt.wait()
        await self._room.acquire()
        data = await asyncio.to_thread(self._encode, block)
        self._ask(_ROWS, partial(self._copy, COPY_CHUNKS, self._store.chunks, data))

    def _encode(self, block: _Block) -> bytes:
        analysed = self._vocabulary.build(block.reading)
        self._counts.add(analysed)
        return _encode_chunks(self._store, self._batch, block.rows, analysed)

    async def _copy(self, statement: LiteralString, table: sql.Identifier, data: bytes) -> None:
        command = sql.SQL(statement).format(table=table)
        async with self._connection.cursor() as cursor, cursor.copy(command) as copy:
            await copy.write(data)
        self._room.release()
        self._stored.set()


def _let_the_kernel_hold_a_block(connection: Connection) -> None:
    """Widen a Unix socket, so that the server reads on while the interpreter is busy elsewhere.

    TCP widens by itself, and would stop doing so.
    """
    family = getattr(socket, "AF_UNIX", None)
    if family is None:
        return
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as sender:
        if sender.family == family:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BLOCK_BYTES)


async def _together(*work: Coroutine[Any, Any, None]) -> None:
    """Run coroutines side by side until all are done or one fails; none outlives this."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def _encode_chunks(
    store: Store, batch: Batch, rows: range, analysed: Sequence[Analysed]
) -> bytes:
    vectors = copy_format.vectors(batch.matrix(rows), half=store.column == "halfvec")
    encoded = [
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
        for i, vector, chunk in zip(rows, vectors, analysed, strict=True)
    ]
    return b"".join([copy_format.HEADER, *encoded, copy_format.TRAILER])


def _encode_statistics(counts: Counts) -> bytes:
    totals = (np.array([number]) for number in (counts.chunks, counts.length))
    whole = Counted(Slices.of([""]), *totals)
    rows = [
        copy_format.texts_and_numbers(part.lexemes, part.chunks, part.occurrences)
        for part in (whole, *counts.by_table())
    ]
    return b"".join([copy_format.HEADER, *rows, copy_format.TRAILER])
