"""Checks of the tables: their version, their dimensions, how tidy they are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from psycopg import sql

from agent_brain_postgres import embedding_metadata, schema
from agent_brain_postgres.doctor.case import Case
from agent_brain_postgres.doctor.finding import FIX_IT, Finding, Fix, failed, ok, warning
from agent_brain_postgres.errors import StorageError
from agent_brain_postgres.pool import Connection
from agent_brain_postgres.store import Store

if TYPE_CHECKING:
    from typing_extensions import LiteralString

# What the core's providers make, by model, so that a mismatch is seen before anything is embedded.
MODEL_DIMENSIONS = {
    "text-embedding-3-large": 3072,
    "text-embedding-3-small": 1536,
    "text-embedding-ada-002": 1536,
    "embed-english-v3.0": 1024,
    "embed-english-light-v3.0": 384,
    "embed-multilingual-v3.0": 1024,
    "embed-multilingual-light-v3.0": 384,
    "embed-english-v2.0": 4096,
    "embed-english-light-v2.0": 1024,
    "embed-multilingual-v2.0": 768,
    "nomic-embed-text": 768,
    "mxbai-embed-large": 1024,
    "all-minilm": 384,
    "snowflake-arctic-embed": 1024,
    "bge-m3": 1024,
    "bge-large": 1024,
}

ACTIVITY: LiteralString = """
SELECT s.n_live_tup, s.n_dead_tup, c.reltuples,
       greatest(s.last_analyze, s.last_autoanalyze) IS NOT NULL,
       pg_catalog.current_setting('autovacuum')::boolean
           AND NOT coalesce('autovacuum_enabled=false' = ANY (c.reloptions), false),
       pg_catalog.pg_size_pretty(pg_catalog.pg_total_relation_size(c.oid))
FROM pg_catalog.pg_stat_all_tables s
JOIN pg_catalog.pg_class c ON c.oid = s.relid
WHERE s.schemaname = %s AND s.relname = 'chunks'
"""

MANY_DEAD = 1_000
DEAD_SHARE = 0.2


async def schema_version(case: Case) -> list[Finding]:
    """Check that the tables are there, and of this package's version."""
    config = case.settings
    row = await case.row(schema.TABLES_EXIST, config.db_schema)
    assert row is not None
    if row[0] == 0:
        seen = f"no tables in schema {config.db_schema} yet; the first start creates them"
        return [ok("schema", seen)]
    if row[0] == 1 or case.extension is None:
        mend = "set another db_schema"
        seen = f"the tables in schema {config.db_schema} are incomplete or another's"
        return [failed("schema", seen, mend)]
    store = Store(
        schema=config.db_schema,
        dimensions=None,
        metric=config.metric,
        language=config.language,
        extension_schema=case.extension[0],
        pgvector=case.extension[1],
        server_version=case.database.info.server_version,
    )
    found = (await schema.read_meta(case.database, store)).get("schema_version")
    if found != str(schema.SCHEMA_VERSION):
        quoted = sql.Identifier(store.schema).as_string(None)
        seen = f"the tables have version {found}; this package needs {schema.SCHEMA_VERSION}"
        mend = f"{case.psql(f'DROP SCHEMA {quoted} CASCADE')}, and index again"
        return [failed("schema", seen, mend)]
    case.store = store
    return [ok("schema", f"schema {config.db_schema}, version {found}")]


async def dimensions(case: Case) -> list[Finding]:
    """Compare the vector column with the settings, the provider and what was stored."""
    expected, source = _expected(case)
    if case.store is None:
        told = f"{expected} ({source})" if expected else "taken from the first vector"
        return [ok("dimensions", told)]
    try:
        column, found = await schema.read_column(case.database, case.store)
    except StorageError as error:
        return [failed("dimensions", str(error), "set another db_schema")]
    case.store = replace(case.store, column=column, dimensions=found)
    if found is None or expected in (None, found):
        seen = f"{found} ({column})" if found else "not fixed before the first vector"
        return [ok("dimensions", seen, *await _model(case))]
    quoted = sql.Identifier(case.store.schema).as_string(None)
    seen = f"the stored embeddings have {found} dimensions, but {source} makes {expected}"
    mend = f"{case.psql(f'DROP SCHEMA {quoted} CASCADE')}, and index again"
    return [failed("dimensions", f"{seen}: go back to that model, or start anew", mend)]


def _expected(case: Case) -> tuple[int | None, str]:
    if (configured := case.settings.embedding_dimensions) is not None:
        return configured, f"embedding_dimensions ({case.settings.sources['embedding_dimensions']})"
    model = str(case.embedding.get("model", "")).removesuffix(":latest")
    return MODEL_DIMENSIONS.get(model), f"the configured model {model}"


async def _model(case: Case) -> list[str]:
    assert case.store is not None
    stored = await embedding_metadata.read(case.database, case.store)
    return [f"embeddings made by {stored.provider}/{stored.model}"] if stored else []


async def provider(case: Case) -> list[Finding]:
    """Compare the embedding model that made the vectors with the configured one."""
    assert case.store is not None
    stored = await embedding_metadata.read(case.database, case.store)
    model = case.embedding.get("model")
    if stored is None:
        return [ok("provider", "nothing is stored about the embedding model")]
    made_by = f"{stored.provider}/{stored.model}"
    if not model:
        return [ok("provider", f"the embeddings were made by {made_by}")]
    name = embedding_metadata.normalise(str(case.embedding.get("provider", stored.provider)))
    if (name, model) == (stored.provider, stored.model):
        return [ok("provider", f"{made_by}, as configured")]
    seen = f"the embeddings were made by {made_by}, but {name}/{model} is configured"
    return [failed("provider", seen, "agent-brain reset, and index again; or configure the former")]


async def tidiness(case: Case) -> list[Finding]:
    """Look for dead rows, missing statistics and a switched-off autovacuum."""
    store = case.store
    assert store is not None
    row = await case.row(ACTIVITY, store.schema)
    if row is None:
        return [ok("tables", "no statistics yet")]
    live, dead, estimate, is_analysed, has_autovacuum, size = row
    seen = f"{live} chunks, {dead} dead rows, {size}"
    table = store.chunks.as_string(None)
    vacuum = Fix(f"VACUUM (ANALYZE) {table}", _statement("VACUUM (ANALYZE) {}", store.chunks))
    analyse = analysis(store)
    if not has_autovacuum:
        mend = case.psql(f"ALTER TABLE {table} RESET (autovacuum_enabled)")
        return [warning("tables", f"{seen}; autovacuum is off", mend)]
    if dead > MANY_DEAD and dead > DEAD_SHARE * (live + dead):
        return [warning("tables", f"{seen}: bloat", FIX_IT, vacuum)]
    if not is_analysed and (estimate < 0 or live > 0):
        return [warning("tables", f"{seen}; the planner has no statistics", FIX_IT, analyse)]
    return [ok("tables", seen)]


def analysis(store: Store) -> Fix:
    """Give the repair that tells the planner what the table holds."""
    table = store.chunks
    return Fix(f"ANALYZE {table.as_string(None)}", _statement("ANALYZE {}", table))


def _statement(
    text: LiteralString, name: sql.Identifier
) -> Callable[[Connection], Awaitable[None]]:
    async def carry_out(connection: Connection) -> None:
        await connection.execute("SET statement_timeout = 0")
        await connection.execute(sql.SQL(text).format(name))

    return carry_out
