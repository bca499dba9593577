"""Another embedding model: refused while there are chunks of the former, welcome when not."""

from __future__ import annotations

import psycopg
import pytest

from agent_brain_postgres.errors import InvalidInput, SchemaMismatch, StorageError

from .conftest import MakeBackend

Chunks = tuple[list[str], list[list[float]], list[str], list[dict[str, int]]]


def chunks(count: int, dimensions: int) -> Chunks:
    ids = [f"chunk_{i}" for i in range(count)]
    vectors = [[1.0 + i] + [0.5] * (dimensions - 1) for i in range(count)]
    return ids, vectors, [f"text {i}" for i in ids], [{"n": i} for i in range(count)]


def column(dsn: str) -> str:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(
            "SELECT format_type(atttypid, atttypmod) FROM pg_attribute "
            "WHERE attrelid = 'agent_brain.chunks'::regclass AND attname = 'embedding'"
        ).fetchone()
    assert row is not None
    return str(row[0])


async def test_after_reset_the_first_vector_says_the_dimensions_again(
    make_backend: MakeBackend, dsn: str
) -> None:
    backend = await make_backend(None)
    await backend.upsert_documents(*chunks(20, 4))
    with pytest.raises(InvalidInput, match=r"6 dimensions.*4"):
        await backend.upsert_documents(*chunks(2, 6))
    await backend.reset()
    assert await backend.upsert_documents(*chunks(20, 6)) == 20
    assert column(dsn) == "vector(6)"
    found = await backend.vector_search([1.0] + [0.5] * 5, top_k=3, similarity_threshold=0.0)
    assert len(found) == 3


async def test_an_index_on_the_former_vectors_is_no_obstacle(
    make_backend: MakeBackend, dsn: str
) -> None:
    backend = await make_backend(None)
    await backend.upsert_documents(*chunks(20, 4))
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "CREATE INDEX chunks_hnsw_old ON agent_brain.chunks "
            "USING hnsw ((embedding::halfvec(4)) halfvec_cosine_ops)"
        )
    await backend.delete_by_ids(chunks(20, 4)[0])
    assert await backend.upsert_documents(*chunks(5, 6)) == 5
    assert column(dsn) == "vector(6)"


async def test_dimensions_that_the_host_has_said_stay(make_backend: MakeBackend) -> None:
    backend = await make_backend(4)
    await backend.upsert_documents(*chunks(2, 4))
    await backend.reset()
    with pytest.raises(InvalidInput, match=r"6 dimensions.*4"):
        await backend.upsert_documents(*chunks(2, 6))


async def test_a_start_with_other_dimensions_is_refused_even_of_an_empty_table(
    make_backend: MakeBackend, dsn: str
) -> None:
    backend = await make_backend(4)
    await backend.upsert_documents(*chunks(2, 4))
    for _ in range(2):
        with pytest.raises(SchemaMismatch, match=r"have 4 dimensions.*6 are configured"):
            await make_backend(6)
        await backend.reset()
    assert await (await make_backend(None)).upsert_documents(*chunks(2, 6)) == 2
    assert column(dsn) == "vector(6)"
    # The process that still has the former model is refused by the column, not mixed in.
    with pytest.raises(StorageError, match="dimensions"):
        await backend.upsert_documents(*chunks(2, 4))
