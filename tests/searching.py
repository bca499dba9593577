"""Documents of a test's own, stored and searched by their words."""

from __future__ import annotations

from typing import Any

import numpy as np

from agent_brain_postgres import PostgresBackend
from tests.conftest import DIMENSIONS


async def store(
    backend: PostgresBackend,
    documents: dict[str, str],
    metadatas: dict[str, dict[str, Any]] | None = None,
) -> None:
    vectors = np.eye(DIMENSIONS, dtype=np.float32)[np.arange(len(documents)) % DIMENSIONS]
    given = metadatas or {}
    await backend.upsert_documents(
        list(documents), vectors, list(documents.values()), [given.get(i, {}) for i in documents]
    )


async def found(backend: PostgresBackend, query: str, top_k: int = 10, **more: Any) -> list[str]:
    return [result.chunk_id for result in await backend.keyword_search(query, top_k, **more)]


FILLER = {f"filler{i}": f"nothing to see here, number {i}" for i in range(20)}
