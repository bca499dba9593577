"""A batch of chunks on its way in: checked, cleaned, without duplicates."""

from __future__ import annotations

import hashlib
import json
import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent_brain_postgres.errors import InvalidInput
from agent_brain_postgres.store import MAX_DIMENSIONS
from agent_brain_postgres.text import is_refused_in_json, sanitize_json, sanitize_text

FloatMatrix = NDArray[np.float32]

MAX_ROWS = 40_000
# Vectors and texts worked on at a time: bounds the memory that a batch adds to its arguments.
BLOCK_BYTES = 4 * 1024 * 1024
BLOCK_ROWS = 1_000
FINGERPRINT_BYTES = 16
# halfvec overflows to infinity beyond this.
LARGEST_HALF = 65_504.0


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of one `upsert_documents` call, in the order given.

    Vectors stay where the caller has them (`rows` points into `embeddings`) and are converted block
    by block.
    """

    ids: list[str]
    documents: list[str]
    metadatas: list[dict[str, Any]]
    json: list[bytes]
    rows: list[int]
    embeddings: Sequence[Any] | NDArray[Any]
    dimensions: int
    fingerprints: list[bytes]

    def __len__(self) -> int:
        return len(self.ids)

    def blocks(self) -> Iterator[range]:
        """Cut the batch into ranges of `BLOCK_ROWS` rows at most, which fit `BLOCK_BYTES` or are one."""
        start = block = 0
        for row in range(len(self)):
            size = self.size(row)
            block += size
            if row > start and (block > BLOCK_BYTES or row - start == BLOCK_ROWS):
                yield range(start, row)
                start, block = row, size
        if self.documents:
            yield range(start, len(self))

    def size(self, row: int) -> int:
        """Give the bytes of a row, about: characters of its text count as one."""
        return 4 * self.dimensions + len(self.documents[row]) + len(self.json[row])

    def matrix(self, block: range) -> FloatMatrix:
        """Convert the vectors of a block: shape (rows, dimensions), float32."""
        return to_matrix(self.embeddings, [self.rows[i] for i in block], self.dimensions)

    def only(self, positions: Sequence[int]) -> Batch:
        """Keep the rows at `positions`."""
        return Batch(
            ids=[self.ids[i] for i in positions],
            documents=[self.documents[i] for i in positions],
            metadatas=[self.metadatas[i] for i in positions],
            json=[self.json[i] for i in positions],
            rows=[self.rows[i] for i in positions],
            embeddings=self.embeddings,
            dimensions=self.dimensions,
            fingerprints=[self.fingerprints[i] for i in positions],
        )


def prepare(
    ids: Sequence[str],
    embeddings: Sequence[Any] | NDArray[Any],
    documents: Sequence[str],
    metadatas: Sequence[Mapping[str, Any] | None],
    dimensions: int | None,
    *,
    half: bool = False,
) -> Batch:
    """Check every row and build the batch; CPU-bound, so run it in a thread.

    The last of rows with the same id wins. `dimensions` None takes the length of the first vector.
    Raises `InvalidInput`, naming the row, before anything is sent: wrong lengths, NaN, infinity,
    metadata that is not JSON.
    """
    _check_lengths(ids, embeddings, documents, metadatas)
    last: dict[str, int] = {}
    for row, chunk_id in enumerate(ids):
        if not isinstance(chunk_id, str) or not isinstance(documents[row], str):
            raise InvalidInput(f"row {row}: the id and the document must be strings")
        last[sanitize_text(chunk_id)] = row
    if dimensions is None:
        dimensions = _first_length(embeddings)
    rows = list(last.values())
    cleaned = [_metadata(metadatas[row], row) for row in rows]
    batch = Batch(
        ids=list(last),
        documents=[sanitize_text(documents[row]) for row in rows],
        metadatas=[metadata for metadata, _ in cleaned],
        json=[encoded for _, encoded in cleaned],
        rows=rows,
        embeddings=embeddings,
        dimensions=dimensions,
        fingerprints=[],
    )
    _check_dropped_rows(batch, len(ids), half)
    for block in batch.blocks():
        matrix = batch.matrix(block)
        _check_values(matrix, [rows[i] for i in block], half)
        for i, vector in zip(block, matrix, strict=True):
            batch.fingerprints.append(
                fingerprint(batch.documents[i], batch.json[i], vector.tobytes())
            )
    return batch


def fingerprint(document: str, metadata: bytes, vector: bytes) -> bytes:
    """Digest what a chunk consists of, so that an unchanged one is recognised without its text."""
    digest = hashlib.blake2b(metadata, digest_size=FINGERPRINT_BYTES)
    encoded = document.encode()
    digest.update(b"%d " % len(encoded))
    digest.update(encoded)
    digest.update(vector)
    return digest.digest()


def _check_lengths(*columns: Sequence[Any] | NDArray[Any]) -> None:
    lengths = [len(column) for column in columns]
    if len(set(lengths)) != 1:
        raise InvalidInput(
            "ids, embeddings, documents and metadatas must have one length, not "
            f"{', '.join(map(str, lengths))}"
        )
    if lengths[0] > MAX_ROWS:
        raise InvalidInput(f"{lengths[0]} rows in one call; send at most {MAX_ROWS:,}")


def _first_length(embeddings: Sequence[Any] | NDArray[Any]) -> int:
    dimensions = _length(embeddings[0], 0)
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise InvalidInput(
            f"row 0: the vector has {dimensions} dimensions; 1 to {MAX_DIMENSIONS:,} are possible"
        )
    return dimensions


def _length(vector: Any, row: int) -> int:
    try:
        return len(vector)
    except TypeError as error:
        raise InvalidInput(f"row {row}: the embedding is no vector of numbers") from error


def _check_dropped_rows(batch: Batch, count: int, half: bool) -> None:
    # Rows that lose to a later duplicate are checked all the same: bad input is never silent.
    dropped = sorted(set(range(count)) - set(batch.rows))
    if dropped:
        matrix = to_matrix(batch.embeddings, dropped, batch.dimensions)
        _check_values(matrix, dropped, half)


def to_matrix(
    embeddings: Sequence[Any] | NDArray[Any], rows: Sequence[int], dimensions: int
) -> FloatMatrix:
    """Convert the vectors at `rows` to float32; `InvalidInput` names the first that does not fit."""
    if isinstance(embeddings, np.ndarray) and embeddings.ndim == 2:
        if embeddings.shape[1] != dimensions:
            raise _wrong_length(rows[0], embeddings.shape[1], dimensions)
        return _to_float32(embeddings[list(rows)])
    matrix = np.empty((len(rows), dimensions), dtype=np.float32)
    for i, row in enumerate(rows):
        vector = embeddings[row]
        length = _length(vector, row)
        if length != dimensions:
            raise _wrong_length(row, length, dimensions)
        matrix[i] = _to_float32(_to_array(vector, row))
    return matrix


def _to_float32(values: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore", invalid="ignore"):  # becomes infinity, refused by name
        return np.ascontiguousarray(values, dtype=np.float32)


def _to_array(vector: Any, row: int) -> NDArray[Any]:
    try:
        if isinstance(vector, list):  # array('d') reads a list of floats at C speed
            return np.frombuffer(array("d", vector))
        return np.asarray(vector, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(f"row {row}: the embedding is no vector of numbers") from error


def _wrong_length(row: int, length: int, dimensions: int) -> InvalidInput:
    return InvalidInput(
        f"row {row}: the vector has {length} dimensions, the store has {dimensions}"
    )


def _check_values(matrix: FloatMatrix, rows: Sequence[int], half: bool) -> None:
    good = np.isfinite(matrix)
    if half:
        good &= np.abs(matrix) <= LARGEST_HALF
    if not good.all():
        row, dimension = np.argwhere(~good)[0]
        raise InvalidInput(
            f"row {rows[row]}: the vector has {matrix[row, dimension]} at position {dimension}; "
            "only finite numbers can be stored"
        )


def _metadata(metadata: Mapping[str, Any] | None, row: int) -> tuple[dict[str, Any], bytes]:
    """Copy the metadata and encode it, keys sorted, as `jsonb` accepts it."""
    cleaned: dict[str, Any] = dict(metadata or {})
    try:
        encoded = _dumps(cleaned)
        if is_refused_in_json(encoded):
            cleaned = sanitize_json(cleaned)
            encoded = _dumps(cleaned)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"row {row}: the metadata is not JSON: {error}") from error
    return cleaned, encoded.encode()


def _dumps(metadata: Mapping[str, Any]) -> str:
    try:
        return _encode(metadata)
    except TypeError:  # keys of mixed type do not sort
        return _encode(sanitize_json(metadata))


def _plain(value: Any) -> Any:
    """Give the JSON form of the values that metadata commonly has besides JSON's own."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Decimal) and value.is_finite():
        return int(value) if value == value.to_integral_value() else float(value)
    return str(value)


_encode = json.JSONEncoder(
    ensure_ascii=False, sort_keys=True, allow_nan=False, default=_plain
).encode


def to_query(vector: Sequence[float] | NDArray[Any], dimensions: int | None) -> NDArray[np.float32]:
    """Check a query vector and convert it to float32."""
    matrix = to_matrix([vector], [0], dimensions or _length(vector, 0))
    if not all(math.isfinite(value) for value in (matrix.min(), matrix.max())):
        raise InvalidInput("the query vector holds NaN or infinity")
    query: NDArray[np.float32] = matrix[0]
    return query
