"""The copy: batch by batch, passing over what is there, and compared at the end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from agent_brain_postgres import batch
from agent_brain_postgres.errors import InvalidInput
from agent_brain_postgres.migrate.source import MigrationError, Rows, Source, Vector
from agent_brain_postgres.migrate.target import Target
from agent_brain_postgres.types import EmbeddingMetadata

HALF_TOLERANCE = 2e-3  # relative, of halfvec's 11 bits


@dataclass
class Options:
    """How to copy; `sample` is the number of chunks that are compared afterwards."""

    batch_size: int = 2_000
    sample: int = 200
    overwrite: bool = False


@dataclass
class Report:
    """What was done."""

    total: int = 0
    copied: int = 0
    present: int = 0
    compared: int = 0


@dataclass
class _Sample:
    """A fair sample of a stream of ids, whatever its length."""

    size: int
    ids: list[str] = field(default_factory=list)
    seen: int = 0

    def offer(self, ids: list[str]) -> None:
        for chunk_id in ids:
            self.seen += 1
            if len(self.ids) < self.size:
                self.ids.append(chunk_id)
            elif (place := random.randrange(self.seen)) < self.size:  # noqa: S311
                self.ids[place] = chunk_id


async def transfer(
    source: Source, target: Target, options: Options, advance: Callable[[int], None]
) -> Report:
    """Copy what is missing into an initialised target, then compare.

    Chunks that the target has are passed over, so an interrupted copy goes on where it ended;
    `overwrite` sends them too, and the target writes those that differ. `advance` is told the
    number of chunks of each batch that is done.
    """
    await _agree_on_the_model(target, await asyncio.to_thread(source.embedding_metadata))
    report = Report()
    sample = _Sample(options.sample)
    async for ids in _batches(source, options.batch_size):
        present = set() if options.overwrite else await target.present(ids)
        missing = [chunk_id for chunk_id in ids if chunk_id not in present]
        if missing:
            await _copy(source, target, missing)
        report.total += len(ids)
        report.copied += len(missing)
        report.present += len(present)
        sample.offer(ids)
        advance(len(ids))
    await _check_counts(source, target, report, options.batch_size)
    report.compared = await _compare(source, target, sample.ids, options.batch_size)
    return report


async def _agree_on_the_model(target: Target, made_by: EmbeddingMetadata | None) -> None:
    """Refuse to mix embeddings of two models; remember the source's before anything is copied."""
    if made_by is None:
        return
    target.validate_embedding_compatibility(
        made_by.provider, made_by.model, made_by.dimensions, await target.get_embedding_metadata()
    )
    await target.set_embedding_metadata(made_by.provider, made_by.model, made_by.dimensions)


async def _batches(source: Source, size: int) -> AsyncIterator[list[str]]:
    stream: Iterator[list[str]] = source.ids(size)
    while (ids := await asyncio.to_thread(next, stream, None)) is not None:
        yield ids


async def _copy(source: Source, target: Target, ids: list[str]) -> None:
    rows = await asyncio.to_thread(source.rows, ids)
    try:
        await target.upsert_documents(rows.ids, rows.embeddings, rows.texts, rows.metadatas)
    except InvalidInput as error:
        reason = _name_the_chunk(rows, error)
        raise MigrationError(f"{reason}; nothing of its batch was copied") from error


def _name_the_chunk(rows: Rows, error: InvalidInput) -> str:
    # The message counts rows of a batch that only this module knows.
    row, _, reason = error.message.removeprefix("row ").partition(":")
    if not row.isdigit() or int(row) >= len(rows):
        return error.message
    return f"chunk {rows.ids[int(row)]}:{reason}"


async def _check_counts(source: Source, target: Target, report: Report, size: int) -> None:
    expected = await asyncio.to_thread(source.count)
    found = 0
    async for ids in _batches(source, size):
        found += len(await target.present(ids))
    if not expected == report.total == found:
        raise MigrationError(
            f"the source has {expected:,} chunks, {report.total:,} were read and {found:,} are in "
            "the target; was one of them changed meanwhile? Run the same command again"
        )


async def _compare(source: Source, target: Target, ids: list[str], size: int) -> int:
    """Compare chunks by what was read back; their number."""
    for start in range(0, len(ids), size):
        rows = await asyncio.to_thread(source.rows, ids[start : start + size])
        expected = batch.prepare(
            rows.ids, rows.embeddings, rows.texts, rows.metadatas, target.embedding_dimensions
        )
        stored = await target.stored(expected.ids)
        for position, chunk_id in enumerate(expected.ids):
            fingerprint, vector = stored[chunk_id]
            sent = rows.embeddings[expected.rows[position]]
            same = fingerprint == expected.fingerprints[position]
            if not (same and _same_vector(sent, vector, half=target.is_half)):
                raise MigrationError(
                    f"chunk {chunk_id} differs between source and target; --overwrite replaces "
                    "the chunks of the target that differ"
                )
    return len(ids)


def _same_vector(sent: Vector, stored: Vector, *, half: bool) -> bool:
    if half:
        return bool(np.allclose(sent, stored, rtol=HALF_TOLERANCE, atol=1e-6))
    return bool(np.array_equal(sent, stored))
