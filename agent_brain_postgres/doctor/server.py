"""Checks of the server: its version, its extension, what this user may do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from agent_brain_postgres import server as requirements
from agent_brain_postgres.doctor.case import Case
from agent_brain_postgres.doctor.finding import FIX_IT, Finding, Fix, failed, ok, warning
from agent_brain_postgres.errors import SettingsError
from agent_brain_postgres.pool import Connection

if TYPE_CHECKING:
    from typing_extensions import LiteralString

SERVER: LiteralString = """
SELECT pg_catalog.current_setting('server_version'),
       pg_catalog.pg_encoding_to_char(d.encoding),
       pg_catalog.current_setting('transaction_read_only') = 'on',
       pg_catalog.pg_is_in_recovery()
FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
"""

# From here on the session cannot change anything, and cannot hang.
PROMISE: LiteralString = """
SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY; SET statement_timeout = '15s'
"""

# The version that CREATE EXTENSION would install, and whether an ordinary user may.
AVAILABLE: LiteralString = """
SELECT e.default_version, v.superuser, v.trusted
FROM pg_catalog.pg_available_extensions e
JOIN pg_catalog.pg_available_extension_versions v
    ON v.name = e.name AND v.version = e.default_version
WHERE e.name = 'vector'
"""

RIGHTS: LiteralString = """
SELECT r.rolsuper,
       pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'),
       pg_catalog.quote_ident(pg_catalog.current_database()),
       pg_catalog.quote_ident(r.rolname)
FROM pg_catalog.pg_roles r WHERE r.rolname = current_user
"""


async def server(case: Case) -> list[Finding]:
    """Check version, encoding and whether it can be written to."""
    row = await case.row(SERVER)
    assert row is not None
    version, encoding, case.read_only, is_standby = row
    if not case.settings.pgbouncer:
        await case.database.execute(PROMISE)
    seen = f"PostgreSQL {version}, encoding {encoding}"
    if case.database.info.server_version < requirements.MINIMUM_SERVER:
        mend = "upgrade the server to 14 or newer (the bundled template runs 16)"
        return [failed("server", seen, mend)]
    if encoding != "UTF8":
        name = case.settings.database
        mend = f"createdb --encoding UTF8 --template template0 {name}_utf8, and set database"
        return [failed("server", f"{seen}: not every text can be stored", mend)]
    if case.read_only:
        why = "it is a standby" if is_standby else "default_transaction_read_only is on"
        mend = "point host at the primary" if is_standby else _writable(case)
        return [warning("server", f"{seen}; read-only: {why}, so nothing can be indexed", mend)]
    return [ok("server", seen)]


def _writable(case: Case) -> str:
    name = sql.Identifier(case.settings.database).as_string(None)
    return case.psql(
        "SET default_transaction_read_only = off",
        f"ALTER DATABASE {name} SET default_transaction_read_only = off",
    )


async def pgvector(case: Case) -> list[Finding]:
    """Check the extension: installed, new enough, or creatable by this user."""
    row = await case.row(requirements.EXTENSION)
    available = await case.row(AVAILABLE)
    if row is not None:
        case.extension = (row[0], parsed(row[1]))
        return [_installed(row[1], available[0] if available else None, case)]
    if available is None:
        return [failed("pgvector", "the server does not have pgvector", _install(case))]
    version, needs_superuser, is_trusted = available
    if parsed(version) < requirements.MINIMUM_PGVECTOR:
        seen = f"the server has pgvector {version}; {_minimum()} or newer is needed"
        return [failed("pgvector", seen, _install(case))]
    return [await _creatable(case, version, needs_superuser and not is_trusted)]


def parsed(version: str) -> tuple[int, ...]:
    """Give the numbers of a version."""
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _minimum() -> str:
    return ".".join(map(str, requirements.MINIMUM_PGVECTOR))


def _installed(version: str, available: str | None, case: Case) -> Finding:
    if parsed(version) >= requirements.MINIMUM_PGVECTOR:
        return ok("pgvector", f"pgvector {version}")
    seen = f"the database has pgvector {version}; {_minimum()} or newer is needed"
    if available is not None and parsed(available) >= requirements.MINIMUM_PGVECTOR:
        fix = Fix("ALTER EXTENSION vector UPDATE", _update)
        return failed("pgvector", seen, FIX_IT, fix)
    return failed("pgvector", seen, _install(case))


def _install(case: Case) -> str:
    if (pull := case.compose("up --detach --wait --pull always")) is not None:
        return pull
    major = case.database.info.server_version // 10000
    return f"apt install postgresql-{major}-pgvector (on the server; or use the bundled template)"


async def _creatable(case: Case, version: str, needs_superuser: bool) -> Finding:
    row = await case.row(RIGHTS)
    assert row is not None
    is_superuser, may_create, _, user = row
    if is_superuser or (may_create and not needs_superuser):
        seen = f"pgvector {version} is available; the first start creates it"
        fix = Fix("CREATE EXTENSION vector", _create)
        return Finding("pgvector", "ok", seen, fix=fix)
    seen = f"no right to create the extension: user {user} may not CREATE EXTENSION vector"
    mend = case.psql("CREATE EXTENSION vector", as_superuser=True)
    return failed("pgvector", seen, mend)


async def _create(connection: Connection) -> None:
    async with connection.transaction():
        await connection.execute(requirements.LOCK, ("extension",))
        await connection.execute("CREATE EXTENSION IF NOT EXISTS vector")


async def _update(connection: Connection) -> None:
    async with connection.transaction():
        await connection.execute(requirements.LOCK, ("extension",))
        await connection.execute("ALTER EXTENSION vector UPDATE")


async def language(case: Case) -> list[Finding]:
    """Check that the server has the text search configuration."""
    try:
        name = await requirements.resolve_language(case.database, case.settings)
    except SettingsError as error:
        return [failed("language", str(error), "set language to one of these")]
    return [ok("language", name)]


async def rights(case: Case) -> list[Finding]:
    """Check that this user may create or use the schema and its tables."""
    name = case.settings.db_schema
    row = await case.row(RIGHTS)
    assert row is not None
    _, may_create, database, user = row
    schema_row = await case.row(
        "SELECT pg_catalog.has_schema_privilege(oid, 'USAGE'),"
        " pg_catalog.has_schema_privilege(oid, 'CREATE')"
        " FROM pg_catalog.pg_namespace WHERE nspname = %s",
        name,
    )
    quoted = sql.Identifier(name).as_string(None)
    if schema_row is None:
        if may_create:
            return [ok("rights", f"user {user} may create the schema {name}")]
        mend = case.psql(f"GRANT CREATE ON DATABASE {database} TO {user}", as_superuser=True)
        return [failed("rights", f"user {user} may not create the schema {name}", mend)]
    if not all(schema_row):
        statement = f"GRANT USAGE, CREATE ON SCHEMA {quoted} TO {user}"
        mend = case.psql(statement, as_superuser=True)
        return [failed("rights", f"user {user} may not use the schema {name}", mend)]
    return [ok("rights", f"user {user} may use the schema {name}")]
