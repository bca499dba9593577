"""Bring the store up to date with the files: store what changed, delete what is gone."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .chunks import Chunk, chunk_file, chunk_id_of, printable
from .embedding import Embedder
from .files import SkippedFileError, SourceFile, find_files, read_file
from .timings import Timings

if TYPE_CHECKING:
    from agent_brain_postgres.backend import PostgresBackend

_FILES_AT_A_TIME = 64
_LOOKUPS_AT_A_TIME = 8
_CHUNKS_AT_A_TIME = 512


@dataclass
class Summary:
    """What a run did."""

    files: int = 0
    unchanged: int = 0
    stored: int = 0
    removed: int = 0
    skipped: Counter[str] = field(default_factory=Counter)


Progress = Callable[[int, int], None]  # files looked at since the last call, chunks stored


class Indexing:
    """One run over the files below `root`.

    The chunks of a file are written in one transaction, so a run that is interrupted leaves each
    file either as it was or as it is, and the next run continues there.
    """

    def __init__(
        self, backend: PostgresBackend, embedder: Embedder, root: Path, timings: Timings
    ) -> None:
        self.summary = Summary()
        self._backend = backend
        self._embedder = embedder
        self._root = root
        self._root_text = printable(str(root))
        self._timings = timings
        self._digests: list[str] = []

    async def run(self, paths: Sequence[Path], progress: Progress) -> Summary:
        """Index `paths`, all files below the root, and forget every other."""
        files = iter(paths)
        while some := list(islice(files, _FILES_AT_A_TIME)):
            with self._timings.measure("read files"):
                found = await asyncio.to_thread(self._read, some)
            with self._timings.measure("compare with the store"):
                changed = await self._changed(found)
            await self._store(changed, progress)
            progress(len(some), 0)
        with self._timings.measure("delete what is gone"):
            await self._forget_others()
        return self.summary

    def _read(self, paths: Sequence[Path]) -> list[SourceFile]:
        found = []
        for path in paths:
            try:
                found.append(read_file(path))
            except SkippedFileError as reason:
                self.summary.skipped[str(reason)] += 1
        self.summary.files += len(found)
        self._digests += [file.digest for file in found]
        return found

    async def _changed(self, files: Sequence[SourceFile]) -> list[SourceFile]:
        """Leave out the files whose first chunk is stored with the same digest."""
        slots = asyncio.Semaphore(_LOOKUPS_AT_A_TIME)

        async def is_stored(file: SourceFile) -> bool:
            async with slots:
                known = await self._backend.get_by_id(chunk_id_of(file, 0))
            if known is None:
                return False
            metadata = known["metadata"]
            expected = {"content_hash": file.digest, "root": self._root_text}
            return all(metadata.get(key) == value for key, value in expected.items())

        stored = await asyncio.gather(*map(is_stored, files))
        self.summary.unchanged += sum(stored)
        return [file for file, known in zip(files, stored, strict=True) if not known]

    async def _store(self, files: Sequence[SourceFile], progress: Progress) -> None:
        for chunks in self._batches(files):
            with self._timings.measure("embed"):
                texts = [chunk.text for chunk in chunks]
                vectors = await asyncio.to_thread(self._embedder.embed, texts)
            with self._timings.measure("store"):
                await self._backend.upsert_documents(
                    ids=[chunk.chunk_id for chunk in chunks],
                    embeddings=list(vectors),
                    documents=texts,
                    metadatas=[chunk.metadata for chunk in chunks],
                )
            self.summary.stored += len(chunks)
            progress(0, len(chunks))

    def _batches(self, files: Sequence[SourceFile]) -> Iterator[list[Chunk]]:
        """Gather whole files."""
        batch: list[Chunk] = []
        for file in files:
            with self._timings.measure("cut into chunks"):
                batch += chunk_file(file, self._root_text)
            if len(batch) >= _CHUNKS_AT_A_TIME:
                yield batch
                batch = []
        if batch:
            yield batch

    async def _forget_others(self) -> None:
        """Delete the chunks of removed files, and those that a file lost by becoming shorter.

        A digest stands for one state of one file, so what carries another one is out of date.
        """
        where: dict[str, Any] = {"root": self._root_text}
        if self._digests:
            where["content_hash"] = {"$nin": self._digests}
        self.summary.removed = await self._backend.delete_by_metadata(where)


def list_files(root: Path, state: Path) -> list[Path]:
    """Find the files first, our own aside: a progress bar needs their number."""
    return list(find_files(root, but=state))
