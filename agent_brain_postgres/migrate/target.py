"""The backend as a migration needs it: with a look at what is stored already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from psycopg import sql

from agent_brain_postgres.backend import PostgresBackend
from agent_brain_postgres.errors import translated
from agent_brain_postgres.migrate.source import Vector
from agent_brain_postgres.pool import Connection, connect
from agent_brain_postgres.text import sanitize_text

if TYPE_CHECKING:
    from typing_extensions import LiteralString

EXISTS: LiteralString = "SELECT pg_catalog.to_regclass(%s) IS NOT NULL"

COUNT: LiteralString = "SELECT count(*) FROM {chunks}"

PRESENT: LiteralString = "SELECT chunk_id FROM {chunks} WHERE chunk_id = ANY(%s::text[])"

STORED: LiteralString = """
SELECT chunk_id, fingerprint, embedding FROM {chunks} WHERE chunk_id = ANY(%s::text[])
"""


class Target(PostgresBackend):
    """The store that is copied into."""

    @property
    def name(self) -> str:
        """Name the store, without a secret."""
        config = self.config
        if config.embedded_directory is not None:
            return f"embedded PostgreSQL in {config.embedded_directory}, schema {config.db_schema}"
        return f"{config.database} on {config.host}:{config.port}, schema {config.db_schema}"

    @translated
    async def look(self) -> int | None:
        """Count the chunks without creating anything; None when there is no store yet."""
        directory = self.config.embedded_directory
        if directory is not None and not directory.exists():
            return None
        try:
            async with await connect(await self._start_embedded()) as connection:
                return await self._count(connection)
        finally:
            await self.close()

    async def _count(self, connection: Connection) -> int | None:
        table = sql.Identifier(self.config.db_schema, "chunks")
        exists = await connection.execute(EXISTS, (table.as_string(connection),))
        if (await exists.fetchone()) == (False,):
            return None
        counted = await connection.execute(sql.SQL(COUNT).format(chunks=table))
        row = await counted.fetchone()
        return int(row[0]) if row else 0

    @translated
    async def present(self, ids: Sequence[str]) -> set[str]:
        """Give those of the ids that are stored."""
        rows = await self._rows(PRESENT, ids)
        stored = {str(row[0]) for row in rows}
        return {chunk_id for chunk_id in ids if sanitize_text(chunk_id) in stored}

    @translated
    async def stored(self, ids: Sequence[str]) -> dict[str, tuple[bytes, Vector]]:
        """Give the fingerprint and the vector of each stored chunk."""
        rows = await self._rows(STORED, ids)
        return {row[0]: (bytes(row[1]), _as_array(row[2])) for row in rows}

    @property
    def is_half(self) -> bool:
        """Whether vectors are stored in half precision."""
        _, store = self._opened()
        return store.column == "halfvec"

    async def _rows(self, statement: LiteralString, ids: Sequence[str]) -> list[tuple[Any, ...]]:
        pool, store = self._opened()
        composed = sql.SQL(statement).format(chunks=store.chunks)
        cleaned = [sanitize_text(chunk_id) for chunk_id in ids]

        async def work(connection: Connection) -> list[tuple[Any, ...]]:
            return await (await connection.execute(composed, (cleaned,))).fetchall()

        return await pool.read(work)


def _as_array(value: Any) -> Vector:
    # pgvector 0.4 and later give objects of their own, earlier versions arrays.
    return np.asarray(value.to_list() if hasattr(value, "to_list") else value, dtype=np.float32)
