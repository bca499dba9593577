"""PostgreSQL storage backend for Agent Brain: vector, keyword and hybrid search."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from agent_brain_postgres.backend import PostgresBackend
    from agent_brain_postgres.config import PostgresConfig
    from agent_brain_postgres.errors import ProviderMismatchError, StorageError
    from agent_brain_postgres.types import EmbeddingMetadata, SearchResult

__all__ = [
    "EmbeddingMetadata",
    "PostgresBackend",
    "PostgresConfig",
    "ProviderMismatchError",
    "SearchResult",
    "StorageError",
    "__version__",
]

_HOMES = {
    "EmbeddingMetadata": "types",
    "PostgresBackend": "backend",
    "PostgresConfig": "config",
    "ProviderMismatchError": "errors",
    "SearchResult": "types",
    "StorageError": "errors",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: a host that only looks pays nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
