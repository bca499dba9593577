"""The classes that the core finds under `agent_brain_server.storage.postgres`.

The core reaches past its storage protocol: it resets a `vector_store`, asks a `bm25_manager`
whether it is ready, and its health route runs a statement on an engine. What that takes is here,
so that `PostgresBackend` need not know of it. Imported by the finder, inside the core only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from agent_brain_postgres import backend as native
from agent_brain_postgres.core import identity
from agent_brain_postgres.core.config import PostgresConfig
from agent_brain_postgres.errors import ConnectionFailed, translated
from agent_brain_postgres.pool import Connection

__all__ = [
    "PostgresBackend",
    "PostgresConfig",
    "PostgresConnectionManager",
    "PostgresSchemaManager",
]

identity.adopt()


class PostgresBackend(native.PostgresBackend):
    """The backend with the attributes that the core uses beyond the storage protocol."""

    def __init__(self, config: PostgresConfig) -> None:
        super().__init__(config)
        self.vector_store = VectorStore(self)
        self.bm25_manager = KeywordIndex()
        self.connection_manager = PostgresConnectionManager(self)
        self.schema_manager = PostgresSchemaManager(self)

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[Connection]:
        """Lend a connection of the pool to the core."""
        pool, _ = self._opened()
        async with pool.connection() as connection:
            yield connection


class VectorStore:
    """What the core resets; without it the core would open a Chroma store in `./chroma_db`."""

    def __init__(self, backend: PostgresBackend) -> None:
        self._backend = backend

    @property
    def is_initialized(self) -> bool:
        return self._backend.is_initialized

    async def initialize(self) -> None:
        await self._backend.initialize()

    async def reset(self) -> None:
        """Clear the store: the core's `DELETE /index` ends here and nowhere else."""
        await self._backend.reset()

    async def get_count(self, where: dict[str, Any] | None = None) -> int:
        return await self._backend.get_count(where)


class KeywordIndex:
    """What the core rebuilds after each job: nothing to do, the database keeps it with the rows.

    Without it the core would keep a second copy of every text in `./bm25_index`.
    """

    is_initialized = True
    _index = None  # the core looks here for chunks to rebuild a graph from

    def initialize(self) -> None:
        """Do nothing."""

    def build_index(self, nodes: Any) -> None:
        """Do nothing."""

    def reset(self) -> None:
        """Do nothing: the store's own reset has cleared the words too."""


class PostgresConnectionManager:
    """The pool as the core's health route sees it."""

    def __init__(self, backend: PostgresBackend) -> None:
        self._backend = backend
        self.engine = Engine(backend)

    @property
    def config(self) -> Any:
        return self._backend.config

    async def get_pool_status(self) -> dict[str, Any]:
        """Give the pool's figures; raise when the database does not answer.

        The core reports the error as "unhealthy". Its own test statement cannot: the route
        swallows that one's errors and stays "healthy".
        """
        if not self._backend.is_initialized:
            return {"status": "not_initialized"}
        document = await self._backend.health()
        if document["status"] == "unhealthy":
            raise ConnectionFailed(str(document.get("reason", "the database does not answer")))
        pool = document["pool"]
        overflow = max(0, pool["size"] - pool["min"])
        return {
            "status": "active",
            "pool_size": pool["min"],
            "checked_in": pool["idle"],
            "checked_out": pool["active"],
            "overflow": overflow,
            "total": pool["min"] + overflow,
            "maximum": pool["max"],
            "waiting": pool["waiting"],
        }


class Engine:
    """As much of SQLAlchemy's asynchronous engine as the core's health route uses."""

    def __init__(self, backend: PostgresBackend) -> None:
        self._backend = backend

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[EngineConnection]:
        """Lend a connection that runs statements given as text."""
        async with self._backend.lend() as connection:
            yield EngineConnection(connection)


class EngineConnection:
    """A connection whose `execute` takes whatever has a statement as its `str`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @translated
    async def execute(self, statement: object) -> Rows:
        """Run a statement and fetch its rows."""
        cursor = await self._connection.execute(str(statement).encode())
        return Rows(await cursor.fetchall() if cursor.description else [])


class Rows:
    """Fetched rows, handed out like SQLAlchemy's result."""

    def __init__(self, rows: list[tuple[Any, ...]]) -> None:
        self._rows = iter(rows)

    def fetchone(self) -> tuple[Any, ...] | None:
        return next(self._rows, None)

    def fetchall(self) -> list[tuple[Any, ...]]:
        return list(self._rows)


class PostgresSchemaManager:
    """Knows the length of the stored vectors."""

    def __init__(self, backend: PostgresBackend) -> None:
        self._backend = backend

    @property
    def embedding_dimensions(self) -> int | None:
        return self._backend.embedding_dimensions
