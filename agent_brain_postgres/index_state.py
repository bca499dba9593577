"""What the server says about a store's indexes: present, valid, how far a build has come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from psycopg import sql

from agent_brain_postgres import ladder
from agent_brain_postgres.pool import Connection
from agent_brain_postgres.store import Store

if TYPE_CHECKING:
    from typing_extensions import LiteralString

State = Literal["none", "building", "ready", "invalid"]

# The ledger of the corpus statistics knows the number of chunks without counting them.
ROWS: LiteralString = """
SELECT coalesce(sum(chunks), 0)::bigint FROM {lexeme_statistics} WHERE lexeme = ''
"""

INDEXES: LiteralString = """
SELECT i.relname, x.indisvalid AND x.indisready
FROM pg_catalog.pg_index x
JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
WHERE x.indrelid = pg_catalog.to_regclass(%s) AND i.relname LIKE 'chunks\\_hnsw%%'
"""

# One row while any process builds an index on the chunks; `tuples_total` is not set by pgvector.
PROGRESS: LiteralString = """
SELECT tuples_done, blocks_done, blocks_total
FROM pg_catalog.pg_stat_progress_create_index
WHERE relid = pg_catalog.to_regclass(%s)
"""


@dataclass(frozen=True, slots=True)
class IndexState:
    """The index that searches of a store use, or will use; `progress` is 0-1.

    `names` are all indexes of vectors that are there, `leftovers` those that no search can use.
    """

    kind: ladder.Kind
    state: State
    progress: float
    rows: int
    names: tuple[str, ...] = ()
    leftovers: tuple[str, ...] = ()

    @property
    def missing(self) -> bool:
        """Whether there are enough rows for an index that is neither there nor being built."""
        return self.kind != "exact" and self.state in ("none", "invalid")

    @property
    def due(self) -> bool:
        """Whether there is something to build or to remove."""
        return self.missing or (self.state != "building" and bool(self.leftovers))


async def read(connection: Connection, store: Store) -> IndexState:
    """Ask the server."""
    table = store.chunks.as_string(None)
    rows = await _rows(connection, store)
    found: dict[str, bool] = dict(await (await connection.execute(INDEXES, (table,))).fetchall())
    names = tuple(found)
    chosen = ladder.store_rung(store)
    if chosen is None or store.dimensions is None:
        return IndexState("exact", "none", 0.0, rows, names)
    mine = ladder.index_name(store, chosen)
    leftovers = tuple(name for name, valid in found.items() if name != mine or not valid)
    if found.get(mine):
        return IndexState(chosen.kind, "ready", 1.0, rows, names, leftovers)
    row = await (await connection.execute(PROGRESS, (table,))).fetchone()
    if row is not None:
        return IndexState(chosen.kind, "building", _progress(rows, *row), rows, names, leftovers)
    kind = ladder.decide(rows, store.dimensions, store.metric, store.pgvector, store.column)
    state: State = "invalid" if mine in found else "none"
    return IndexState(kind, state, 0.0, rows, names, leftovers)


async def _rows(connection: Connection, store: Store) -> int:
    statement = sql.SQL(ROWS).format(lexeme_statistics=store.lexeme_statistics)
    row = await (await connection.execute(statement)).fetchone()
    return int(row[0]) if row is not None else 0


def _progress(
    rows: int, tuples: int | None, blocks: int | None, all_blocks: int | None
) -> float:
    shares = [(tuples or 0) / max(rows, 1), (blocks or 0) / max(all_blocks or 0, 1)]
    return round(min(0.99, max(shares)), 3)
