"""What a store must offer to be copied from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from agent_brain_postgres.errors import PostgresStorageError
from agent_brain_postgres.types import EmbeddingMetadata

Vector = npt.NDArray[np.float32]


class MigrationError(PostgresStorageError):
    """The source cannot be read, or the copy does not equal it."""


@dataclass
class Rows:
    """Chunks of one batch, as columns of equal length."""

    ids: list[str]
    texts: list[str]
    metadatas: list[dict[str, Any]]
    embeddings: list[Vector]

    def __len__(self) -> int:
        return len(self.ids)


class Source(Protocol):
    """A store that is read and never written."""

    description: str

    def count(self) -> int:
        """Count the chunks that have an embedding."""

    def without_embedding(self) -> int:
        """Count the chunks that have none, and so cannot be copied."""

    def dimensions(self) -> int | None:
        """Measure a stored vector; None when there is none."""

    def embedding_metadata(self) -> EmbeddingMetadata | None:
        """Tell the model that made the embeddings."""

    def ids(self, size: int) -> Iterator[list[str]]:
        """Give all ids, `size` at a time, in an order that does not change."""

    def rows(self, ids: Sequence[str]) -> Rows:
        """Read the chunks with these ids."""

    def close(self) -> None:
        """Release what reading took; harmless twice."""
