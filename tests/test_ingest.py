"""What `upsert_documents` and the deletes promise."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_brain_postgres import PostgresBackend, StorageError, write_lock
from agent_brain_postgres.batch import BLOCK_BYTES, BLOCK_ROWS, prepare
from agent_brain_postgres.statistics import MOST_DELTAS

from .chunks import Chunks, make_chunks
from .conftest import DIMENSIONS, MakeBackend

STATISTICS = """
SELECT lexeme, sum(chunks), sum(occurrences) FROM agent_brain.lexeme_statistics
GROUP BY lexeme HAVING sum(chunks) <> 0 OR sum(occurrences) <> 0
"""
RECOUNT = """
SELECT word.lexeme, count(*), sum(cardinality(word.positions))
FROM agent_brain.chunks, unnest(lexemes) AS word GROUP BY word.lexeme
UNION ALL
SELECT '', count(*), sum(length) FROM agent_brain.chunks HAVING count(*) > 0
"""

# The first ones: what comes later may be put into pages that were left free.
STORED = "SELECT chunk_id FROM agent_brain.chunks ORDER BY ctid LIMIT 200"


def rows(dsn: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(statement).fetchall()


def assert_statistics_exact(dsn: str) -> None:
    assert sorted(rows(dsn, STATISTICS)) == sorted(rows(dsn, RECOUNT))


async def test_everything_written_can_be_read(backend: PostgresBackend) -> None:
    chunks = make_chunks(50)
    assert await backend.upsert_documents(*chunks) == 50
    assert await backend.get_count() == 50
    for i, chunk_id in enumerate(chunks.ids):
        assert await backend.get_by_id(chunk_id) == {
            "text": chunks.documents[i],
            "metadata": chunks.metadatas[i],
        }


def test_blocks_are_bounded_in_rows_and_in_bytes() -> None:
    sizes = [8] * (BLOCK_ROWS + 1) + [BLOCK_BYTES // 3] * 4 + [2 * BLOCK_BYTES, 8]
    ids = [f"{i:06}" for i in range(len(sizes))]
    vectors = np.ones((len(sizes), 2))
    batch = prepare(ids, vectors, ["x" * size for size in sizes], [None] * len(sizes), 2)
    starts = [block.start for block in batch.blocks()]
    large = BLOCK_ROWS + 1
    assert starts == [0, BLOCK_ROWS, large + 2, large + 4, large + 5]
    assert [row for block in batch.blocks() for row in block] == list(range(len(sizes)))


@pytest.mark.parametrize("document", ["", "the and of", "!!! ..."])
async def test_texts_without_a_word_are_stored(
    make_backend: MakeBackend, dsn: str, document: str
) -> None:
    backend = await make_backend()
    ids, embeddings, _, _ = make_chunks(2)
    await backend.upsert_documents(ids, embeddings, [document] * 2, [None, None])
    assert await backend.get_by_id(ids[0]) == {"text": document, "metadata": {}}
    assert_statistics_exact(dsn)


async def test_metadata_may_be_nested_deeply(backend: PostgresBackend) -> None:
    deep: Any = "bottom"
    for _ in range(400):
        deep = {"in": [deep]}
    ids, embeddings, documents, _ = make_chunks(1)
    await backend.upsert_documents(ids, embeddings, documents, [{"deep": deep}])
    found = await backend.get_by_id(ids[0])
    assert found is not None
    assert found["metadata"] == {"deep": deep}


async def test_arguments_can_be_named(backend: PostgresBackend) -> None:
    ids, embeddings, documents, metadatas = make_chunks(2)
    await backend.upsert_documents(
        ids=ids, embeddings=embeddings, documents=documents, metadatas=metadatas
    )
    assert await backend.get_count() == 2


async def test_nothing_is_a_legal_batch(backend: PostgresBackend) -> None:
    assert await backend.upsert_documents([], [], [], []) == 0


async def test_numpy_rows_and_lists_of_floats_store_the_same_vectors(
    backend: PostgresBackend, dsn: str
) -> None:
    chunks = make_chunks(6)
    matrix = np.array(chunks.embeddings)
    forms: list[Any] = [
        chunks.embeddings,
        matrix,
        matrix.astype(np.float32),
        list(matrix.astype(np.float32)),
        [tuple(row) for row in chunks.embeddings],
    ]
    stored = []
    for form in forms:
        await backend.reset()
        await backend.upsert_documents(chunks.ids, form, chunks.documents, chunks.metadatas)
        stored.append(rows(dsn, "SELECT chunk_id, embedding::text FROM agent_brain.chunks"))
    assert all(sorted(s) == sorted(stored[0]) for s in stored)


async def test_the_last_of_duplicate_ids_wins(backend: PostgresBackend) -> None:
    vector = [1.0] * DIMENSIONS
    written = await backend.upsert_documents(
        ["a", "b", "a"], [vector] * 3, ["first", "other", "last"], [{}, {}, {"n": 2}]
    )
    assert written == 3
    assert await backend.get_count() == 2
    assert await backend.get_by_id("a") == {"text": "last", "metadata": {"n": 2}}


async def test_an_unchanged_chunk_is_not_rewritten(backend: PostgresBackend, dsn: str) -> None:
    chunks = make_chunks(20)
    await backend.upsert_documents(*chunks)
    where_rows_are = "SELECT chunk_id, ctid::text, xmin::text FROM agent_brain.chunks ORDER BY 1"
    before = rows(dsn, where_rows_are)
    chunks.documents[3] = "changed text"
    chunks.metadatas[5]["chunk_index"] = -1
    chunks.embeddings[7] = [0.5] * DIMENSIONS
    await backend.upsert_documents(*chunks)
    after = rows(dsn, where_rows_are)
    moved = {old[0] for old, new in zip(before, after, strict=True) if old != new}
    assert moved == {chunks.ids[3], chunks.ids[5], chunks.ids[7]}


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda c: c.embeddings.__setitem__(4, [0.0] * (DIMENSIONS - 1)), "row 4"),
        (lambda c: c.embeddings[4].__setitem__(2, float("nan")), "row 4"),
        (lambda c: c.embeddings[4].__setitem__(2, float("inf")), "row 4"),
        (lambda c: c.embeddings[4].__setitem__(2, 1e39), "row 4"),
        (lambda c: c.embeddings[4].__setitem__(2, "0.1"), "row 4"),
        (lambda c: c.embeddings.__setitem__(4, None), "row 4"),
        (lambda c: c.metadatas.__setitem__(4, {"x": float("nan")}), "row 4"),
        (lambda c: c.documents.__setitem__(4, None), "row 4"),
        (lambda c: c.ids.pop(), "length"),
        (lambda c: c.metadatas.pop(), "length"),
    ],
)
async def test_bad_input_is_refused_by_row_and_nothing_is_written(
    backend: PostgresBackend, spoil: Any, named: str
) -> None:
    kept = make_chunks(3, prefix="kept")
    await backend.upsert_documents(*kept)
    chunks = make_chunks(6)
    spoil(chunks)
    with pytest.raises(ValueError, match=named) as caught:
        await backend.upsert_documents(*chunks)
    assert isinstance(caught.value, StorageError)
    assert await backend.get_count() == 3


async def test_a_batch_that_fails_half_way_leaves_nothing(
    backend: PostgresBackend, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await backend.upsert_documents(*make_chunks(10))
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "ALTER TABLE agent_brain.chunks ADD CONSTRAINT no_poison CHECK (document <> 'poison')"
        )
    chunks = make_chunks(5000, prefix="z")
    chunks.documents[4999] = "poison"
    with pytest.raises(StorageError, match="no_poison"):
        await backend.upsert_documents(*chunks)
    assert await backend.get_count() == 10
    assert_statistics_exact(dsn)


async def test_characters_that_postgresql_refuses_do_not_fail_the_batch(
    backend: PostgresBackend,
) -> None:
    vector = [1.0] * DIMENSIONS
    await backend.upsert_documents(
        ["nul\x00id", "surrogate"],
        [vector, vector],
        ["a\x00b", "c\ud800d"],
        [{"k\x00": "v\x00", "n": {"x": ["\ud800"]}}, {"escaped": "\\u0000"}],
    )
    assert await backend.get_by_id("nulid") == {
        "text": "ab",
        "metadata": {"k": "v", "n": {"x": ["\ufffd"]}},
    }
    assert await backend.get_by_id("nul\x00id") == await backend.get_by_id("nulid")
    found = await backend.get_by_id("surrogate")
    assert found == {"text": "c\ufffdd", "metadata": {"escaped": "\\u0000"}}


async def test_text_beyond_the_limit_of_tsvector_is_stored(backend: PostgresBackend) -> None:
    text = " ".join(f"word{i:x}" for i in range(200_000))
    await backend.upsert_documents(["big"], [[1.0] * DIMENSIONS], [text], [{}])
    found = await backend.get_by_id("big")
    assert found is not None
    assert found["text"] == text
    assert [r.chunk_id for r in await backend.keyword_search("word1a", 1)] == ["big"]


async def test_statistics_stay_exact_through_upserts_deletes_and_reset(
    backend: PostgresBackend, dsn: str
) -> None:
    await backend.upsert_documents(*make_chunks(60, seed=1))
    await backend.upsert_documents(*make_chunks(40, seed=2))  # other texts, the same ids
    assert_statistics_exact(dsn)
    await backend.delete_by_ids([f"chunk_{i:06d}" for i in range(10, 20)])
    await backend.delete_by_metadata({"language": "go"})
    assert_statistics_exact(dsn)
    await backend.reset()
    assert rows(dsn, STATISTICS) == []


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("upsert"), st.lists(st.integers(0, 9), min_size=1, max_size=6)),
            st.tuples(st.just("delete"), st.lists(st.integers(0, 9), max_size=4)),
        ),
        max_size=6,
    )
)
async def test_any_history_leaves_the_rows_of_a_dictionary(
    backend: PostgresBackend, dsn: str, steps: list[tuple[str, list[int]]]
) -> None:
    await backend.reset()
    model: dict[str, str] = {}
    for turn, (verb, numbers) in enumerate(steps):
        ids = [f"id{n}" for n in numbers]
        if verb == "upsert":
            texts = [f"text {turn} {i}" for i in range(len(ids))]
            await backend.upsert_documents(
                ids, [[1.0] * DIMENSIONS] * len(ids), texts, [{}] * len(ids)
            )
            model.update(zip(ids, texts, strict=True))
        else:
            assert await backend.delete_by_ids(ids) == len(set(ids) & model.keys())
            for chunk_id in ids:
                model.pop(chunk_id, None)
    stored = rows(dsn, "SELECT chunk_id, document FROM agent_brain.chunks")
    assert dict(stored) == model
    assert_statistics_exact(dsn)


async def test_overlapping_writers_neither_deadlock_nor_lose_rows(
    make_backend: MakeBackend, dsn: str
) -> None:
    backends = [await make_backend() for _ in range(3)]

    async def write(backend: PostgresBackend, seed: int) -> None:
        await backend.upsert_documents(*shuffled(make_chunks(300, seed=seed), seed))

    for turn in range(4):
        await asyncio.gather(
            *(write(b, 10 * turn + i) for i, b in enumerate(backends)),
            backends[0].delete_by_ids([f"chunk_{i:06d}" for i in range(0, 300, 3)]),
        )
        assert await backends[0].get_count() in range(200, 301)
        assert_statistics_exact(dsn)


def shuffled(chunks: Chunks, seed: int) -> Chunks:
    order = np.random.default_rng(seed).permutation(len(chunks.ids)).tolist()
    return Chunks(*([column[i] for i in order] for column in chunks))


async def test_large_overlapping_batches_do_not_collide(
    make_backend: MakeBackend, dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "agent_brain_postgres.ingest")
    backends = [await make_backend() for _ in range(4)]
    for turn in range(3):
        first = turn * BLOCK_ROWS  # new ids and known ones
        await asyncio.gather(*(
            b.upsert_documents(*shuffled(make_chunks(first + BLOCK_ROWS + 1 + i, seed=i), 7 * turn + i))
            for i, b in enumerate(backends)
        ))
    assert await backends[0].get_count() == 3 * BLOCK_ROWS + 4
    assert_statistics_exact(dsn)
    assert "collided" not in caplog.text


async def test_rows_are_stored_in_the_order_of_the_batch(
    backend: PostgresBackend, dsn: str
) -> None:
    chunks = shuffled(make_chunks(BLOCK_ROWS + 1), 1)
    await backend.upsert_documents(*chunks)
    assert [chunk_id for chunk_id, in rows(dsn, STORED)] == chunks.ids[:200]


async def test_writers_wait_for_the_one_before(backend: PostgresBackend, dsn: str) -> None:
    await backend.upsert_documents(*make_chunks(2, prefix="old"))
    assert backend._store is not None
    async with await psycopg.AsyncConnection.connect(dsn) as other:
        await write_lock.take(other, backend._store, 60.0)
        writers = [
            asyncio.create_task(work)
            for work in (
                backend.upsert_documents(*make_chunks(3)),
                backend.delete_by_ids(["old_000000"]),
                backend.delete_by_metadata({"chunk_index": 1}),
            )
        ]
        done, _ = await asyncio.wait(writers, timeout=0.5)
        assert not done
        assert await backend.get_count() == 2
        await other.rollback()
        await asyncio.gather(*writers)
    assert await backend.get_by_id("old_000000") is None


async def test_waiting_in_line_may_take_longer_than_a_statement(
    make_backend: MakeBackend, dsn: str
) -> None:
    backend = await make_backend(statement_timeout=0.3)
    assert backend._store is not None
    async with await psycopg.AsyncConnection.connect(dsn) as other:
        await write_lock.take(other, backend._store, 60.0)
        writer = asyncio.create_task(backend.upsert_documents(*make_chunks(3)))
        await asyncio.wait([writer], timeout=1.0)
        await other.rollback()
        assert await writer == 3
        await other.execute("LOCK TABLE agent_brain.chunks")
        with pytest.raises(StorageError):
            await backend.upsert_documents(*make_chunks(4))


async def test_deleting_by_ids_counts_what_existed(backend: PostgresBackend) -> None:
    await backend.upsert_documents(*make_chunks(5))
    assert await backend.delete_by_ids([]) == 0
    assert await backend.delete_by_ids(["chunk_000001", "chunk_000001", "absent"]) == 1
    assert await backend.get_count() == 4


@pytest.mark.parametrize("where", [{}, None, {"$and": []}])
async def test_an_empty_filter_never_deletes_everything(
    backend: PostgresBackend, where: Any
) -> None:
    await backend.upsert_documents(*make_chunks(5))
    with pytest.raises(StorageError):
        await backend.delete_by_metadata(where)
    assert await backend.get_count() == 5


async def test_deleting_by_metadata_takes_the_whole_dialect(backend: PostgresBackend) -> None:
    await backend.upsert_documents(*make_chunks(30))
    deleted = await backend.delete_by_metadata(
        {"$and": [{"language": {"$in": ["python", "c"]}}, {"chunk_index": {"$lt": 12}}]}
    )
    assert deleted == 8
    assert await backend.get_count() == 22


async def test_the_first_vector_says_the_dimensions_when_nothing_else_does(
    make_backend: MakeBackend, dsn: str
) -> None:
    first, second = await make_backend(None), await make_backend(None)
    assert first.embedding_dimensions is None
    assert await first.vector_search([1.0, 2.0], 3) == []
    await first.upsert_documents(*make_chunks(3, dimensions=5))
    assert first.embedding_dimensions == 5
    with pytest.raises(StorageError, match="5"):
        await second.upsert_documents(*make_chunks(3, dimensions=6, prefix="other"))
    type_name = rows(
        dsn,
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute "
        "WHERE attrelid = 'agent_brain.chunks'::regclass AND attname = 'embedding'",
    )
    assert type_name == [("vector(5)",)]


async def test_deltas_of_the_statistics_are_added_up_before_they_are_many(
    make_backend: MakeBackend, dsn: str
) -> None:
    backends = [await make_backend() for _ in range(2)]
    for turn in range(75):
        await asyncio.gather(
            *(b.upsert_documents(*make_chunks(2, seed=turn, prefix=f"{i}_{turn % 9}"))
              for i, b in enumerate(backends))
        )
    (most,) = rows(dsn, "SELECT max(n) FROM (SELECT count(*) AS n "
                        "FROM agent_brain.lexeme_statistics GROUP BY lexeme) AS counts")[0]
    assert most <= 2 * MOST_DELTAS + 2  # a rewritten chunk has a delta for each of its forms
    assert_statistics_exact(dsn)


async def test_batches_of_many_blocks_do_without_a_spare_connection(
    make_backend: MakeBackend, dsn: str
) -> None:
    lone = await make_backend(pool_size=1, pool_max=1)
    await lone.upsert_documents(*make_chunks(2 * BLOCK_ROWS + 1, prefix="lone"))
    pair = await make_backend(pool_size=2, pool_max=2)
    await asyncio.gather(
        *(pair.upsert_documents(*make_chunks(BLOCK_ROWS + 1, prefix=str(i))) for i in range(4))
    )
    assert await pair.get_count() == 2 * BLOCK_ROWS + 1 + 4 * (BLOCK_ROWS + 1)
    assert_statistics_exact(dsn)
