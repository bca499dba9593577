"""Recall of the defaults against exact search, with and without filters, on clustered vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from agent_brain_postgres import PostgresBackend
from agent_brain_postgres.store import Metric
from tests.conftest import MakeBackend
from tests.nearest import Vectors, fill, make_metadata, make_vectors, nearest

ROWS, DIMENSIONS, QUERIES = 6_000, 48, 25

FILTERS: dict[str, tuple[dict[str, Any], Callable[[dict[str, Any]], bool]]] = {
    "50 %": ({"half": True}, lambda m: bool(m["half"])),
    "10 %": ({"tenth": True}, lambda m: bool(m["tenth"])),
    "1 %": ({"hundredth": True}, lambda m: bool(m["hundredth"])),
    "0.1 %": ({"thousandth": True}, lambda m: bool(m["thousandth"])),
    "with the query": ({"side": "left"}, lambda m: bool(m["side"] == "left")),
    "a range": ({"number": {"$lt": 2_000}}, lambda m: bool(m["number"] < 2_000)),
    "all but": ({"tenth": {"$ne": True}}, lambda m: not m["tenth"]),
}


def _queries(dimensions: int) -> Vectors:
    return make_vectors(QUERIES, dimensions, seed=77)


async def _recall(
    backend: PostgresBackend, rows: Vectors, metric: Metric, k: int = 10,
    where: dict[str, Any] | None = None, among: NDArray[np.intp] | None = None,
) -> float:
    hits = []
    for query in _queries(rows.shape[1]):
        truth = nearest(rows, query, k, metric, among)
        found = await backend.vector_search(query, k, 0.0, where)
        assert len(found) == len(truth)
        hits.append(len(truth & {result.chunk_id for result in found}) / len(truth))
    return float(np.mean(hits))


async def _store(
    make_backend: MakeBackend, metric: Metric, rows: Vectors, **settings: Any
) -> PostgresBackend:
    backend = await make_backend(rows.shape[1], metric=metric, **settings)
    await fill(backend, rows, make_metadata(len(rows), rows))
    await backend.wait_until_indexed()
    assert (await backend.health())["index"]["state"] == "ready"
    return backend


@pytest.mark.parametrize("metric", ["cosine", "l2", "inner_product"])
async def test_recall_by_default(make_backend: MakeBackend, metric: Metric) -> None:
    rows = make_vectors(ROWS, DIMENSIONS)
    backend = await _store(make_backend, metric, rows)
    assert await _recall(backend, rows, metric) >= 0.97
    assert await _recall(backend, rows, metric, k=100) >= 0.97


async def test_recall_with_filters(make_backend: MakeBackend) -> None:
    rows = make_vectors(ROWS, DIMENSIONS)
    metadatas = make_metadata(ROWS, rows)
    backend = await _store(make_backend, "cosine", rows)
    for name, (where, matches) in FILTERS.items():
        among = np.array([i for i, metadata in enumerate(metadatas) if matches(metadata)])
        for _ in range(2):  # the first time by a sample, then as it was learned
            recall = await _recall(backend, rows, "cosine", where=where, among=among)
            assert recall >= 0.98, f"keeps {name}: {recall}"


@pytest.mark.parametrize(("dimensions", "count"), [(2_500, 1_500), (4_200, 1_200)])
async def test_recall_of_long_vectors(
    make_backend: MakeBackend, dimensions: int, count: int
) -> None:
    rows = make_vectors(count, dimensions)
    backend = await _store(make_backend, "cosine", rows)
    assert await _recall(backend, rows, "cosine") >= 0.97


async def test_recall_with_halfvec_storage(make_backend: MakeBackend) -> None:
    rows = make_vectors(ROWS, DIMENSIONS)
    backend = await _store(make_backend, "cosine", rows, embedding_type="halfvec")
    assert await _recall(backend, rows, "cosine") >= 0.97
