"""The corpus statistics: deltas that writers append, added up now and then.

Appending is what keeps concurrent writers from waiting for each other on the commonest words. A
search adds the deltas of its words, so their number must stay small.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from psycopg import sql

from agent_brain_postgres.pool import Connection
from agent_brain_postgres.store import Store

if TYPE_CHECKING:
    from typing_extensions import LiteralString

logger = logging.getLogger(__name__)

MOST_DELTAS = 64  # of one word; every batch has one for the totals, under ''

# No more than are needed to tell.
COUNT_DELTAS: LiteralString = """
SELECT count(*) FROM (SELECT 1 FROM {lexeme_statistics} WHERE lexeme = '' LIMIT {most}) AS deltas
"""

# Deltas that are appended meanwhile are not seen, and stay. Whoever comes second does nothing.
COMPACT: LiteralString = """
WITH turn AS MATERIALIZED (
    SELECT pg_catalog.pg_try_advisory_xact_lock(
        pg_catalog.hashtextextended('agent_brain_postgres statistics ' || %s::text, 0)) AS mine
), crowded AS MATERIALIZED (
    SELECT lexeme FROM {lexeme_statistics}
    WHERE (SELECT mine FROM turn)
    GROUP BY lexeme HAVING count(*) > 1
), gone AS (
    DELETE FROM {lexeme_statistics} AS delta USING crowded
    WHERE delta.lexeme = crowded.lexeme
    RETURNING delta.lexeme, delta.chunks, delta.occurrences
)
INSERT INTO {lexeme_statistics} (lexeme, chunks, occurrences)
SELECT lexeme, sum(chunks), sum(occurrences) FROM gone
GROUP BY lexeme HAVING sum(chunks) <> 0 OR sum(occurrences) <> 0
"""


async def compact(connection: Connection, store: Store, most: int = MOST_DELTAS) -> bool:
    """Add the deltas up once there are `most` of a word; says whether that was so."""
    names = {"lexeme_statistics": store.lexeme_statistics}
    count = sql.SQL(COUNT_DELTAS).format(most=sql.Literal(most), **names)
    row = await (await connection.execute(count)).fetchone()
    if row is None or row[0] < most:
        return False
    cursor = await connection.execute(sql.SQL(COMPACT).format(**names), (store.schema,))
    logger.debug("added up the statistics of %d words", cursor.rowcount)
    return True
