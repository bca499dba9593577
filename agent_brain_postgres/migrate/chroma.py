"""Reads a Chroma store: the core's default backend."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from agent_brain_postgres.migrate.source import MigrationError, Rows
from agent_brain_postgres.types import EmbeddingMetadata

DATABASE = "chroma.sqlite3"
COLLECTION = "agent_brain_collection"  # the core's default
# Where the core keeps its store, seen from a project, its state directory, or the store itself.
PLACES = (
    "",
    "chroma_db",
    "data/chroma_db",
    ".agent-brain/data/chroma_db",
    ".claude/agent-brain/data/chroma_db",
)


class ChromaSource:
    """A collection of a persisted Chroma store.

    Chroma's client writes into the directory that it opens, so it is given a copy; the copy is
    deleted by `close`.
    """

    def __init__(self, directory: Path, collection: str | None = None) -> None:
        self._closed = False
        self._directory = find_store(directory)
        chromadb = _import_chromadb()
        self._copy = tempfile.TemporaryDirectory(prefix="agent-brain-migrate-")
        try:
            _copy_unchanging(self._directory, Path(self._copy.name))
            with _reading(self._directory):
                settings = chromadb.config.Settings(anonymized_telemetry=False)
                self._client = chromadb.PersistentClient(path=self._copy.name, settings=settings)
                self._collection = self._choose(collection)
        except BaseException:
            self._copy.cleanup()
            raise
        self.description = f"Chroma collection {self._collection.name} in {self._directory}"

    def _choose(self, name: str | None) -> Any:
        # Chroma 0.5 lists collections, 0.6 lists names.
        names = [str(getattr(c, "name", c)) for c in self._client.list_collections()]
        wanted = name or (names[0] if len(names) == 1 else COLLECTION)
        if wanted not in names:
            raise MigrationError(
                f"{self._directory} has no collection {wanted}; it has: "
                f"{', '.join(sorted(names)) or 'none'} (choose with --collection)"
            )
        return self._client.get_collection(wanted)

    def count(self) -> int:
        with _reading(self._directory):
            return int(self._collection.count())

    def without_embedding(self) -> int:
        return 0

    def dimensions(self) -> int | None:
        found = self._get(limit=1, include=["embeddings"])["embeddings"]
        return len(found[0]) if found is not None and len(found) else None

    def embedding_metadata(self) -> EmbeddingMetadata | None:
        stored = self._collection.metadata or {}
        return EmbeddingMetadata.from_dict(stored) if "embedding_provider" in stored else None

    def ids(self, size: int) -> Iterator[list[str]]:
        offset = 0
        while batch := list(self._get(limit=size, offset=offset, include=[])["ids"]):
            yield batch
            offset += len(batch)

    def rows(self, ids: Sequence[str]) -> Rows:
        found = self._get(ids=list(ids), include=["embeddings", "documents", "metadatas"])
        if len(found["ids"]) != len(ids):
            missing = sorted(set(ids) - set(found["ids"]))
            raise MigrationError(f"Chroma lists the chunk {missing[0]} but cannot read it")
        return Rows(
            ids=list(found["ids"]),
            texts=[text or "" for text in found["documents"]],
            metadatas=[dict(metadata or {}) for metadata in found["metadatas"]],
            embeddings=[np.asarray(vector, dtype=np.float32) for vector in found["embeddings"]],
        )

    def _get(self, **wanted: Any) -> Any:
        with _reading(self._directory):
            return self._collection.get(**wanted)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        # Chroma keeps one system per path for the life of the process: stop this one.
        stop = getattr(getattr(self._client, "_system", None), "stop", None)
        if stop is not None:
            stop()
        clear = getattr(type(self._client), "clear_system_cache", None)
        if clear is not None:
            clear()
        self._copy.cleanup()


@contextmanager
def _reading(directory: Path) -> Iterator[None]:
    """Name the store when Chroma fails, with whatever exception of its many layers."""
    try:
        yield
    except MigrationError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        raise MigrationError(
            f"Chroma cannot read {directory}: {type(error).__name__}: {said}; use the chromadb that "
            "wrote the store"
        ) from error


def find_store(directory: Path) -> Path:
    """Find Chroma's directory at or under `directory`, which may be a project's."""
    for place in PLACES:
        if (directory / place / DATABASE).is_file():
            return directory / place
    raise MigrationError(f"{directory} holds no Chroma store (a directory with {DATABASE})")


def _import_chromadb() -> Any:
    try:
        import chromadb
        import chromadb.config
    except ImportError as error:
        raise MigrationError(
            "reading a Chroma store needs chromadb, which Agent Brain brings: run this command "
            "in the environment of the server"
        ) from error
    for name in ("chromadb.telemetry", "chromadb.telemetry.product.posthog"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return chromadb


def _copy_unchanging(source: Path, target: Path) -> None:
    """Copy a store, and refuse one that a server changes meanwhile."""
    before = _state(source)
    size = sum(length for _, length, _ in before)
    free = shutil.disk_usage(target).free
    if size > free:
        raise MigrationError(
            f"a temporary copy of {source} takes {size:,} bytes and {target.parent} has "
            f"{free:,} free; set TMPDIR to a larger file system"
        )
    shutil.copytree(source, target, dirs_exist_ok=True)
    if _state(source) != before:
        raise MigrationError(f"{source} was changed while it was copied; stop its server first")


def _state(directory: Path) -> list[tuple[str, int, int]]:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return [
        (str(path.relative_to(directory)), status.st_size, status.st_mtime_ns)
        for path in files
        if (status := path.stat())
    ]
