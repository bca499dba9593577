"""The server that a store lives on: its versions, its pgvector, its languages."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from pgvector.psycopg import register_vector_async
from psycopg import sql
from psycopg.types.json import set_json_loads
from pydantic_core import from_json

from agent_brain_postgres.config import PostgresConfig
from agent_brain_postgres.errors import PostgresStorageError, SettingsError
from agent_brain_postgres.pool import Connection

if TYPE_CHECKING:
    from typing_extensions import LiteralString

MINIMUM_SERVER = 140000
MINIMUM_PGVECTOR = (0, 7, 0)

# Held while the extension or the tables are created. Creating the extension concerns the whole
# database, the tables one schema of it.
LOCK: LiteralString = """
SELECT pg_catalog.pg_advisory_xact_lock(
    pg_catalog.hashtextextended('agent_brain_postgres ' || %s::text, 0))
"""

EXTENSION: LiteralString = """
SELECT n.nspname, e.extversion
FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
WHERE e.extname = 'vector'
"""

AVAILABLE_EXTENSION: LiteralString = """
SELECT default_version FROM pg_catalog.pg_available_extensions WHERE name = 'vector'
"""

# A text search configuration by plain or qualified name, those of pg_catalog first.
LANGUAGE: LiteralString = """
SELECT pg_catalog.format('%%I.%%I', n.nspname, c.cfgname)
FROM pg_catalog.pg_ts_config c JOIN pg_catalog.pg_namespace n ON n.oid = c.cfgnamespace
WHERE %(name)s::text IN (c.cfgname::text, n.nspname::text || '.' || c.cfgname::text)
ORDER BY n.nspname <> 'pg_catalog', n.nspname
LIMIT 1
"""

LANGUAGES: LiteralString = """
SELECT pg_catalog.string_agg(DISTINCT cfgname::text, ', ' ORDER BY cfgname::text)
FROM pg_catalog.pg_ts_config
"""


@dataclass(frozen=True, slots=True)
class Server:
    """The versions of a server that has pgvector, and where that lives."""

    version: int
    extension_schema: str
    pgvector: tuple[int, ...]


async def prepare_server(connection: Connection) -> Server:
    """Check the server's versions and create the extension where it is missing.

    Registers pgvector's types and a decoder of JSON on `connection`, whose adapters serve the pool.
    Raises `PostgresStorageError` naming what is missing and the one command that mends it.
    """
    version = connection.info.server_version
    if version < MINIMUM_SERVER:
        raise PostgresStorageError(
            f"the server is PostgreSQL {version // 10000}; 14 or newer is needed: upgrade it "
            "(the bundled compose template runs 16)"
        )
    found = await _extension(connection) or await _create_extension(connection)
    extension_schema, pgvector = found
    if pgvector < MINIMUM_PGVECTOR:
        raise PostgresStorageError(
            f"the database has pgvector {_dotted(pgvector)}; {_dotted(MINIMUM_PGVECTOR)} or newer "
            "is needed: install it on the server, then run ALTER EXTENSION vector UPDATE"
        )
    # The only place that looks names up by path, in a transaction that forgets it.
    async with connection.transaction():
        await connection.execute(
            "SELECT pg_catalog.set_config('search_path', %s, true)",
            (sql.Identifier(extension_schema).as_string(connection),),
        )
        await register_vector_async(connection)
    set_json_loads(_decode_json, connection)
    return Server(version, extension_schema, pgvector)


def _decode_json(encoded: str | bytes) -> Any:
    """Decode metadata three times as fast as `json`, which nests deeper."""
    try:
        return from_json(encoded)
    except ValueError:
        return json.loads(encoded)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


async def _extension(connection: Connection) -> tuple[str, tuple[int, ...]] | None:
    row = await (await connection.execute(EXTENSION)).fetchone()
    if row is None:
        return None
    return row[0], tuple(int(part) for part in row[1].split(".") if part.isdigit())


async def _create_extension(connection: Connection) -> tuple[str, tuple[int, ...]]:
    available = await (await connection.execute(AVAILABLE_EXTENSION)).fetchone()
    if available is None:
        raise PostgresStorageError(
            "the server does not have pgvector: install it there (Debian: apt install "
            f"postgresql-{connection.info.server_version // 10000}-pgvector), or use the bundled "
            "compose template"
        )
    try:
        async with connection.transaction():
            await connection.execute(LOCK, ("extension",))
            await connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    except psycopg.errors.InsufficientPrivilege as error:
        raise PostgresStorageError(
            f"the user {connection.info.user!r} may not create the extension pgvector: run "
            f"CREATE EXTENSION vector as a superuser in the database {connection.info.dbname!r}"
        ) from error
    found = await _extension(connection)
    assert found is not None
    return found


async def resolve_language(connection: Connection, config: PostgresConfig) -> str:
    """Give the qualified name of the text search configuration that the settings ask for.

    Raises `SettingsError`, which lists the server's own, when it has no such configuration.
    """
    row = await (await connection.execute(LANGUAGE, {"name": config.language})).fetchone()
    if row is not None:
        return str(row[0])
    known = await (await connection.execute(LANGUAGES)).fetchone()
    raise SettingsError(
        f"language is {config.language!r} ({config.sources['language']}); allowed: a text search "
        f"configuration of this server: {known[0] if known else 'none'}"
    )
