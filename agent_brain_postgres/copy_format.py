"""PostgreSQL's binary COPY format, for rows whose fields are encoded already."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0)
TRAILER = struct.pack("!h", -1)

_length = struct.Struct("!i").pack
_two_numbers = struct.Struct("!iqiq").pack


def copy_row(fields: Sequence[bytes]) -> bytes:
    """Encode one row: the number of fields, then each with its length in front."""
    parts = [struct.pack("!h", len(fields))]
    for field in fields:
        parts += (_length(len(field)), field)
    return b"".join(parts)


def text_and_numbers(text: bytes, one: int, other: int) -> bytes:
    """Encode one row of a text and two `bigint`: tens of thousands a batch, so at once."""
    return b"".join((b"\0\3", _length(len(text)), text, _two_numbers(8, one, 8, other)))


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
