"""The pending lists of the GIN indexes: entries that wait to be merged into the index proper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_brain_postgres.pool import Connection
from agent_brain_postgres.store import Store

if TYPE_CHECKING:
    from typing_extensions import LiteralString

MERGE: LiteralString = "SELECT pg_catalog.gin_clean_pending_list(%s::pg_catalog.regclass)"


async def merge(connection: Connection, store: Store) -> None:
    """Merge them: searches scan them one by one. Only the owner of the indexes may."""
    for index in ("chunks_lexemes", "chunks_metadata"):
        await connection.execute(MERGE, (store.table(index).as_string(None),))
