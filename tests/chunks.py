"""Chunks for tests: small, different from each other, the same every time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

WORDS = [
    *("vector", "index", "search", "chunk", "embedding", "lexeme", "recall", "query", "filter"),
    *("token", "parser", "schema", "table", "column", "row", "page", "cache", "buffer", "commit"),
    *("rollback", "lock", "thread", "socket", "server", "client", "stream", "batch"),
]


@dataclass
class Chunks:
    """The four arguments of `upsert_documents`."""

    ids: list[str] = field(default_factory=list)
    embeddings: list[list[float]] = field(default_factory=list)
    documents: list[str] = field(default_factory=list)
    metadatas: list[dict[str, Any]] = field(default_factory=list)

    def __iter__(self) -> Any:
        return iter((self.ids, self.embeddings, self.documents, self.metadatas))


def make_chunks(count: int, dimensions: int = 8, seed: int = 0, prefix: str = "chunk") -> Chunks:
    """Make `count` chunks with unit vectors, three to twenty words, and the core's metadata."""
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((count, dimensions))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    chunks = Chunks()
    for i in range(count):
        words = random.choice(WORDS, size=int(random.integers(3, 20)))
        chunks.ids.append(f"{prefix}_{i:06d}")
        chunks.embeddings.append(vectors[i].tolist())
        chunks.documents.append(" ".join(words))
        chunks.metadatas.append(
            {
                "source": f"/project/src/file{i % 7}.py",
                "file_name": f"file{i % 7}.py",
                "source_type": "code" if i % 2 else "doc",
                "language": ("python", "c", "go")[i % 3],
                "chunk_index": i,
            }
        )
    return chunks
