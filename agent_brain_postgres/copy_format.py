"""PostgreSQL's binary COPY format, for rows whose fields are encoded already."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent_brain_postgres.arrays import Ints
from agent_brain_postgres.slices import PADDING, Slices

HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0)
TRAILER = struct.pack("!h", -1)

_length = struct.Struct("!i").pack


def copy_row(fields: Sequence[bytes]) -> bytes:
    """Encode one row: the number of fields, then each with its length in front."""
    parts = [struct.pack("!h", len(fields))]
    for field in fields:
        parts += (_length(len(field)), field)
    return b"".join(parts)


def texts_and_numbers(texts: Slices, one: Ints, other: Ints) -> bytes:
    """Encode rows of a text and two `bigint`: tens of thousands a batch, so all at once."""
    sizes = texts.sizes
    fields = np.zeros((sizes.size, 30), np.uint8)
    fields[:, 1] = 3
    fields[:, 2:6] = _big_endian(sizes, ">i4")
    fields[:, 9] = fields[:, 21] = 8
    fields[:, 10:18] = _big_endian(one, ">i8")
    fields[:, 22:] = _big_endian(other, ">i8")
    # The text stands between the first six bytes and the rest.
    parts = np.full((sizes.size, 3), (6, 0, 24))
    parts[:, 1] = sizes
    is_field = np.repeat(np.tile([True, False, True], sizes.size), parts.ravel())
    out = np.empty(is_field.size + PADDING, np.uint8)
    texts.copy(out, np.cumsum(parts.sum(axis=1)) - sizes - 24)
    out[:-PADDING][is_field] = fields.ravel()
    return out[:-PADDING].tobytes()


def _big_endian(numbers: Ints, form: str) -> NDArray[np.uint8]:
    return numbers.astype(form).view(np.uint8).reshape(numbers.size, np.dtype(form).itemsize)


def jsonb(encoded: bytes) -> bytes:
    """Put jsonb's version number before its text."""
    return b"\x01" + encoded


def int4(number: int) -> bytes:
    """Encode an `integer`."""
    return _length(number)


def vectors(matrix: NDArray[np.float32], *, half: bool = False) -> Iterable[bytes]:
    """Encode the rows of a matrix as pgvector's `vector`, or `halfvec` when `half`."""
    header = struct.pack("!HH", matrix.shape[1], 0)
    swapped: NDArray[Any] = matrix.astype(">f2" if half else ">f4")
    for row in swapped:
        yield header + row.tobytes()
