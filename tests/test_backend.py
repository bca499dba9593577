"""The contract of `PostgresBackend`, member by member."""

from __future__ import annotations

import asyncio
import inspect
import math
from typing import Any

import psycopg
import pytest

from agent_brain_postgres import (
    EmbeddingMetadata,
    PostgresBackend,
    ProviderMismatchError,
    SearchResult,
    StorageError,
)

from .chunks import make_chunks
from .conftest import DIMENSIONS, MakeBackend, config_for

VECTOR = [1.0] + [0.0] * (DIMENSIONS - 1)

CALLS: dict[str, tuple[Any, ...]] = {
    "upsert_documents": (["a"], [VECTOR], ["text"], [{}]),
    "vector_search": (VECTOR, 3, 0.0),
    "keyword_search": ("text", 3),
    "hybrid_search": ("text", VECTOR, 3),
    "hybrid_search_with_rrf": ("text", VECTOR, 3),
    "get_count": (),
    "get_by_id": ("a",),
    "get_chunk_by_id": ("a",),
    "delete_by_ids": (["a"],),
    "delete_by_metadata": ({"k": 1},),
    "get_embedding_metadata": (),
    "set_embedding_metadata": ("openai", "m", DIMENSIONS),
    "reset": (),
    "wait_until_indexed": (1.0,),
}
NEVER_RAISE = {"close": (), "health": (), "initialize": ()}


def test_the_lists_above_name_every_public_coroutine() -> None:
    public = {
        name
        for name, member in inspect.getmembers(PostgresBackend)
        if not name.startswith("_") and inspect.iscoroutinefunction(inspect.unwrap(member))
    }
    assert public == CALLS.keys() | NEVER_RAISE.keys()


@pytest.mark.parametrize("name", [name for name in CALLS if name != "wait_until_indexed"])
async def test_every_method_raises_storage_errors_only(
    backend: PostgresBackend, dsn: str, name: str
) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("DROP SCHEMA agent_brain CASCADE")
    with pytest.raises(StorageError) as caught:
        await getattr(backend, name)(*CALLS[name])
    assert isinstance(caught.value.__cause__, psycopg.Error)
    assert caught.value.backend == "postgres"


@pytest.mark.parametrize("name", CALLS)
async def test_every_method_says_when_the_backend_is_not_initialised(
    config: Any, name: str
) -> None:
    with pytest.raises(StorageError, match=r"initialize\(\)"):
        await getattr(PostgresBackend(config), name)(*CALLS[name])


async def test_scores_are_cosine_similarities_and_descend(backend: PostgresBackend) -> None:
    chunks = make_chunks(40)
    await backend.upsert_documents(*chunks)
    query = chunks.embeddings[11]
    found = await backend.vector_search(query, 40, 0.0)
    assert len(found) == 40
    assert [r.score for r in found] == sorted((r.score for r in found), reverse=True)
    by_id = dict(zip(chunks.ids, chunks.embeddings, strict=True))
    for result in found:
        expected = max(0.0, sum(a * b for a, b in zip(query, by_id[result.chunk_id], strict=True)))
        assert result.score == pytest.approx(expected, abs=1e-6)
    assert found[0] == SearchResult(
        chunks.documents[11], chunks.metadatas[11], found[0].score, chunks.ids[11]
    )


@pytest.mark.parametrize("metric", ["cosine", "l2", "inner_product"])
async def test_scores_lie_between_0_and_1_in_every_metric(
    make_backend: MakeBackend, metric: str
) -> None:
    backend = await make_backend(metric=metric)
    chunks = make_chunks(30)
    long = [[37.0 * x for x in vector] for vector in chunks.embeddings]
    await backend.upsert_documents(chunks.ids, long, chunks.documents, chunks.metadatas)
    found = await backend.vector_search(long[0], 30, 0.0)
    scores = [r.score for r in found]
    assert len(scores) == 30
    assert all(0.0 <= score <= 1.0 for score in scores)
    assert scores == sorted(scores, reverse=True)
    assert found[0].score > found[-1].score


async def test_a_threshold_cuts_and_top_k_counts(backend: PostgresBackend) -> None:
    chunks = make_chunks(60)
    await backend.upsert_documents(*chunks)
    everything = await backend.vector_search(chunks.embeddings[0], 60, 0.0)
    above = [r for r in everything if r.score >= 0.3]
    assert 0 < len(above) < 60
    assert await backend.vector_search(chunks.embeddings[0], 60, 0.3) == above
    assert len(await backend.vector_search(chunks.embeddings[0], 50)) == 50
    assert await backend.vector_search(chunks.embeddings[0], 0) == []


async def test_a_zero_vector_is_stored_and_scores_0(backend: PostgresBackend) -> None:
    zero = [0.0] * DIMENSIONS
    await backend.upsert_documents(["zero", "one"], [zero, VECTOR], ["a", "b"], [{}, {}])
    found = await backend.vector_search(VECTOR, 5, 0.0)
    assert [(r.chunk_id, r.score) for r in found] == [("one", 1.0), ("zero", 0.0)]
    assert {r.score for r in await backend.vector_search(zero, 5, 0.0)} == {0.0}


@pytest.mark.parametrize(
    "query", [[1.0], [math.nan] * DIMENSIONS, [math.inf] * DIMENSIONS, [], None, ["a"] * DIMENSIONS]
)
async def test_a_query_vector_that_cannot_match_is_refused(
    backend: PostgresBackend, query: Any
) -> None:
    with pytest.raises(StorageError):
        await backend.vector_search(query, 3)


async def test_counting_with_a_filter(backend: PostgresBackend) -> None:
    await backend.upsert_documents(*make_chunks(30))
    assert await backend.get_count() == 30
    assert await backend.get_count({"source_type": "code"}) == 15
    assert await backend.get_count({"source_type": {"$in": ["code", "doc"]}}) == 30
    assert await backend.get_count({"nothing": 1}) == 0


async def test_a_chunk_by_id(backend: PostgresBackend) -> None:
    await backend.upsert_documents(
        ["c"], [VECTOR], ["text"], [{"source": "/p/a.py", "language": "python"}]
    )
    record = await backend.get_chunk_by_id("c")
    assert record is not None
    assert (record.chunk_id, record.content, record.source) == ("c", "text", "/p/a.py")
    assert (record.folder_id, record.parent_doc_id, record.language) == ("/p", "/p/a.py", "python")
    assert await backend.get_chunk_by_id("absent") is None
    assert await backend.get_by_id("absent") is None


async def test_the_embedding_model_is_one_row(backend: PostgresBackend) -> None:
    assert await backend.get_embedding_metadata() is None
    await backend.set_embedding_metadata("openai", "small", 8)
    await backend.set_embedding_metadata("EmbeddingProviderType.OLLAMA", "nomic", 8)
    assert await backend.get_embedding_metadata() == EmbeddingMetadata("ollama", "nomic", 8)


@pytest.mark.parametrize(
    ("stored", "compatible"),
    [
        (None, True),
        (EmbeddingMetadata("openai", "small", 8), True),
        (EmbeddingMetadata("EmbeddingProviderType.OPENAI", "small", 8), True),
        (EmbeddingMetadata("cohere", "small", 8), False),
        (EmbeddingMetadata("openai", "large", 8), False),
        (EmbeddingMetadata("openai", "small", 16), False),
    ],
)
def test_another_provider_model_or_dimension_is_refused(
    config: Any, stored: EmbeddingMetadata | None, compatible: bool
) -> None:
    backend = PostgresBackend(config)
    if compatible:
        backend.validate_embedding_compatibility("openai", "small", 8, stored)
    else:
        with pytest.raises(ProviderMismatchError):
            backend.validate_embedding_compatibility("openai", "small", 8, stored)


QUERIES = [
    "", " ", "\x00", "\ud800", "the of and", '"', '"unclosed', "-", "- -", "OR", "OR OR", "a OR",
    "-vector", '-"vector index"', "&|!():*<->", "vector & ! (", "';DROP TABLE chunks;--", "%s %(a)s",
    "\\", "x" * 3000, "日本語", "🦜", "vector " * 150, "a.b/c_d-e", "e\u0301",
]


@pytest.mark.parametrize("query", QUERIES, ids=range(len(QUERIES)))
async def test_any_string_is_a_legal_query(backend: PostgresBackend, query: str) -> None:
    await backend.upsert_documents(*make_chunks(10))
    for results in (
        await backend.keyword_search(query, 5),
        await backend.keyword_search(query, 5, explain=True),
        await backend.hybrid_search(query, VECTOR, 5),
        await backend.hybrid_search_with_rrf(query, VECTOR, 5),
    ):
        assert all(0.0 <= r.score <= 1.0 for r in results)


async def test_a_query_of_a_megabyte_is_legal(backend: PostgresBackend) -> None:
    await backend.upsert_documents(*make_chunks(10))
    query = " ".join(f"vector{i}" for i in range(100_000))
    assert isinstance(await backend.keyword_search(query, 5), list)
    assert isinstance(await backend.keyword_search("y" * 1_000_000, 5), list)


async def test_keyword_scores_and_terms(backend: PostgresBackend) -> None:
    await backend.upsert_documents(*make_chunks(50))
    found = await backend.keyword_search("how does the vector index find a chunk?", 10)
    assert found[0].score == pytest.approx(1.0)
    assert all(r.matched_terms is None for r in found)
    explained = await backend.keyword_search("vector index", 10, explain=True)
    assert all(set(r.matched_terms or ()) & {"vector", "index"} for r in explained)


async def test_keyword_search_filters_by_source_type_and_language(
    backend: PostgresBackend,
) -> None:
    await backend.upsert_documents(*make_chunks(90))
    found = await backend.keyword_search("vector", 50, source_types=["code"], languages=["go", "c"])
    assert found
    assert all(r.metadata["source_type"] == "code" for r in found)
    assert {r.metadata["language"] for r in found} <= {"go", "c"}


async def test_closing_twice_and_again_after_a_cancelled_call(backend: PostgresBackend) -> None:
    await backend.upsert_documents(*make_chunks(10))
    running = asyncio.create_task(backend.upsert_documents(*make_chunks(3000, seed=3)))
    await asyncio.sleep(0.05)
    running.cancel()
    await backend.close()
    await backend.close()
    assert not backend.is_initialized
    await asyncio.gather(running, return_exceptions=True)
    await backend.initialize()
    assert await backend.get_count() in (10, 3000)


async def test_a_cancelled_search_leaves_the_pool_working(backend: PostgresBackend) -> None:
    await backend.upsert_documents(*make_chunks(10))
    for _ in range(8):
        task = asyncio.create_task(backend.vector_search(VECTOR, 3))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    results = await asyncio.gather(*(backend.vector_search(VECTOR, 3) for _ in range(16)))
    assert all(len(r) == 3 for r in results)


def test_a_backend_outlives_its_event_loop(dsn: str) -> None:
    backend = PostgresBackend(config_for(dsn), embedding_dimensions=DIMENSIONS)

    async def use(count: int) -> None:
        await backend.initialize()
        await backend.upsert_documents(*make_chunks(3, prefix=f"loop{count}"))
        assert await backend.get_count() == 3 * count
        await backend.close()

    asyncio.run(use(1))
    asyncio.run(use(2))
