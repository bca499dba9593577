"""Which embedding model made the vectors of a store: one row, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from agent_brain_postgres import types
from agent_brain_postgres.errors import ProviderMismatchError
from agent_brain_postgres.pool import Connection
from agent_brain_postgres.server import LOCK
from agent_brain_postgres.store import Store
from agent_brain_postgres.text import sanitize_text
from agent_brain_postgres.types import EmbeddingMetadata

if TYPE_CHECKING:
    from typing_extensions import LiteralString

READ: LiteralString = "SELECT provider, model, dimensions FROM {embedding_metadata} LIMIT 1"

DELETE: LiteralString = "DELETE FROM {embedding_metadata}"

WRITE: LiteralString = """
INSERT INTO {embedding_metadata} (provider, model, dimensions) VALUES (%s, %s, %s)
"""


def _named(statement: LiteralString, store: Store) -> sql.Composed:
    return sql.SQL(statement).format(embedding_metadata=store.table("embedding_metadata"))


async def read(connection: Connection, store: Store) -> EmbeddingMetadata | None:
    """Read the row, if there is one."""
    row = await (await connection.execute(_named(READ, store))).fetchone()
    return None if row is None else types.EmbeddingMetadata(*row)


async def write(
    connection: Connection, store: Store, provider: str, model: str, dimensions: int
) -> None:
    """Replace the row; of concurrent writers the last wins, and one row remains."""
    values = (sanitize_text(normalise(provider)), sanitize_text(model), dimensions)
    await connection.execute(LOCK, (store.schema,))
    await connection.execute(_named(DELETE, store))
    await connection.execute(_named(WRITE, store), values)


def normalise(provider: str) -> str:
    """Give a provider's plain name: the core stores an enum member as `EnumName.MEMBER`."""
    plain = str(getattr(provider, "value", provider))
    return plain.rpartition("EmbeddingProviderType.")[2].strip().lower()


def check_compatible(
    provider: str, model: str, dimensions: int, stored: EmbeddingMetadata | None
) -> None:
    """Raise `ProviderMismatchError` when a store was made with another model."""
    if stored is None:
        return
    now = (normalise(provider), model, dimensions)
    then = (normalise(stored.provider), stored.model, stored.dimensions)
    if now != then:
        raise ProviderMismatchError(
            current_provider=now[0],
            current_model=_model(now, then),
            indexed_provider=then[0],
            indexed_model=_model(then, now),
        )


def _model(one: tuple[str, str, int], other: tuple[str, str, int]) -> str:
    return one[1] if one[2] == other[2] else f"{one[1]} ({one[2]} dimensions)"
