"""Vectors with structure, stores that hold them, and the exact answer to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent_brain_postgres import PostgresBackend
from agent_brain_postgres.store import Metric

Vectors = NDArray[np.float32]


def make_vectors(count: int, dimensions: int, seed: int = 0, clusters: int = 50) -> Vectors:
    """Make vectors in clusters, as embeddings are; lengths differ."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((clusters, dimensions))
    vectors = centres[random.integers(0, clusters, count)]
    vectors = vectors + 0.7 * random.standard_normal((count, dimensions))
    lengths = random.uniform(0.5, 2.0, (count, 1))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True) * lengths, np.float32)


def make_metadata(count: int, vectors: Vectors, seed: int = 1) -> list[dict[str, Any]]:
    """Give each row keys that keep a half, a tenth, ... and one that goes with its vector."""
    share = np.random.default_rng(seed).random(count)
    return [
        {
            "half": bool(s < 0.5), "tenth": bool(s < 0.1), "hundredth": bool(s < 0.01),
            "thousandth": bool(s < 0.001), "side": "left" if vector[0] > 0 else "right",
            "number": i,
        }
        for i, (s, vector) in enumerate(zip(share.tolist(), vectors, strict=True))
    ]


def ids_of(count: int) -> list[str]:
    """Name the rows."""
    return [f"row_{i:06d}" for i in range(count)]


async def fill(
    backend: PostgresBackend, vectors: Vectors, metadatas: Sequence[dict[str, Any]] | None = None
) -> None:
    """Store rows named by `ids_of`."""
    count = len(vectors)
    await backend.upsert_documents(
        ids_of(count), vectors, [f"text number {i}" for i in range(count)],
        list(metadatas) if metadatas is not None else [{"number": i} for i in range(count)],
    )


def distances(vectors: Vectors, query: Vectors, metric: Metric) -> NDArray[np.float64]:
    """Compute what pgvector's operators do, in double precision."""
    rows, one = vectors.astype(np.float64), query.astype(np.float64)
    if metric == "l2":
        return np.asarray(np.linalg.norm(rows - one, axis=1))
    product = rows @ one
    if metric == "inner_product":
        return np.asarray(-product)
    return np.asarray(1 - product / (np.linalg.norm(rows, axis=1) * np.linalg.norm(one)))


def scores(vectors: Vectors, query: Vectors, metric: Metric) -> NDArray[np.float64]:
    """Compute the contract's 0-1 scores."""
    away = distances(vectors, query, metric)
    if metric == "l2":
        return 1 / (1 + away)
    if metric == "inner_product":
        similar = np.maximum(0, -away)
        return np.asarray(similar / (1 + similar))
    return np.asarray(np.clip(1 - away, 0, 1))


def nearest(
    vectors: Vectors, query: Vectors, k: int, metric: Metric = "cosine",
    among: NDArray[np.intp] | None = None,
) -> set[str]:
    """Find the true nearest rows, among all or some."""
    among = np.arange(len(vectors)) if among is None else among
    order = np.argsort(distances(vectors[among], query, metric), kind="stable")
    return {f"row_{among[i]:06d}" for i in order[:k]}
