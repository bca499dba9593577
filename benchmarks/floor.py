"""The hand-written floor: what a careful programmer writes in an afternoon, and no more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pgvector.psycopg import register_vector_async
from psycopg import AsyncConnection, sql
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool

if TYPE_CHECKING:
    from typing_extensions import LiteralString
    from workload import Workload

MAX_INDEXED = 2_000

TABLES: tuple[LiteralString, ...] = (
    "CREATE EXTENSION IF NOT EXISTS vector",
    """CREATE TABLE chunks (
        chunk_id text PRIMARY KEY, document text, metadata jsonb, embedding vector({dimensions}),
        lexemes tsvector)""",
    "CREATE INDEX ON chunks USING gin (lexemes)",
    "CREATE INDEX ON chunks USING gin (metadata jsonb_path_ops)",
)

MERGE: LiteralString = """
INSERT INTO chunks
SELECT chunk_id, document, metadata, embedding, to_tsvector('english', document) FROM staging
ON CONFLICT (chunk_id) DO UPDATE SET
    document = excluded.document, metadata = excluded.metadata,
    embedding = excluded.embedding, lexemes = excluded.lexemes
"""

SEARCH: LiteralString = """
SELECT chunk_id, document, metadata, 1 - (embedding <=> %(q)s) FROM chunks
ORDER BY {order} LIMIT %(k)s
"""

EXACT: LiteralString = """
SELECT chunk_id, document, metadata, 1 - (embedding <=> %(q)s) FROM chunks
WHERE metadata @> %(where)s ORDER BY (embedding <=> %(q)s) + 0 LIMIT %(k)s
"""

ITERATIVE: LiteralString = """
SELECT chunk_id, document, metadata, 1 - (embedding <=> %(q)s) FROM chunks
WHERE metadata @> %(where)s ORDER BY {order} LIMIT %(k)s
"""


class Floor:
    """COPY into a staging table, one INSERT ... SELECT, one index at the end, prepared statements.

    For filters there are three ways, each its own contender: read what matches, scan on, or scan
    on with an `ef_search` that gives a recall above 0.98.
    """

    def __init__(self, way: Literal["plain", "exact", "iterative", "accurate"] = "plain") -> None:
        self.way = way

    async def start(self, dsn: str, work: Workload) -> None:
        self.work = work
        self.dimensions = work.vectors.shape[1]
        if self.way == "plain":
            async with await AsyncConnection.connect(dsn, autocommit=True) as connection:
                for statement in TABLES:
                    await connection.execute(
                        sql.SQL(statement).format(dimensions=sql.Literal(self.dimensions))
                    )
        self.pool = AsyncConnectionPool(
            dsn, min_size=4, max_size=32, open=False, configure=self._configure,
            kwargs={"autocommit": True},
        )
        await self.pool.open(wait=True)

    async def _configure(self, connection: AsyncConnection[Any]) -> None:
        await register_vector_async(connection)
        connection.prepare_threshold = 0
        if self.way in ("iterative", "accurate"):
            await connection.execute("SET hnsw.iterative_scan = relaxed_order")
            if self.way == "accurate":
                await connection.execute("SET hnsw.ef_search = 400")
        elif self.way == "exact":
            await connection.execute("SET jit = off")

    async def add(self, start: int, stop: int) -> None:
        work = self.work
        async with self.pool.connection() as connection, connection.transaction():
            await connection.execute(
                "CREATE TEMP TABLE staging (LIKE chunks) ON COMMIT DROP"
            )
            async with connection.cursor() as cursor, cursor.copy(
                "COPY staging (chunk_id, document, metadata, embedding)"
                " FROM STDIN (FORMAT binary)"
            ) as copy:
                copy.set_types(["text", "text", "jsonb", "vector"])
                for i in range(start, stop):
                    await copy.write_row(
                        (work.ids[i], work.documents[i], Jsonb(work.metadatas[i]), work.vectors[i])
                    )
            await connection.execute(MERGE)

    async def ready(self) -> None:
        async with self.pool.connection() as connection:
            await connection.execute("SET maintenance_work_mem = '1GB'")
            if self.dimensions <= MAX_INDEXED:
                await connection.execute(
                    "CREATE INDEX ON chunks USING hnsw (embedding vector_cosine_ops)"
                )
            elif self.dimensions <= 2 * MAX_INDEXED:
                await connection.execute(
                    sql.SQL("CREATE INDEX ON chunks USING hnsw"
                            " ((embedding::halfvec({})) halfvec_cosine_ops)"
                    ).format(sql.Literal(self.dimensions))
                )
            await connection.execute("RESET maintenance_work_mem")
            await connection.execute("ANALYZE chunks")

    def _order(self) -> sql.Composed:
        half = MAX_INDEXED < self.dimensions <= 2 * MAX_INDEXED
        cast: LiteralString = "::halfvec({})" if half else ""
        return sql.SQL("embedding" + cast + " <=> %(q)s" + cast).format(
            *[sql.Literal(self.dimensions)] * (2 if half else 0)
        )

    async def search(self, query: int, k: int, where: dict[str, Any] | None) -> list[str]:
        statements: dict[str, LiteralString] = {
            "exact": EXACT, "iterative": ITERATIVE, "accurate": ITERATIVE,
        }
        template = SEARCH if where is None else statements.get(self.way, EXACT)
        statement = sql.SQL(template).format(order=self._order())
        values: dict[str, Any] = {"q": np.asarray(self.work.queries[query]), "k": k}
        if where is not None:
            values["where"] = Jsonb(where)
        async with self.pool.connection() as connection:
            cursor = await connection.execute(statement, values)
            return [row[0] for row in await cursor.fetchall()]
