"""The order in which the rows of a batch are stored, and who may write at the same time.

In the order given neighbours are alike: chunks of one file, files of one folder. An index over rows
in that order is built up to a quarter faster than over rows in the order of their ids, which are
hashes. But writers whose ids overlap must not meet in different orders, or they would wait for each
other in a circle. So a writer that is alone keeps the order given, and keeps the others out; writers
that meet take the order of the ids.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_brain_postgres.batch import BLOCK_ROWS, Batch
from agent_brain_postgres.pool import Connection
from agent_brain_postgres.store import Store

if TYPE_CHECKING:
    from typing_extensions import LiteralString

# Keeping others out must not take long: their `statement_timeout` runs.
MOST_ALONE = 256 * 1024 * 1024  # bytes

# Not where there is an index: each row would go into that as well.
TRY_ALONE: LiteralString = """
SELECT CASE WHEN EXISTS (
    SELECT FROM pg_catalog.pg_index x
    JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
    JOIN pg_catalog.pg_am a ON a.oid = i.relam
    WHERE x.indrelid = pg_catalog.to_regclass(%(chunks)s) AND a.amname = 'hnsw'
) THEN false ELSE pg_catalog.pg_try_advisory_xact_lock(
    pg_catalog.hashtextextended('agent_brain_postgres order ' || %(schema)s::text, 0)) END
"""

ALONE: LiteralString = """
SELECT pg_catalog.pg_advisory_xact_lock(
    pg_catalog.hashtextextended('agent_brain_postgres order ' || %(schema)s::text, 0))
"""

TOGETHER: LiteralString = """
SELECT pg_catalog.pg_advisory_xact_lock_shared(
    pg_catalog.hashtextextended('agent_brain_postgres order ' || %(schema)s::text, 0))
"""


async def arrange(
    connection: Connection, store: Store, batch: Batch, *, last_attempt: bool = False
) -> Batch:
    """Bring the rows into the order in which this transaction may store them; may wait for others.

    A batch that is large, for a store without an index, is worth being alone; but nobody waits for
    that: those who come meanwhile wait for this one batch and then write together. Only who has
    collided with others again and again insists.
    """
    values = {"schema": store.schema, "chunks": store.chunks.as_string(None)}
    if last_attempt:
        await connection.execute(ALONE, values)
        return batch
    if len(batch) > BLOCK_ROWS and sum(map(batch.size, range(len(batch)))) <= MOST_ALONE:
        row = await (await connection.execute(TRY_ALONE, values)).fetchone()
        if row == (True,):
            return batch
    await connection.execute(TOGETHER, values)
    return batch.by_id()
