"""What is compared: hand-written SQL, this backend, and every peer that is installed.

Each runs in a process of its own (see `worker.py`), so each may live in an environment of its own.
Imports are inside: a worker has what its contender needs, not what the others do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from importlib import import_module
from typing import Any, Protocol

from workload import Workload

BATCH = 10_000
Where = dict[str, Any] | None


class Contender(Protocol):
    """One system on an empty database of its own."""

    async def start(self, dsn: str, work: Workload) -> None:
        """Connect and create what is needed before the first row."""

    async def add(self, start: int, stop: int) -> None:
        """Store the rows start..stop of the workload."""

    async def ready(self) -> None:
        """Return when searches run on an index."""

    async def search(self, query: int, k: int, where: Where) -> list[str]:
        """Give the ids of the nearest rows to a query of the workload."""


class Ours:
    """This backend, as a host uses it."""

    async def start(self, dsn: str, work: Workload) -> None:
        from agent_brain_postgres import PostgresBackend, PostgresConfig

        self.work = work
        config = PostgresConfig(pool_size=4, pool_max=32).with_connection(dsn, "benchmark")
        self.backend = PostgresBackend(config, embedding_dimensions=work.vectors.shape[1])
        await self.backend.initialize()

    async def add(self, start: int, stop: int) -> None:
        work = self.work
        await self.backend.upsert_documents(
            work.ids[start:stop], work.vectors[start:stop], work.documents[start:stop],
            work.metadatas[start:stop],
        )

    async def ready(self) -> None:
        await self.backend.wait_until_indexed()

    async def search(self, query: int, k: int, where: Where) -> list[str]:
        found = await self.backend.vector_search(self.work.queries[query], k, 0.0, where)
        return [result.chunk_id for result in found]

    async def keyword(self, query: int, k: int) -> list[str]:
        found = await self.backend.keyword_search(self.work.questions[query], k)
        return [result.chunk_id for result in found]

    async def hybrid(self, query: int, k: int) -> list[str]:
        work = self.work
        found = await self.backend.hybrid_search(work.questions[query], work.queries[query], k)
        return [result.chunk_id for result in found]


class CorePostgres(Ours):
    """The published core's own PostgreSQL backend, with lists of floats as the core sends them."""

    async def start(self, dsn: str, work: Workload) -> None:
        from urllib.parse import quote

        core = import_module("agent_brain_server.storage.postgres")
        registry = import_module("agent_brain_server.providers.factory").ProviderRegistry
        registry.get_embedding_provider = lambda *_: _Lengths(work.vectors.shape[1])
        self.work = work
        target = dict(_parameters(dsn))
        host = str(target.get("host", "localhost"))
        config = core.PostgresConfig(
            host=host, port=int(target.get("port") or 5432), database=str(target["dbname"]),
            user=quote(str(target.get("user", "postgres"))), password=str(target.get("password", "")),
        )
        self.backend = core.PostgresBackend(config=config)
        await self.backend.initialize()

    async def add(self, start: int, stop: int) -> None:
        work = self.work
        for at in range(start, stop, 1_000):
            end = min(at + 1_000, stop)
            await self.backend.upsert_documents(
                ids=work.ids[at:end], embeddings=work.vectors[at:end].tolist(),
                documents=work.documents[at:end], metadatas=work.metadatas[at:end],
            )

    async def ready(self) -> None:
        return

    async def search(self, query: int, k: int, where: Where) -> list[str]:
        found = await self.backend.vector_search(
            query_embedding=self.work.queries[query].tolist(), top_k=k, similarity_threshold=0.0,
            where=where,
        )
        return [result.chunk_id for result in found]


class _Lengths:
    """Stands for the core's embedding provider, which is asked for the length of its vectors."""

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions

    def get_dimensions(self) -> int:
        return self.dimensions


class Vecs:
    """vecs: no text search."""

    async def start(self, dsn: str, work: Workload) -> None:
        vecs = import_module("vecs")
        self.work = work
        client = vecs.create_client(sqlalchemy_url(dsn, "psycopg2"))
        self.rows = client.get_or_create_collection("chunks", dimension=work.vectors.shape[1])
        self.method = vecs.IndexMethod.hnsw
        self.measure = vecs.IndexMeasure.cosine_distance

    async def add(self, start: int, stop: int) -> None:
        work = self.work
        self.rows.upsert(
            [(work.ids[i], work.vectors[i], work.metadatas[i]) for i in range(start, stop)]
        )

    async def ready(self) -> None:
        self.rows.create_index(method=self.method, measure=self.measure)

    async def search(self, query: int, k: int, where: Where) -> list[str]:
        filters = {key: {"$eq": value} for key, value in (where or {}).items()} or None
        return list(
            await asyncio.to_thread(
                self.rows.query, self.work.queries[query], limit=k, filters=filters,
                measure=self.measure,
            )
        )


class LangChain:
    """langchain-postgres, `PGVectorStore` with an HNSW index built at the end."""

    async def start(self, dsn: str, work: Workload) -> None:
        langchain = import_module("langchain_postgres")
        never = import_module("langchain_core.embeddings").FakeEmbeddings(
            size=work.vectors.shape[1]
        )
        self.work = work
        engine = langchain.PGEngine.from_connection_string(sqlalchemy_url(dsn, "psycopg"))
        await engine.ainit_vectorstore_table(
            "chunks", work.vectors.shape[1], id_column="langchain_id"
        )
        self.store = await langchain.PGVectorStore.create(engine, never, "chunks")
        self.names = {document: i for i, document in enumerate(work.documents)}

    async def add(self, start: int, stop: int) -> None:
        import uuid

        work = self.work
        await self.store.aadd_embeddings(
            work.documents[start:stop], work.vectors[start:stop].tolist(),
            work.metadatas[start:stop],
            [str(uuid.uuid5(uuid.NAMESPACE_URL, name)) for name in work.ids[start:stop]],
        )

    async def ready(self) -> None:
        indexes = import_module("langchain_postgres.v2.indexes")
        await self.store.aapply_vector_index(indexes.HNSWIndex())

    async def search(self, query: int, k: int, where: Where) -> list[str]:
        found = await self.store.asimilarity_search_by_vector(
            self.work.queries[query].tolist(), k=k, filter=where
        )
        return [self.work.ids[self.names[document.page_content]] for document in found]


class LlamaIndex:
    """llama-index-vector-stores-postgres with HNSW and text search."""

    async def start(self, dsn: str, work: Workload) -> None:
        llama = import_module("llama_index.vector_stores.postgres")
        self.work = work
        self.store = llama.PGVectorStore(
            connection_string=sqlalchemy_url(dsn, "psycopg2"),
            async_connection_string=sqlalchemy_url(dsn, "asyncpg"),
            table_name="chunks", schema_name="public", hybrid_search=True,
            embed_dim=work.vectors.shape[1], use_jsonb=True,
            hnsw_kwargs={"hnsw_m": 16, "hnsw_ef_construction": 64, "hnsw_ef_search": 40,
                         "hnsw_dist_method": "vector_cosine_ops"},
        )

    async def add(self, start: int, stop: int) -> None:
        schema = import_module("llama_index.core.schema")
        work = self.work
        nodes = [
            schema.TextNode(id_=work.ids[i], text=work.documents[i], metadata=work.metadatas[i],
                     embedding=work.vectors[i].tolist())
            for i in range(start, stop)
        ]
        for at in range(0, len(nodes), 1_000):
            await self.store.async_add(nodes[at : at + 1_000])

    async def ready(self) -> None:
        return

    async def search(self, query: int, k: int, where: Where) -> list[str]:
        stores = import_module("llama_index.core.vector_stores")
        filters = [
            stores.MetadataFilter(key=key, value=value) for key, value in (where or {}).items()
        ]
        found = await self.store.aquery(
            stores.VectorStoreQuery(
                query_embedding=self.work.queries[query].tolist(), similarity_top_k=k,
                filters=stores.MetadataFilters(filters=filters) if filters else None,
            )
        )
        return list(found.ids or [])


def sqlalchemy_url(dsn: str, driver: str) -> str:
    """Turn a libpq connection string into the URL that SQLAlchemy takes."""
    from urllib.parse import quote

    parts = dict(_parameters(dsn))
    user, password = quote(parts.pop("user", "postgres")), quote(parts.pop("password", ""))
    host, port = parts.pop("host", "localhost"), parts.pop("port", "5432")
    login = f"{user}:{password}" if password else user
    if host.startswith("/"):
        return f"postgresql+{driver}://{login}@/{parts['dbname']}?host={quote(host)}"
    return f"postgresql+{driver}://{login}@{host}:{port}/{parts['dbname']}"


def _parameters(dsn: str) -> Iterator[tuple[str, str]]:
    for part in dsn.split():
        name, _, value = part.partition("=")
        yield name, value.strip("'")


def create(name: str) -> Contender:
    """Make a contender by name."""
    from floor import Floor

    made: dict[str, Any] = {
        "floor": lambda: Floor(),
        "floor-exact": lambda: Floor("exact"),
        "floor-iterative": lambda: Floor("iterative"),
        "floor-accurate": lambda: Floor("accurate"),
        "ours": Ours,
        "core": CorePostgres,
        "vecs": Vecs,
        "langchain": LangChain,
        "llamaindex": LlamaIndex,
    }
    contender: Contender = made[name]()
    return contender
