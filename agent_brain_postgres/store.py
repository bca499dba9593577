"""What statements need to know of the tables: their names, the vector column, the language."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from psycopg import sql

from agent_brain_postgres.estimates import Estimates

Metric = Literal["cosine", "l2", "inner_product"]
Column = Literal["vector", "halfvec"]

MAX_DIMENSIONS = 16_000  # of pgvector's types


@dataclass(frozen=True, slots=True)
class Store:
    """The tables of one `db_schema`, as they are on the server.

    `dimensions` is None until the first vector is written to a store that was created without
    knowing them. `language` is the qualified name of the text search configuration that the
    lexemes were made with. `extension_schema` is where pgvector's types and operators live: all
    are named with it, since nothing relies on `search_path`.
    """

    schema: str
    dimensions: int | None
    metric: Metric
    language: str
    column: Column = "vector"
    extension_schema: str = "public"
    pgvector: tuple[int, ...] = (0, 8, 0)
    server_version: int = 160000
    estimates: Estimates = field(default_factory=Estimates, compare=False, repr=False)

    def table(self, name: str) -> sql.Identifier:
        """Name a table (or index) of this store."""
        return sql.Identifier(self.schema, name)

    @property
    def chunks(self) -> sql.Identifier:
        """The table of chunks."""
        return self.table("chunks")

    @property
    def lexeme_statistics(self) -> sql.Identifier:
        """The table of corpus statistics."""
        return self.table("lexeme_statistics")

    def vector_type(self, name: str = "vector") -> sql.Composed:
        """Name a type of pgvector, such as `vector` or `halfvec`, without dimensions."""
        return sql.Composed([sql.Identifier(self.extension_schema, name)])

    def operator(self, symbol: Literal["<=>", "<->", "<#>", "<~>"]) -> sql.Composed:
        """Name an operator of pgvector."""
        return sql.SQL("OPERATOR({}.{})").format(
            sql.Identifier(self.extension_schema), sql.SQL(symbol)
        )
