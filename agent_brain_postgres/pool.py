"""Connections: opened with retries, given out by a pool, told apart when they fail."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg import AsyncConnection, AsyncCursor
from psycopg.abc import AdaptContext
from psycopg.adapt import AdaptersMap
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow
from psycopg.sql import Composable
from psycopg_pool import AsyncConnectionPool

from agent_brain_postgres.config import PostgresConfig
from agent_brain_postgres.errors import ConnectionFailed, connection_failed

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)

Connection = AsyncConnection[TupleRow]
R = TypeVar("R")

MAX_BACKOFF = 30.0  # seconds


class LoggedCursor(AsyncCursor[TupleRow]):
    """Log each statement, without its parameters: the setting `debug`."""

    async def execute(self, query: Any, *args: Any, **kwargs: Any) -> Self:
        """Run a statement as any cursor does."""
        text = query.as_string(self) if isinstance(query, Composable) else query
        logger.debug("statement: %s", " ".join(str(text).split()))
        return await super().execute(query, *args, **kwargs)


class _Adapters(AdaptContext):
    """Carry the adapters of one connection to the ones that a pool opens later."""

    def __init__(self, adapters: AdaptersMap) -> None:
        self._adapters = adapters

    @property
    def adapters(self) -> AdaptersMap:
        return self._adapters

    @property
    def connection(self) -> None:
        return None


async def connect(config: PostgresConfig, adapters: AdaptersMap | None = None) -> Connection:
    """Open one autocommit connection, waiting for a server that is still starting.

    Retries `connect_attempts` times with exponential backoff and jitter where waiting can help.
    Raises `ConnectionFailed`, at once where it cannot.
    """
    for attempt in range(1, config.connect_attempts + 1):
        try:
            return await _connect_once(config, adapters)
        except ConnectionFailed as failure:
            if not failure.waiting_helps or attempt == config.connect_attempts:
                raise
            wait = backoff(attempt, config.connect_backoff)
            logger.warning(
                "attempt %d of %d: %s; next in %.1f s",
                attempt,
                config.connect_attempts,
                failure.message,
                wait,
            )
            await asyncio.sleep(wait)
    raise AssertionError("connect_attempts is at least 1")


def backoff(attempt: int, first: float) -> float:
    """Seconds to wait after the n-th failed attempt: doubling, capped, with 50-100 % jitter."""
    return min(MAX_BACKOFF, first * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0)  # noqa: S311


async def _connect_once(config: PostgresConfig, adapters: AdaptersMap | None) -> Connection:
    try:
        return await AsyncConnection.connect(
            config.conninfo(), **_connection_arguments(config, adapters)
        )
    except (psycopg.Error, OSError) as error:
        target = f"{config.host}:{config.port}/{config.database} as {config.user}"
        raise connection_failed(error, target) from error


def _connection_arguments(config: PostgresConfig, adapters: AdaptersMap | None) -> dict[str, Any]:
    # What is copied in is encoded here, whatever PGCLIENTENCODING says.
    arguments: dict[str, Any] = {"autocommit": True, "client_encoding": "UTF8"}
    if config.debug:
        arguments["cursor_factory"] = LoggedCursor
    if adapters is not None:
        arguments["context"] = _Adapters(adapters)
    if config.pgbouncer:
        arguments["prepare_threshold"] = None
    else:
        arguments["options"] = session_options(config)
    return arguments


def session_options(config: PostgresConfig) -> str:
    """Give the start-up options of a connection, behind those that the user's URL has.

    JIT compilation costs more than any search of ours takes.
    """
    own = f"-c jit=off -c statement_timeout={round(config.statement_timeout * 1000)}"
    given = conninfo_to_dict(config.conninfo()).get("options")
    return f"{given} {own}" if given else own


class Pool:
    """The connections of one backend.

    Connections are in autocommit mode, so that a search is one round trip; what writes opens a
    transaction. `adapters` are those of a connection that has registered pgvector's types.
    """

    def __init__(self, config: PostgresConfig, adapters: AdaptersMap) -> None:
        self.config = config
        self._adapters = adapters
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pool: AsyncConnectionPool[Connection] | None = None

    async def open(self) -> None:
        """Open the pool in the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._pool = AsyncConnectionPool(
            self.config.conninfo(),
            kwargs=_connection_arguments(self.config, self._adapters),
            min_size=self.config.pool_size,
            max_size=self.config.pool_max,
            timeout=self.config.pool_timeout,
            open=False,
            name="agent-brain-postgres",
        )
        await self._pool.open(wait=False)

    async def close(self) -> None:
        """Close every connection; harmless when closed, or when its event loop is gone."""
        pool, self._pool = self._pool, None
        if pool is not None and self.belongs_here:
            await pool.close(timeout=5.0)

    @property
    def belongs_here(self) -> bool:
        """Whether the pool was opened in the running event loop."""
        return self._loop is asyncio.get_running_loop()

    def stats(self) -> dict[str, int]:
        """Give psycopg_pool's counters (`pool_size`, `pool_available`, `requests_waiting`, ...)."""
        return self._pool.get_stats() if self._pool is not None else {}

    @asynccontextmanager
    async def connection(self, timeout: float | None = None) -> AsyncIterator[Connection]:
        """Lend a connection; `timeout` (seconds) overrides `pool_timeout`."""
        if self._pool is None:
            raise ConnectionFailed("the backend is closed; call initialize() first")
        async with self._pool.connection(timeout=timeout) as connection:
            yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Lend a connection inside a transaction, committed at the end."""
        async with self.connection() as connection, connection.transaction():
            if self.config.pgbouncer:
                # A pooled server connection cannot keep session state, so it is set here.
                milliseconds = round(self.config.statement_timeout * 1000)
                await connection.execute(
                    "SELECT pg_catalog.set_config('statement_timeout', %s, true)",
                    (str(milliseconds),),
                )
            yield connection

    async def read(self, work: Callable[[Connection], Awaitable[R]]) -> R:
        """Run `work` on a connection, once more when the connection turns out to be dead.

        After a server restart every idle connection of the pool is dead; the first to notice has
        the pool drop them all.
        """
        try:
            async with self.connection() as connection:
                return await work(connection)
        except psycopg.OperationalError as error:
            if not connection_lost(error):
                raise
            logger.warning("connection lost (%s); trying once more", type(error).__name__)
        await self.drop_dead()
        async with self.connection() as connection:
            return await work(connection)

    async def drop_dead(self) -> None:
        """Replace the idle connections that no longer answer."""
        if self._pool is not None:
            await self._pool.check()


def connection_lost(error: psycopg.Error) -> bool:
    """Tell whether the server went away, as opposed to refusing a statement."""
    return error.sqlstate is None or error.sqlstate[:2] == "08" or error.sqlstate[:3] == "57P"
