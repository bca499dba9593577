"""The background task that tends a store: builds its index when that is due, keeps figures fresh."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from psycopg_pool import PoolClosed, PoolTimeout

from agent_brain_postgres import build, index_state, ingest, schema
from agent_brain_postgres.batch import Batch
from agent_brain_postgres.config import PostgresConfig
from agent_brain_postgres.errors import PostgresStorageError, translate
from agent_brain_postgres.index_state import IndexState
from agent_brain_postgres.pool import Connection, Pool
from agent_brain_postgres.store import Store

if TYPE_CHECKING:
    from typing_extensions import LiteralString

logger = logging.getLogger(__name__)

ROUND = 60.0  # seconds between looks at a store that nobody here writes to
# A build waits for a pause in the writing: rows that come while it runs go in one by one.
QUIET = 2.0
# Unless exact searches have become too slow to wait for one.
TOO_MANY_ROWS = 1_000_000
# A row costs an index that is there this many times what it costs a new build. So a large batch
# has it dropped, as long as the store can be read exactly meanwhile.
INSERT_COST = 6
MIN_ROWS_TO_DROP, MAX_ROWS_TO_DROP = 2_000, 200_000
WATCH = 0.2  # seconds between looks at another process's build
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 600.0  # seconds after a failed round
EF_SEARCH_KEY = "ef_search"  # in the meta table; `agent-brain-postgres tune --apply` puts it there

# Searches are planned from these statistics; autovacuum would come a minute later.
ANALYZE: LiteralString = "ANALYZE {chunks} (chunk_id, metadata, lexemes)"
ANALYZE_SHARE = 0.1


async def state(connection: Connection, store: Store) -> dict[str, Any]:
    """Give the index's part of the health document: `kind`, `state` and `progress`."""
    found = await index_state.read(connection, store)
    return {"kind": found.kind, "state": found.state, "progress": found.progress}


class Indexer:
    """Tends one store from the event loop that `start` was called in."""

    def __init__(self, config: PostgresConfig, pool: Pool) -> None:
        self._config = config
        self._pool = pool
        self._store: Store | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._wake = asyncio.Event()
        self._round_over = asyncio.Condition()
        self._asked = self._answered = 0  # rounds that waiters want, and that began since
        self._waiting = self._writers = 0
        self._settled = False
        self._indexed = False
        self._failures = 0
        self._failure = ""
        self._last_write = 0.0
        self._unanalyzed = 0

    def start(self, store: Store) -> None:
        """Begin; returns at once."""
        self._store = store
        self._closed = False
        self._wake.set()
        self._task = asyncio.get_running_loop().create_task(self._tend_forever())

    async def stop(self) -> None:
        """Stop, cancelling a build that is under way."""
        self._closed = True
        await self._stop_task()
        async with self._round_over:
            self._round_over.notify_all()

    async def _stop_task(self) -> None:
        task, self._task = self._task, None
        # Before Python 3.12 `asyncio.wait_for` swallows a cancellation that comes together with its
        # result, so once may not be enough.
        while task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=0.5)

    def written(self, store: Store, rows: int) -> None:
        """Take note of rows that were written."""
        self._store = store
        store.estimates.resize(store.estimates.rows + rows)
        self._unanalyzed += rows
        self._last_write = time.monotonic()
        self._settled = False
        self._wake.set()

    def would_drop(self, store: Store, rows: int) -> bool:
        """Tell whether so many new rows are cheaper to index all over than one by one."""
        there = store.estimates.rows
        return (
            self._indexed
            and rows >= MIN_ROWS_TO_DROP
            and there + rows <= MAX_ROWS_TO_DROP
            and rows * INSERT_COST > there + rows
        )

    @asynccontextmanager
    async def writing(self, store: Store, batch: Batch) -> AsyncIterator[int]:
        """Keep builds away while a batch is written, and an index that the batch would outgrow.

        Gives the number of rows to write, or more.
        """
        self._writers += 1
        try:
            changed = len(batch)
            if self.would_drop(store, changed):
                changed = await ingest.count_changed(self._pool, store, batch)
                if self.would_drop(store, changed):
                    await self._drop(store)
            yield changed
        finally:
            self._writers -= 1
            self._last_write = time.monotonic()

    async def _drop(self, store: Store) -> None:
        """Drop the index; a search that holds the table for more than a moment is in the way."""
        self._indexed = self._settled = False
        with contextlib.suppress(psycopg.errors.LockNotAvailable):
            async with self._pool.transaction() as connection:
                await connection.execute(
                    "SELECT pg_catalog.set_config('lock_timeout', '1s', true)"
                )
                await _drop_indexes(connection, store)

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Keep builds away while the store is emptied, and drop its index: it will be due again."""
        await self._stop_task()
        store = self._store
        assert store is not None
        try:
            async with self._pool.connection() as connection:
                await _clear_indexes(connection, store)
            yield
            store.estimates.resize(0)
        finally:
            if not self._closed:
                self.start(store)

    async def wait(self, store: Store, timeout: float | None = None) -> None:
        """Return when no index is being built and searches run on it; `timeout` in seconds."""
        self._store = store
        self._waiting += 1
        try:
            await asyncio.wait_for(self._until_settled(), timeout)
        except (TimeoutError, asyncio.TimeoutError) as error:
            raise PostgresStorageError(f"the index was not ready after {timeout} s") from error
        finally:
            self._waiting -= 1

    async def _until_settled(self) -> None:
        async with self._round_over:
            self._asked += 1
            mine = self._asked
            self._wake.set()
            while self._answered < mine or not self._settled:
                if self._closed:
                    raise PostgresStorageError("the backend was closed while waiting for the index")
                if self._answered >= mine and self._failure:
                    raise PostgresStorageError(f"the index could not be built: {self._failure}")
                await self._round_over.wait()

    async def _tend_forever(self) -> None:
        while True:
            self._wake.clear()
            asked = self._asked
            pause = await self._round()
            async with self._round_over:
                self._answered = asked
                self._round_over.notify_all()
            await self._analyze()
            with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), pause)

    async def _round(self) -> float:
        """Do what is due; the seconds until the next look."""
        assert self._store is not None
        try:
            pause = await self._tend(self._store)
        except psycopg.errors.QueryCanceled:  # somebody resets the store
            return WATCH
        except Exception as error:
            return self._fail(error)
        self._failures, self._failure = 0, ""
        return pause

    def _fail(self, error: Exception) -> float:
        self._settled = False
        self._failures += 1
        self._failure = str(translate(error, "building the index"))
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (self._failures - 1))
        logger.warning("tending the index: %s; next try in %.0f s", self._failure, pause)
        return pause

    async def _tend(self, store: Store) -> float:
        if self._is_busy(store):
            return QUIET
        state = await self._look(store)
        if state.state == "building":
            return WATCH if self._waiting else QUIET
        if state.due:
            built = await build.build(self._config, store)
            return 0.0 if built else WATCH
        self._settled = self._store is store
        self._indexed = state.state == "ready"
        return ROUND

    def _is_busy(self, store: Store) -> bool:
        if self._waiting or store.estimates.rows >= TOO_MANY_ROWS:
            return False
        return self._writers > 0 or time.monotonic() - self._last_write < QUIET

    async def _look(self, store: Store) -> IndexState:
        async with self._pool.connection() as connection:
            state = await index_state.read(connection, store)
            meta = await schema.read_meta(connection, store)
        tuned = meta.get(EF_SEARCH_KEY, "")
        store.estimates.ef_search = self._config.hnsw_ef_search or (
            int(tuned) if tuned.isdecimal() else None
        )
        store.estimates.resize(state.rows)
        return state

    async def _analyze(self) -> None:
        """Refresh the planner's statistics when much has changed; nobody waits for this."""
        store = self._store
        assert store is not None
        if not self._settled or self._unanalyzed <= ANALYZE_SHARE * store.estimates.rows:
            return
        self._unanalyzed = 0
        try:
            async with self._pool.connection() as connection:
                await connection.execute(sql.SQL(ANALYZE).format(chunks=store.chunks))
        except (psycopg.Error, PoolClosed, PoolTimeout) as error:
            logger.debug("statistics were left to autovacuum: %s", type(error).__name__)


async def _clear_indexes(connection: Connection, store: Store) -> None:
    await build.cancel_others(connection, store)
    await _drop_indexes(connection, store)


async def _drop_indexes(connection: Connection, store: Store) -> None:
    for name in (await index_state.read(connection, store)).names:
        await build.drop(connection, store, name)
