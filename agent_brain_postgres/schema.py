"""The tables: created once, by whichever process comes first, and checked at every start."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from psycopg import sql

from agent_brain_postgres.config import PostgresConfig
from agent_brain_postgres.errors import SchemaMismatch
from agent_brain_postgres.pool import Connection
from agent_brain_postgres.server import LOCK, Server, resolve_language
from agent_brain_postgres.store import Column, Store

if TYPE_CHECKING:
    from typing_extensions import LiteralString

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
TABLES_EXIST: LiteralString = """
SELECT count(*) FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = ANY (ARRAY['meta', 'chunks'])
"""

READ_META: LiteralString = "SELECT key, value FROM {meta}"

WRITE_META: LiteralString = "INSERT INTO {meta} (key, value) VALUES (%s, %s)"

DELETE_META: LiteralString = "DELETE FROM {meta} WHERE key = %s"

EMBEDDING_COLUMN: LiteralString = """
SELECT t.typname, a.atttypmod
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
WHERE n.nspname = %s AND c.relname = 'chunks' AND a.attname = 'embedding'
"""

# What a search reads of every candidate (metadata, lexemes, small vectors) stays in the row; the
# text, which only the winners need, moves out of it.
CREATE_TABLES: tuple[LiteralString, ...] = (
    "CREATE TABLE {meta} (key text NOT NULL, value text NOT NULL)",
    """
    CREATE TABLE {embedding_metadata} (
        provider text NOT NULL, model text NOT NULL, dimensions integer NOT NULL)
    """,
    """
    CREATE TABLE {chunks} (
        chunk_id text PRIMARY KEY,
        document text NOT NULL,
        metadata jsonb NOT NULL,
        embedding {embedding_type} NOT NULL,
        lexemes tsvector NOT NULL,
        length integer NOT NULL,
        fingerprint bytea NOT NULL)
    """,
    "ALTER TABLE {chunks} SET (toast_tuple_target = 4080)",
    "ALTER TABLE {chunks} ALTER COLUMN metadata SET STORAGE MAIN",
    "ALTER TABLE {chunks} ALTER COLUMN lexemes SET STORAGE MAIN",
    "CREATE INDEX chunks_lexemes ON {chunks} USING gin (lexemes)",
    "CREATE INDEX chunks_metadata ON {chunks} USING gin (metadata pg_catalog.jsonb_path_ops)",
    """
    CREATE TABLE {lexeme_statistics} (
        lexeme text COLLATE "C" NOT NULL,
        chunks bigint NOT NULL,
        occurrences bigint NOT NULL)
    """,
    """
    CREATE INDEX lexeme_statistics_lexeme ON {lexeme_statistics} (lexeme)
        INCLUDE (chunks, occurrences)
    """,
)

ANY_CHUNK: LiteralString = "SELECT 1 FROM {chunks} LIMIT 1"

LOCK_CHUNKS: LiteralString = "LOCK TABLE {chunks} IN ACCESS EXCLUSIVE MODE"

VECTOR_INDEXES: LiteralString = """
SELECT i.relname FROM pg_catalog.pg_index x
JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
JOIN pg_catalog.pg_am a ON a.oid = i.relam
WHERE x.indrelid = pg_catalog.to_regclass(%s) AND a.amname = 'hnsw'
"""

SET_DIMENSIONS: LiteralString = """
ALTER TABLE {chunks} ALTER COLUMN embedding TYPE {embedding_type}
"""

# A vector stays in its row, where an exact search reads it ten times faster, as long as it fits a
# page with the rest.
INLINE_DIMENSIONS: dict[Column, int] = {"vector": 1_900, "halfvec": 3_800}

LZ4: LiteralString = """
SELECT 1 FROM pg_catalog.pg_settings
WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals)
"""

SET_LZ4: LiteralString = "ALTER TABLE {chunks} ALTER COLUMN document SET COMPRESSION lz4"

SET_INLINE: LiteralString = "ALTER TABLE {chunks} ALTER COLUMN embedding SET STORAGE MAIN"

CLEAR: tuple[LiteralString, ...] = (
    "TRUNCATE {chunks}, {lexeme_statistics}, {embedding_metadata}",
)


async def open_store(
    connection: Connection,
    server: Server,
    config: PostgresConfig,
    demanded: int | None,
    suggested: int | None = None,
) -> Store:
    """Create the tables where they are missing, and check the ones that are there.

    `demanded` are the dimensions that the host or a setting states: any other column is refused.
    `suggested` ones, of the core's embedding provider, may change a store without chunks. With
    neither, the table's own hold. Raises `SchemaMismatch` when schema version or dimensions
    differ; no chunk is ever dropped.
    """
    dimensions = demanded or suggested
    language = await resolve_language(connection, config)
    wanted = Store(
        schema=config.db_schema,
        dimensions=dimensions,
        metric=config.metric,
        language=language,
        column=config.embedding_type,
        extension_schema=server.extension_schema,
        pgvector=server.pgvector,
        server_version=server.version,
    )
    if not await _exists(connection, wanted):
        await _create(connection, wanted)
    return await _check(connection, wanted, demanded)


async def _exists(connection: Connection, store: Store) -> bool:
    row = await (await connection.execute(TABLES_EXIST, (store.schema,))).fetchone()
    return row is not None and row[0] == 2


async def _create(connection: Connection, store: Store) -> None:
    async with connection.transaction():
        await connection.execute(LOCK, (store.schema,))
        if await _exists(connection, store):
            return
        if not await _schema_exists(connection, store.schema):
            await connection.execute(
                sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(store.schema))
            )
        for statement in CREATE_TABLES:
            await connection.execute(_named(statement, store))
        await _keep_inline(connection, store)
        if await (await connection.execute(LZ4)).fetchone() is not None:
            await connection.execute(_named(SET_LZ4, store))
        for key, value in (("schema_version", str(SCHEMA_VERSION)), ("language", store.language)):
            await connection.execute(_named(WRITE_META, store), (key, value))
    logger.info("created the tables of schema %s", store.schema)


async def _schema_exists(connection: Connection, schema: str) -> bool:
    cursor = await connection.execute(
        "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = %s", (schema,)
    )
    return await cursor.fetchone() is not None


async def _keep_inline(connection: Connection, store: Store) -> None:
    if store.dimensions is not None and store.dimensions <= INLINE_DIMENSIONS[store.column]:
        await connection.execute(_named(SET_INLINE, store))


def _named(statement: LiteralString, store: Store) -> sql.Composed:
    return sql.SQL(statement).format(
        chunks=store.chunks,
        meta=store.table("meta"),
        embedding_metadata=store.table("embedding_metadata"),
        lexeme_statistics=store.lexeme_statistics,
        embedding_type=embedding_type(store),
    )


def embedding_type(store: Store) -> sql.Composed:
    """Name the type of the embedding column, with its dimensions once they are known."""
    name = store.vector_type(store.column)
    if store.dimensions is None:
        return name
    return sql.SQL("{}({})").format(name, sql.Literal(store.dimensions))


async def _check(connection: Connection, store: Store, demanded: int | None) -> Store:
    meta = await read_meta(connection, store)
    found = meta.get("schema_version")
    if found != str(SCHEMA_VERSION):
        raise SchemaMismatch(
            f"the tables in schema {store.schema!r} have version {found}, this package needs "
            f"{SCHEMA_VERSION}: keep them and set another db_schema, or drop them with DROP "
            f'SCHEMA "{store.schema}" CASCADE and index again'
        )
    column, dimensions = await read_column(connection, store)
    if demanded is not None and dimensions not in (None, demanded):
        raise dimensions_differ(store, dimensions)
    if store.dimensions not in (None, dimensions):
        assert store.dimensions is not None
        store = await set_dimensions(connection, store, store.dimensions)
        dimensions = store.dimensions
    if column != store.column:
        logger.warning(
            "the vectors are stored as %s; embedding_type: %s needs a new db_schema",
            column,
            store.column,
        )
    return replace(
        store,
        dimensions=dimensions,
        column=column,
        language=_stored_language(meta, store),
    )


def _stored_language(meta: dict[str, str], store: Store) -> str:
    stored = meta.get("language", store.language)
    if stored != store.language:
        logger.warning(
            "the chunks were indexed with language %s; the setting %s takes effect after reset()",
            stored,
            store.language,
        )
    return stored


def dimensions_differ(store: Store, found: int | None) -> SchemaMismatch:
    """Say that the embedding column has other dimensions than are wanted, and what to do."""
    return SchemaMismatch(
        f"the embeddings in schema {store.schema!r} have {found} dimensions, but "
        f"{store.dimensions} are configured: go back to the embedding model that made them, set "
        f'another db_schema, or drop them with DROP SCHEMA "{store.schema}" CASCADE and index again'
    )


async def read_meta(connection: Connection, store: Store) -> dict[str, str]:
    """Read the meta table."""
    cursor = await connection.execute(_named(READ_META, store))
    return dict(cast(list[tuple[str, str]], await cursor.fetchall()))


async def write_meta(connection: Connection, store: Store, key: str, value: str | None) -> None:
    """Set a key of the meta table, or remove it; the last writer wins."""
    async with connection.transaction():
        await connection.execute(LOCK, (store.schema,))
        await connection.execute(_named(DELETE_META, store), (key,))
        if value is not None:
            await connection.execute(_named(WRITE_META, store), (key, value))


async def read_column(connection: Connection, store: Store) -> tuple[Column, int | None]:
    """Read the type and dimensions of the embedding column itself."""
    row = await (await connection.execute(EMBEDDING_COLUMN, (store.schema,))).fetchone()
    if row is None:
        raise SchemaMismatch(
            f"the table chunks in schema {store.schema!r} is not one of this package: set another "
            "db_schema"
        )
    typmod: Any = row[1]
    return cast(Column, row[0]), (typmod if typmod > 0 else None)


async def set_dimensions(connection: Connection, store: Store, dimensions: int) -> Store:
    """Fix the dimensions of a column that has none yet, or of a store without chunks.

    Another process may have been first. Raises `SchemaMismatch` when there are chunks of others.
    """
    wanted = replace(store, dimensions=dimensions)
    async with connection.transaction():
        await connection.execute(LOCK, (store.schema,))
        column, found = await read_column(connection, store)
        wanted = replace(wanted, column=column)
        if found != dimensions:
            if found is not None:
                await _make_way(connection, wanted, found)
            await connection.execute(_named(SET_DIMENSIONS, wanted))
            await _keep_inline(connection, wanted)
    return wanted


async def _make_way(connection: Connection, store: Store, found: int) -> None:
    """Check that nothing is stored, and drop the indexes on the vectors' former type."""
    if not await is_empty(connection, store):  # first without a lock that searches wait for
        raise dimensions_differ(store, found)
    await connection.execute(_named(LOCK_CHUNKS, store))
    if not await is_empty(connection, store):
        raise dimensions_differ(store, found)
    chunks = store.chunks.as_string(connection)
    for (name,) in await (await connection.execute(VECTOR_INDEXES, (chunks,))).fetchall():
        await connection.execute(sql.SQL("DROP INDEX {}").format(store.table(name)))


async def is_empty(connection: Connection, store: Store) -> bool:
    """Tell whether there is no chunk."""
    row = await (await connection.execute(_named(ANY_CHUNK, store))).fetchone()
    return row is None


async def clear(connection: Connection, store: Store, config: PostgresConfig) -> Store:
    """Empty every table inside the caller's transaction; the dimensions stay.

    What could not change under existing chunks takes effect now: the language.
    """
    for statement in CLEAR:
        await connection.execute(_named(statement, store))
    language = await resolve_language(connection, config)
    await connection.execute(_named(DELETE_META, store), ("language",))
    await connection.execute(_named(WRITE_META, store), ("language", language))
    return replace(store, language=language)
