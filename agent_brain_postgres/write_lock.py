"""One writer of a store at a time.

So no two wait for each other in a circle, whichever ids their batches share, and each may store its
rows in the order given. There neighbours are alike (chunks of one file, files of one folder), and
indexes over them are built up to a quarter faster than over rows in the order of their ids, which are
hashes. One batch keeps two cores busy by itself: see `chunk_copy`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from agent_brain_postgres.pool import Connection
from agent_brain_postgres.store import Store

if TYPE_CHECKING:
    from typing_extensions import LiteralString

# Waiting in line may take longer than one's own work.
PATIENCE = 10  # times `statement_timeout`

# In one round trip, each statement under the time limit that the one before has set.
TAKE: LiteralString = """
SET LOCAL statement_timeout = {patience};
SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended({name}, 0));
SET LOCAL statement_timeout = {timeout}
"""


async def take(connection: Connection, store: Store, statement_timeout: float) -> None:
    """Wait for the writers before; until the end of the transaction others wait. Seconds."""
    milliseconds = round(1000 * statement_timeout)
    await connection.execute(
        sql.SQL(TAKE).format(
            name=sql.Literal(f"agent_brain_postgres write {store.schema}"),
            patience=sql.Literal(PATIENCE * milliseconds),
            timeout=sql.Literal(milliseconds),
        )
    )
