"""`PostgresBackend`: the contract with the core, each method handing over to its own module."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import NDArray
from psycopg import sql

from agent_brain_postgres import (
    batch,
    chunk_record,
    embedding_metadata,
    filters,
    hybrid,
    ingest,
    keywords,
    schema,
    server,
    vectors,
)
from agent_brain_postgres.chunk_record import ChunkRecord
from agent_brain_postgres.config import PostgresConfig, load_config
from agent_brain_postgres.errors import ConnectionFailed, InvalidFilter, translated
from agent_brain_postgres.indexing import Indexer
from agent_brain_postgres.lexemes import Vocabulary
from agent_brain_postgres.pool import Connection, Pool, connect
from agent_brain_postgres.store import Store
from agent_brain_postgres.text import sanitize_text
from agent_brain_postgres.types import EmbeddingMetadata, SearchResult

if TYPE_CHECKING:
    from typing_extensions import LiteralString

    from agent_brain_postgres.embedded import EmbeddedServer

logger = logging.getLogger(__name__)

Vector = Sequence[float] | NDArray[Any]
Where = Mapping[str, Any]

COUNT: LiteralString = "SELECT count(*) FROM {chunks} WHERE {condition}"

GET: LiteralString = "SELECT document, metadata FROM {chunks} WHERE chunk_id = %s"


class PostgresBackend:
    """Store and search chunks in PostgreSQL, as the core's `StorageBackendProtocol` asks.

    `config` None looks the settings up where the core looks; a mapping is taken as the host's
    YAML. `embedding_dimensions` overrides the setting of that name. Every method raises
    `StorageError` and nothing else; a query may be any string.
    """

    def __init__(
        self,
        config: PostgresConfig | Mapping[str, Any] | None = None,
        *,
        embedding_dimensions: int | None = None,
    ) -> None:
        self.config = config if isinstance(config, PostgresConfig) else load_config(config)
        self._wanted_dimensions = embedding_dimensions or self.config.embedding_dimensions
        self._pool: Pool | None = None
        self._store: Store | None = None
        self._indexer: Indexer | None = None
        self._embedded: EmbeddedServer | None = None
        self._vocabulary: Vocabulary | None = None
        self._starting: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None

    @property
    def is_initialized(self) -> bool:
        """Whether `initialize()` has succeeded and `close()` has not been called since."""
        return self._store is not None

    @property
    def embedding_dimensions(self) -> int | None:
        """The length of the vectors, None while nothing has said it."""
        return self._store.dimensions if self._store is not None else self._wanted_dimensions

    @translated
    async def initialize(self) -> None:
        """Connect, create what is missing and check what is there; at once when done before."""
        async with self._start_lock():
            if self._pool is not None and self._pool.belongs_here:
                return
            try:
                await self._start()
            except BaseException:
                await self._stop()
                raise

    def _start_lock(self) -> asyncio.Lock:
        loop = asyncio.get_running_loop()
        if self._starting is None or self._starting[0] is not loop:
            self._starting = (loop, asyncio.Lock())
        return self._starting[1]

    async def _start(self) -> None:
        config = await self._start_embedded()
        connection = await connect(config)
        async with connection:
            prepared = await server.prepare_server(connection)
            self._store = await schema.open_store(
                connection, prepared, config, self._wanted_dimensions, _core_dimensions()
            )
            self._pool = Pool(config, connection.adapters)
        await self._pool.open()
        self._vocabulary = Vocabulary(self._store.language)
        self._indexer = Indexer(config, self._pool)
        self._indexer.start(self._store)

    async def _start_embedded(self) -> PostgresConfig:
        directory = self.config.embedded_directory
        if directory is None:
            return self.config
        from agent_brain_postgres import embedded

        starting = asyncio.ensure_future(
            asyncio.to_thread(embedded.start, directory, self.config.database)
        )
        try:
            self._embedded = await asyncio.shield(starting)
        except asyncio.CancelledError:  # the thread goes on; what it starts is nobody's
            starting.add_done_callback(_close_unused)
            raise
        return self.config.with_connection(self._embedded.conninfo)

    async def close(self) -> None:
        """Give every connection back; harmless twice, or right after a cancelled call."""
        try:
            await self._stop()
        except Exception as error:
            logger.warning("closing: %s", type(error).__name__)

    async def _stop(self) -> None:
        indexer, self._indexer = self._indexer, None
        pool, self._pool = self._pool, None
        embedded, self._embedded = self._embedded, None
        self._store = None
        try:
            if indexer is not None:
                await indexer.stop()
        finally:
            try:
                if pool is not None:
                    await pool.close()
            finally:
                if embedded is not None:
                    await asyncio.to_thread(embedded.close)

    def _opened(self) -> tuple[Pool, Store]:
        if self._pool is None or self._store is None:
            raise ConnectionFailed("the backend is not initialized: call initialize() first")
        return self._pool, self._store

    @translated
    async def upsert_documents(
        self,
        ids: list[str],
        embeddings: Sequence[Vector] | NDArray[Any],
        documents: list[str],
        metadatas: Sequence[Mapping[str, Any] | None],
    ) -> int:
        """Store chunks in one transaction, all or nothing; the number of rows given.

        `embeddings` are lists of floats or numpy rows of one length. The last of duplicate ids
        wins; chunks that have not changed are not rewritten. Raises `InvalidInput` (a `ValueError`
        too), naming the row, before anything is written.
        """
        pool, store = self._opened()
        if len(ids) == len(embeddings) == len(documents) == len(metadatas) == 0:
            return 0
        prepared = await asyncio.to_thread(
            batch.prepare, ids, embeddings, documents, metadatas,
            await self._expected_dimensions(embeddings),
            half=store.column == "halfvec",
        )
        store = await self._with_dimensions(prepared.dimensions)
        assert self._vocabulary is not None
        assert self._indexer is not None
        async with self._indexer.writing(store, prepared) as changed:
            written = (
                await ingest.upsert(pool, store, self._vocabulary, prepared) if changed else 0
            )
        if written and self._indexer is not None:
            self._indexer.written(store, written)
        return len(ids)

    async def _expected_dimensions(self, embeddings: Sequence[Vector] | NDArray[Any]) -> int | None:
        """Give the length that vectors must have; None lets the first one say it.

        That is so until something is stored, unless the host or a setting has said it: after
        `reset()` another embedding model may come.
        """
        pool, store = self._opened()
        length = len(embeddings[0]) if hasattr(embeddings[0], "__len__") else store.dimensions
        if store.dimensions in (None, length) or self._wanted_dimensions is not None:
            return store.dimensions
        empty = await pool.read(lambda connection: schema.is_empty(connection, store))
        return None if empty else store.dimensions

    async def _with_dimensions(self, dimensions: int) -> Store:
        pool, store = self._opened()
        if store.dimensions != dimensions:
            async with pool.connection() as connection:
                self._store = store = await schema.set_dimensions(connection, store, dimensions)
        return store

    @translated
    async def vector_search(
        self,
        query_embedding: Vector,
        top_k: int = 10,
        similarity_threshold: float = 0.0,
        where: Where | None = None,
    ) -> list[SearchResult]:
        """Find the nearest chunks: scores 0-1, descending, none below the threshold."""
        pool, store = self._opened()
        query = batch.to_query(query_embedding, store.dimensions)
        condition = filters.compile_where(where)
        return await pool.read(
            lambda connection: vectors.search(
                connection, store, query, top_k, similarity_threshold, condition
            )
        )

    @translated
    async def keyword_search(
        self,
        query: str,
        top_k: int = 10,
        source_types: list[str] | None = None,
        languages: list[str] | None = None,
        explain: bool = False,
        where: Where | None = None,
    ) -> list[SearchResult]:
        """Find chunks by their words: scores 0-1, the best is 1.

        Understands `"quoted phrases"`, `-word` and `OR`. With `explain`, `matched_terms` lists
        the words that hit, as they stand in the text.
        """
        pool, store = self._opened()
        condition = _condition(where, source_types, languages)
        return await pool.read(
            lambda connection: keywords.search(
                connection, store, query, top_k, condition, explain
            )
        )

    @translated
    async def hybrid_search(
        self,
        query: str,
        query_embedding: Vector,
        top_k: int = 10,
        *,
        fusion: Literal["relative", "rrf"] = "relative",
        vector_weight: float | None = None,
        keyword_weight: float | None = None,
        rrf_k: int = 60,
        similarity_threshold: float = 0.0,
        source_types: list[str] | None = None,
        languages: list[str] | None = None,
        where: Where | None = None,
        explain: bool = False,
    ) -> list[SearchResult]:
        """Find chunks by vector and by words at once, fused in the database.

        `fusion` "relative" adds the weighted scores of the branches, "rrf" their weighted
        reciprocal ranks. Weights are relative to each other; None takes the measured defaults.
        """
        pool, store = self._opened()
        vector = batch.to_query(query_embedding, store.dimensions)
        condition = _condition(where, source_types, languages)
        return await pool.read(
            lambda connection: hybrid.search(
                connection, store, query, vector, top_k,
                fusion=fusion, vector_weight=vector_weight, keyword_weight=keyword_weight,
                rrf_k=rrf_k, similarity_threshold=similarity_threshold, filter=condition,
                explain=explain,
            )
        )

    async def hybrid_search_with_rrf(
        self,
        query: str,
        query_embedding: Vector,
        top_k: int = 10,
        vector_weight: float = 0.5,
        keyword_weight: float = 0.5,
        rrf_k: int = 60,
    ) -> list[SearchResult]:
        """Find chunks by vector and by words at once, fused by reciprocal rank."""
        return await self.hybrid_search(
            query, query_embedding, top_k, fusion="rrf",
            vector_weight=vector_weight, keyword_weight=keyword_weight, rrf_k=rrf_k,
        )

    @translated
    async def get_count(self, where: Where | None = None) -> int:
        """Count the chunks, those that match `where` when it is given."""
        pool, store = self._opened()
        condition = filters.compile_where(where)
        statement = sql.SQL(COUNT).format(chunks=store.chunks, condition=condition.sql)

        async def work(connection: Connection) -> int:
            row = await (await connection.execute(statement, condition.params)).fetchone()
            return int(row[0]) if row is not None else 0

        return await pool.read(work)

    @translated
    async def get_by_id(self, chunk_id: str) -> dict[str, Any] | None:
        """Give `{"text", "metadata"}` of a chunk, or None."""
        pool, store = self._opened()
        statement = sql.SQL(GET).format(chunks=store.chunks)

        async def work(connection: Connection) -> dict[str, Any] | None:
            cursor = await connection.execute(statement, (sanitize_text(chunk_id),))
            row = await cursor.fetchone()
            return None if row is None else {"text": row[0], "metadata": row[1]}

        return await pool.read(work)

    async def get_chunk_by_id(self, chunk_id: str) -> ChunkRecord | None:
        """Give the chunk as the core's `ChunkRecord`, or None."""
        found = await self.get_by_id(chunk_id)
        if found is None:
            return None
        return chunk_record.create(chunk_id, found["text"], found["metadata"])

    @translated
    async def delete_by_ids(self, ids: list[str]) -> int:
        """Delete chunks; the number that existed."""
        pool, store = self._opened()
        if not ids:
            return 0
        return await ingest.delete_ids(pool, store, sorted({sanitize_text(i) for i in ids}))

    @translated
    async def delete_by_metadata(self, where: Where) -> int:
        """Delete the chunks that match a filter; an empty one is refused, never "everything"."""
        pool, store = self._opened()
        condition = filters.compile_where(where)
        if condition.empty:
            raise InvalidFilter(
                "delete_by_metadata: an empty filter would delete every chunk; use reset() if that "
                "is meant"
            )
        return await ingest.delete_where(pool, store, condition)

    @translated
    async def get_embedding_metadata(self) -> EmbeddingMetadata | None:
        """Read which model made the vectors; None when it was never said."""
        pool, store = self._opened()
        return await pool.read(lambda connection: embedding_metadata.read(connection, store))

    @translated
    async def set_embedding_metadata(self, provider: str, model: str, dimensions: int) -> None:
        """Remember which model made the vectors."""
        pool, store = self._opened()
        async with pool.transaction() as connection:
            await embedding_metadata.write(connection, store, provider, model, dimensions)

    def validate_embedding_compatibility(
        self,
        provider: str,
        model: str,
        dimensions: int,
        stored_metadata: EmbeddingMetadata | None,
    ) -> None:
        """Raise `ProviderMismatchError` unless provider, model and dimensions are as stored."""
        embedding_metadata.check_compatible(provider, model, dimensions, stored_metadata)

    @translated
    async def reset(self) -> None:
        """Empty the store; it stays initialized, with its dimensions."""
        pool, store = self._opened()
        assert self._indexer is not None
        async with self._indexer.paused(), pool.transaction() as connection:
            self._store = await schema.clear(connection, store, self.config)
        self._vocabulary = Vocabulary(self._store.language)

    @translated
    async def wait_until_indexed(self, timeout: float | None = None) -> None:
        """Return when no index is being built and searches run on it; `timeout` in seconds."""
        _, store = self._opened()
        assert self._indexer is not None
        await self._indexer.wait(store, timeout)

    async def health(self) -> dict[str, Any]:
        """Describe pool, database, store and index within a second, whatever has failed."""
        from agent_brain_postgres import health

        return await health.document(self)


def _close_unused(starting: asyncio.Future[EmbeddedServer]) -> None:
    if not starting.cancelled() and starting.exception() is None:
        starting.result().close()


def _core_dimensions() -> int | None:
    from agent_brain_postgres.core import provider

    return provider.embedding_dimensions()


def _condition(
    where: Where | None, source_types: list[str] | None, languages: list[str] | None
) -> filters.Filter:
    return filters.compile_where(
        filters.combine(where, filters.source_filter(source_types, languages))
    )

