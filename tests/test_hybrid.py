"""Search by vector and by words at once: the fusion, its parts and its limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from agent_brain_postgres import PostgresBackend, SearchResult, StorageError
from agent_brain_postgres.hybrid import HybridResult
from tests.chunks import WORDS, make_chunks
from tests.conftest import DIMENSIONS

RNG = np.random.default_rng(5)


@pytest.fixture
async def filled(backend: PostgresBackend) -> PostgresBackend:
    await backend.upsert_documents(*make_chunks(400, DIMENSIONS))
    return backend


def vector() -> NDArray[np.float32]:
    return RNG.standard_normal(DIMENSIONS).astype(np.float32)


async def hybrid(backend: PostgresBackend, *arguments: Any, **more: Any) -> list[HybridResult]:
    results = await backend.hybrid_search(*arguments, **more)
    assert all(isinstance(result, HybridResult) for result in results)
    return [result for result in results if isinstance(result, HybridResult)]


async def test_each_result_says_its_place_in_both_branches(filled: PostgresBackend) -> None:
    query, question = vector(), "vector recall"
    near = [r.chunk_id for r in await filled.vector_search(query, 100, 0.0)]
    worded = {r.chunk_id: r for r in await filled.keyword_search(question, 100)}
    for result in await hybrid(filled, question, query, 20):
        if result.vector_rank is not None:
            assert near[result.vector_rank - 1] == result.chunk_id
        if result.keyword_rank is not None:
            assert [*worded][result.keyword_rank - 1] == result.chunk_id
            assert result.keyword_score == pytest.approx(worded[result.chunk_id].score)
        assert result.vector_rank or result.keyword_rank


@pytest.mark.parametrize(("weights", "k"), [((0.5, 0.5), 60), ((0.8, 0.2), 5), ((1.0, 3.0), 0)])
async def test_rrf_is_the_weighted_sum_of_reciprocal_ranks(
    filled: PostgresBackend, weights: tuple[float, float], k: int
) -> None:
    query, question = vector(), "lexeme token index"
    points: dict[str, float] = {}
    near = await filled.vector_search(query, 100, 0.0)
    worded = await filled.keyword_search(question, 100)
    for weight, branch in zip(weights, (near, worded), strict=True):
        for rank, result in enumerate(branch, 1):
            points[result.chunk_id] = points.get(result.chunk_id, 0.0) + weight / (k + rank)
    expected = sorted(points, key=lambda name: (-points[name], name))[:30]
    results = await filled.hybrid_search_with_rrf(question, query, 30, *weights, k)
    assert [r.chunk_id for r in results] == expected
    assert [r.score for r in results] == pytest.approx(
        [points[name] / points[expected[0]] for name in expected]
    )


@pytest.mark.parametrize("fusion", ["relative", "rrf"])
async def test_a_branch_without_weight_does_not_order(
    filled: PostgresBackend, fusion: Any
) -> None:
    query, question = vector(), "parser buffer"
    near = [r.chunk_id for r in await filled.vector_search(query, 10, 0.0)]
    worded = [r.chunk_id for r in await filled.keyword_search(question, 10)]
    only = {"fusion": fusion, "vector_weight": 1.0, "keyword_weight": 0.0}
    assert [r.chunk_id for r in await hybrid(filled, question, query, 10, **only)] == near
    only = {"fusion": fusion, "vector_weight": 0.0, "keyword_weight": 1.0}
    assert [r.chunk_id for r in await hybrid(filled, question, query, 10, **only)] == worded


@pytest.mark.parametrize("fusion", ["relative", "rrf"])
async def test_scores_go_down_from_one(filled: PostgresBackend, fusion: Any) -> None:
    results = await hybrid(filled, "socket server", vector(), 50, fusion=fusion)
    scores = [result.score for result in results]
    assert len(scores) == 50
    assert scores[0] == 1
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] >= 0


async def test_what_both_branches_find_comes_before_what_one_finds(
    backend: PostgresBackend,
) -> None:
    axes = np.eye(DIMENSIONS, dtype=np.float32)
    texts = ["some zebra here", "nothing", "a zebra", *["other words"] * 20]
    vectors = np.vstack([axes[0], axes[0] * 2, axes[1], *[axes[2]] * 20])
    await backend.upsert_documents(
        ["both", "near", "worded", *(f"x{i}" for i in range(20))], vectors, texts, [{}] * 23
    )
    for fusion in ("relative", "rrf"):
        results = await hybrid(backend, "zebra", axes[0], 3, fusion=fusion)
        assert results[0].chunk_id == "both"
        assert {r.chunk_id for r in results} == {"both", "near", "worded"}


async def test_the_threshold_is_about_the_vector_branch(filled: PostgresBackend) -> None:
    query = vector()
    results = await hybrid(filled, "thread lock", query, 50, similarity_threshold=0.5)
    assert {r.keyword_rank is None for r in results} == {True, False}
    assert all(r.vector_score is None or r.vector_score >= 0.5 for r in results)
    results = await hybrid(filled, "nonexistentword", query, 50, similarity_threshold=1.0)
    assert results == []


async def test_filters_hold_in_both_branches(filled: PostgresBackend) -> None:
    wanted: dict[str, Any] = {
        "where": {"chunk_index": {"$lt": 60}}, "source_types": ["code"], "languages": ["c", "go"],
    }  # fmt: skip
    results = await hybrid(filled, "column cache", vector(), 400, **wanted)
    expected = {f"chunk_{i:06}" for i in range(60) if i % 2 and i % 3}
    assert {r.chunk_id for r in results} == expected


@pytest.mark.parametrize("question", ["", "the of", "\0", '"', "unknownword", "-vector"])
async def test_without_words_the_vectors_answer(filled: PostgresBackend, question: str) -> None:
    query = vector()
    near = [r.chunk_id for r in await filled.vector_search(query, 10, 0.0)]
    assert [r.chunk_id for r in await hybrid(filled, question, query, 10)] == near


async def test_a_zero_vector_leaves_the_answer_to_the_words(filled: PostgresBackend) -> None:
    results = await hybrid(filled, WORDS[0], np.zeros(DIMENSIONS, np.float32), 5)
    assert len(results) == 5
    assert all(0 <= result.score <= 1 for result in results)
    assert results[0].keyword_rank == 1


async def test_matched_terms_are_given_on_request(filled: PostgresBackend) -> None:
    for result in await hybrid(filled, "schemas", vector(), 10, explain=True):
        assert result.matched_terms == (["schema"] if result.keyword_rank else [])
    assert (await hybrid(filled, "schemas", vector(), 1))[0].matched_terms is None


@pytest.mark.parametrize(
    "wrong",
    [{"fusion": "sum"}, {"vector_weight": -1.0}, {"vector_weight": 0.0, "keyword_weight": 0.0},
     {"vector_weight": float("nan")}, {"fusion": "rrf", "rrf_k": -1}],
)  # fmt: skip
async def test_weights_that_mean_nothing_are_refused(
    filled: PostgresBackend, wrong: dict[str, Any]
) -> None:
    with pytest.raises(StorageError):
        await filled.hybrid_search("a", vector(), 3, **wrong)


async def test_results_are_search_results_with_their_metadata_untouched(
    filled: PostgresBackend,
) -> None:
    chunks = make_chunks(400, DIMENSIONS)
    stored = dict(zip(chunks.ids, zip(chunks.documents, chunks.metadatas, strict=True), strict=True))
    for result in await hybrid(filled, "query filter", vector(), 10):
        assert isinstance(result, SearchResult)
        assert (result.text, result.metadata) == stored[result.chunk_id]
