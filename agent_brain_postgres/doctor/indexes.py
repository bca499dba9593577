"""Checks of the indexes: whole, and used."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from psycopg import sql

from agent_brain_postgres import index_state, ladder
from agent_brain_postgres.doctor.case import Case
from agent_brain_postgres.doctor.finding import FIX_IT, Finding, Fix, failed, ok, warning
from agent_brain_postgres.doctor.tables import analysis
from agent_brain_postgres.pool import Connection
from agent_brain_postgres.store import Store

if TYPE_CHECKING:
    from typing_extensions import LiteralString

INDEXES: LiteralString = """
SELECT i.relname, a.amname, x.indisvalid AND x.indisready,
       EXISTS (SELECT FROM pg_catalog.pg_stat_progress_create_index p
               WHERE p.index_relid = x.indexrelid),
       pg_catalog.pg_size_pretty(pg_catalog.pg_relation_size(i.oid))
FROM pg_catalog.pg_index x
JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
JOIN pg_catalog.pg_am a ON a.oid = i.relam
JOIN pg_catalog.pg_class t ON t.oid = x.indrelid
JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
WHERE n.nspname = %s AND t.relname IN ('chunks', 'lexeme_statistics')
ORDER BY i.relname
"""

REQUIRED = {"chunks_lexemes": "gin (lexemes)", "chunks_metadata": "gin (metadata jsonb_path_ops)"}

# What a search orders by, so that the planner shows whether it takes the index.
EXPLAIN: LiteralString = """
EXPLAIN (FORMAT JSON) SELECT chunk_id FROM {chunks} ORDER BY {distance} LIMIT 10
"""

# A rebuild that was interrupted leaves its half-made index behind under such a name.
_REMAINS = re.compile(r"_cc(new|old)\d*$")


async def validity(case: Case) -> list[Finding]:
    """Check that every index is there and valid."""
    store = case.store
    assert store is not None
    indexes = await case.rows(INDEXES, store.schema)
    problems = list(_problems(case, store, indexes))
    if problems:
        return problems
    return [ok("index", ", ".join(f"{name} ({method}, {size})" for name, method, *_, size in indexes))]


def _problems(case: Case, store: Store, indexes: list[tuple[Any, ...]]) -> Iterator[Finding]:
    for name, _, is_valid, is_building, _ in indexes:
        if is_building:
            yield warning("index", f"the index {name} is being built", "wait until it is done")
        elif not is_valid:
            yield _invalid(store, name)
    present = {name for name, *_ in indexes}
    for name, definition in REQUIRED.items():
        if name not in present:
            table = store.chunks.as_string(None)
            statement = f"CREATE INDEX CONCURRENTLY {name} ON {table} USING {definition}"
            mend = case.psql(statement)
            yield warning("index", f"the index {name} is missing: searches are slow", mend)


def _invalid(store: Store, name: str) -> Finding:
    index = store.table(name)
    verb: LiteralString = "REINDEX INDEX CONCURRENTLY {}"
    if _REMAINS.search(name):
        verb = "DROP INDEX CONCURRENTLY {}"
    title = sql.SQL(verb).format(index).as_string(None)

    async def carry_out(connection: Connection) -> None:
        await connection.execute("SET statement_timeout = 0")
        await connection.execute(sql.SQL(verb).format(index))

    seen = f"invalid index: {name} is half built, is not used, and slows writes down"
    return failed("index", seen, FIX_IT, Fix(title, carry_out))


async def use(case: Case) -> list[Finding]:
    """Ask the planner what a vector search would read."""
    store = case.store
    assert store is not None
    state = await index_state.read(case.database, store)
    chosen = ladder.store_rung(store)
    if chosen is None or state.kind == "exact":
        return [ok("searches", f"{state.rows} chunks: few enough to compare each with the query")]
    if state.state == "ready":
        return [await _used(case, store, chosen, state.rows)]
    if state.state == "building":
        seen = f"the vector index is being built ({state.progress:.0%}); searches are exact so far"
        return [ok("searches", seen)]
    seen = f"{state.rows} chunks without a vector index: each search reads them all"
    return [warning("searches", seen, "start the server; it builds the index in the background")]


async def _used(case: Case, store: Store, chosen: ladder.Rung, rows: int) -> Finding:
    index = await _planned(case, store, chosen)
    if index is not None:
        return ok("searches", f"{rows} chunks; vector searches use {index}")
    if rows < ladder.crossover(store.dimensions or 0):
        return ok("searches", f"{rows} chunks: the planner compares each with the query")
    seen = f"{rows} chunks, but the planner avoids the vector index"
    return warning("searches", seen, FIX_IT, analysis(store))


async def _planned(case: Case, store: Store, chosen: ladder.Rung) -> str | None:
    """Give the name of the index that a search would use, if it would."""
    zeros = "[" + ",".join(["1"] * (store.dimensions or 0)) + "]"
    query = sql.SQL("{}::{}").format(sql.Literal(zeros), store.vector_type(store.column))
    distance = ladder.index_distance(store, chosen, query)
    row = await case.row(sql.SQL(EXPLAIN).format(chunks=store.chunks, distance=distance))
    assert row is not None
    plan = row[0] if isinstance(row[0], list) else json.loads(row[0])
    return next(_index_names(plan[0]["Plan"]), None)


def _index_names(node: dict[str, Any]) -> Iterator[str]:
    if "Index Name" in node:
        yield str(node["Index Name"])
    for child in node.get("Plans", ()):
        yield from _index_names(child)
