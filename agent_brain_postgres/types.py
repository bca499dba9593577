"""What searches return and what a store knows of its embeddings.

Inside the running core both are the core's own classes, so that its `isinstance` checks hold.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

_core_protocol = sys.modules.get("agent_brain_server.storage.protocol")


@dataclass
class _SearchResult:
    """A chunk that was found; `score` is 0-1, higher is better."""

    text: str
    metadata: dict[str, Any]
    score: float
    chunk_id: str
    matched_terms: list[str] | None = None


@dataclass
class _EmbeddingMetadata:
    """The embedding model that made the vectors of a store."""

    provider: str
    model: str
    dimensions: int

    def to_dict(self) -> dict[str, Any]:
        """Give the keys under which the core stores it."""
        return {
            "embedding_provider": self.provider,
            "embedding_model": self.model,
            "embedding_dimensions": self.dimensions,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> _EmbeddingMetadata:
        """Read the keys that `to_dict` writes."""
        return cls(
            provider=data.get("embedding_provider", "unknown"),
            model=data.get("embedding_model", "unknown"),
            dimensions=data.get("embedding_dimensions", 0),
        )


_SearchResult.__name__ = _SearchResult.__qualname__ = "SearchResult"
_EmbeddingMetadata.__name__ = _EmbeddingMetadata.__qualname__ = "EmbeddingMetadata"

if TYPE_CHECKING:
    SearchResult = _SearchResult
    EmbeddingMetadata = _EmbeddingMetadata
else:
    SearchResult = getattr(_core_protocol, "SearchResult", _SearchResult)
    EmbeddingMetadata = getattr(_core_protocol, "EmbeddingMetadata", _EmbeddingMetadata)
