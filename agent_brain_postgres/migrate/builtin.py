"""Reads the tables of the core's built-in PostgreSQL backend."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np
import psycopg
from pgvector import Vector as PgVector
from pgvector.psycopg import register_vector
from psycopg import sql

from agent_brain_postgres.errors import ConnectionFailed, translate
from agent_brain_postgres.migrate.source import MigrationError, Rows
from agent_brain_postgres.types import EmbeddingMetadata

if TYPE_CHECKING:
    from typing_extensions import LiteralString

# The schema of the table that the core's own session would find.
FIND: LiteralString = """
SELECT n.nspname, v.nspname
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = 'embedding'
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid AND t.typname = 'vector'
JOIN pg_catalog.pg_namespace v ON v.oid = t.typnamespace
WHERE c.oid = pg_catalog.to_regclass('documents')
"""

COUNT: LiteralString = "SELECT count(embedding), count(*) - count(embedding) FROM {documents}"

IDS: LiteralString = """
SELECT chunk_id FROM {documents} WHERE embedding IS NOT NULL ORDER BY chunk_id
"""

ROWS: LiteralString = """
SELECT chunk_id, document_text, metadata, embedding FROM {documents}
WHERE chunk_id = ANY(%s::text[]) AND embedding IS NOT NULL
"""

DIMENSIONS: LiteralString = """
SELECT embedding FROM {documents} WHERE embedding IS NOT NULL LIMIT 1
"""

EMBEDDING_METADATA: LiteralString = """
SELECT provider, model, dimensions FROM {embedding_metadata} WHERE id = 1
"""


P = ParamSpec("P")
R = TypeVar("R")


def _translated(read: Callable[P, R]) -> Callable[P, R]:
    """Let only `StorageError`s out of a function that reads the source."""

    @functools.wraps(read)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return read(*args, **kwargs)
        except psycopg.Error as error:
            raise translate(error, "reading the source") from error

    return wrapper


class BuiltinSource:
    """The tables `documents` and `embedding_metadata`, read in one read-only snapshot."""

    def __init__(self, conninfo: str) -> None:
        try:
            self._connection = psycopg.connect(conninfo)
        except psycopg.Error as error:
            raise ConnectionFailed(f"cannot connect to the source: {_one_line(error)}") from None
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    @_translated
    def _open(self) -> None:
        self._connection.read_only = True
        self._connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        found = self._connection.execute(FIND).fetchone()
        info = self._connection.info
        where = f"{info.dbname} on {info.host or 'the local socket'}"
        if found is None:
            raise MigrationError(
                f"{where} has no table `documents` of Agent Brain's built-in PostgreSQL backend"
            )
        self._schema, extension_schema = (str(name) for name in found)
        self._set_vector_path(extension_schema)
        register_vector(self._connection)
        self.description = f"table {self._schema}.documents of {where}"

    def _set_vector_path(self, schema: str) -> None:
        # pgvector's own registration finds the type through the path: for this transaction only.
        path = sql.SQL("SET LOCAL search_path TO {}, pg_catalog").format(sql.Identifier(schema))
        self._connection.execute(path)

    @_translated
    def count(self) -> int:
        return int(self._one(COUNT)[0])

    @_translated
    def without_embedding(self) -> int:
        return int(self._one(COUNT)[1])

    @_translated
    def dimensions(self) -> int | None:
        row = self._connection.execute(self._sql(DIMENSIONS)).fetchone()
        return len(_as_array(row[0])) if row else None

    @_translated
    def embedding_metadata(self) -> EmbeddingMetadata | None:
        try:
            with self._connection.transaction():
                row = self._connection.execute(self._sql(EMBEDDING_METADATA)).fetchone()
        except psycopg.errors.UndefinedTable:
            return None
        return EmbeddingMetadata(*row) if row else None

    def ids(self, size: int) -> Iterator[list[str]]:
        with self._connection.cursor(name="ids") as cursor:
            fetch = _translated(lambda: [str(row[0]) for row in cursor.fetchmany(size)])
            _translated(cursor.execute)(self._sql(IDS))
            while batch := fetch():
                yield batch

    @_translated
    def rows(self, ids: Sequence[str]) -> Rows:
        found = self._connection.execute(self._sql(ROWS), [list(ids)], binary=True).fetchall()
        return Rows(
            ids=[str(row[0]) for row in found],
            texts=[row[1] for row in found],
            metadatas=[row[2] or {} for row in found],
            embeddings=[_as_array(row[3]) for row in found],
        )

    def close(self) -> None:
        self._connection.close()

    def _one(self, statement: LiteralString) -> tuple[Any, ...]:
        row = self._connection.execute(self._sql(statement)).fetchone()
        assert row is not None, "an aggregate has a row"
        return row

    def _sql(self, statement: LiteralString) -> sql.Composed:
        names = ("documents", "embedding_metadata")
        return sql.SQL(statement).format(
            **{name: sql.Identifier(self._schema, name) for name in names}
        )


def _as_array(value: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    # pgvector 0.4 and later give an object of their own, earlier ones an array.
    return np.asarray(value.to_list() if isinstance(value, PgVector) else value, dtype=np.float32)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
