"""The order in which the rows of a batch are stored, and who may write at the same time.

In the order given neighbours are alike: chunks of one file, files of one folder. An index over rows
in that order is built up to a quarter faster than over rows in the order of their ids, which are
hashes. But writers whose ids overlap must not meet in different orders, or they would wait for each
other in a circle. So a writer that is alone keeps the order given, and keeps the others out; writers
that meet take the order of the ids; and one that collided all the same comes back alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_brain_postgres.batch import BLOCK_ROWS, Batch
from agent_brain_postgres.pool import Connection
from agent_brain_postgres.store import Store

if TYPE_CHECKING:
    from typing_extensions import LiteralString

# Keeping others out must not take long: their `statement_timeout` runs.
MOST_ALONE = 256 * 1024 * 1024  # bytes of vectors

TRY_ALONE: LiteralString = """
SELECT pg_catalog.pg_try_advisory_xact_lock(
    pg_catalog.hashtextextended('agent_brain_postgres order ' || %s::text, 0))
"""

ALONE: LiteralString = """
SELECT pg_catalog.pg_advisory_xact_lock(
    pg_catalog.hashtextextended('agent_brain_postgres order ' || %s::text, 0))
"""

TOGETHER: LiteralString = """
SELECT pg_catalog.pg_advisory_xact_lock_shared(
    pg_catalog.hashtextextended('agent_brain_postgres order ' || %s::text, 0))
"""


async def arrange(
    connection: Connection, store: Store, batch: Batch, *, indexed: bool, collided: bool
) -> Batch:
    """Bring the rows into the order in which this transaction may store them; may wait for others.

    A batch that is large, for a store without an index, is worth being alone; but nobody waits for
    that: those who come meanwhile wait for this one batch and then write together.
    """
    if collided:
        await connection.execute(ALONE, (store.schema,))
        return batch
    if not indexed and BLOCK_ROWS < len(batch) <= MOST_ALONE // (4 * batch.dimensions):
        row = await (await connection.execute(TRY_ALONE, (store.schema,))).fetchone()
        if row == (True,):
            return batch
    await connection.execute(TOGETHER, (store.schema,))
    return batch.by_id()
