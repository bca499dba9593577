"""Vectors without a network: the static model that the `wordllama` wheel carries."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent_brain_postgres.errors import PostgresStorageError

PROVIDER = "wordllama"
MODEL = "l2_supercat"
DIMENSIONS = 256

_BATCH = 16  # texts are padded to the longest of a batch: small ones waste less


class Embedder:
    """The loaded model."""

    def __init__(self) -> None:
        with _logging_undisturbed():
            try:
                import wordllama  # type: ignore[import-untyped,unused-ignore]
            except ImportError as error:
                raise PostgresStorageError(
                    "the demo's embedding model is not installed: "
                    "pip install 'agent-brain-postgres[demo]'"
                ) from error
            directory = Path(wordllama.__file__).parent
            self._model: Any = wordllama.WordLlama.load(
                MODEL, cache_dir=directory, dim=DIMENSIONS, disable_download=True
            )

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Give one unit vector a text; a text without a known token gets the zero vector."""
        if not texts:
            return np.empty((0, DIMENSIONS), dtype=np.float32)
        clean = [text.encode("utf-8", "replace").decode("utf-8") or " " for text in texts]
        vectors: NDArray[np.float32] = self._model.embed(clean, batch_size=_BATCH)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True).astype(np.float32)
        unit: NDArray[np.float32] = vectors / np.where(lengths == 0, np.float32(1), lengths)
        return unit


@contextmanager
def _logging_undisturbed() -> Iterator[None]:
    """Undo what importing wordllama does to the root logger (`basicConfig` at INFO)."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
