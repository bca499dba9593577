"""Many tsvectors at once, as PostgreSQL sends and receives them.

A tsvector in binary form is the number of its lexemes, then, in byte order, each lexeme, a zero
byte, the number of its positions and the positions: 14 bits of place, 2 bits of label.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agent_brain_postgres.numbers import Ints

MAX_POSITION = 16_383
"""Words beyond this place are all said to stand there, as `to_tsvector` does."""

MAX_POSITIONS = 255
"""Of one lexeme."""

MAX_BYTES = (1 << 20) - 1

LABELS = {"A": 3, "B": 2, "C": 1}


class Built(NamedTuple):
    """Binary tsvectors, and the lexemes of each as a slice of `lexemes` and `counts`."""

    tsvectors: list[bytes]
    lexemes: NDArray[np.int32]
    counts: NDArray[np.uint8]
    starts: Ints
    truncated: int


def build(
    rows: int, row: Ints, lexeme: Ints, position: Ints, label: Ints, names: Sequence[bytes]
) -> Built:
    """Build the tsvectors of `rows` rows from their entries: four arrays of one length.

    `names` are the lexemes that the array `lexeme` numbers, without zero bytes. Of a row that is
    too large for a tsvector only the head is indexed.
    """
    order = _byte_order(lexeme, names)
    keys = (row << 37) | (order.rank[lexeme] << 16) | (np.minimum(position, MAX_POSITION) << 2)
    keys = _unique(np.sort(keys | label))
    group = np.flatnonzero(_changes(keys >> 16))
    counts = np.diff(np.append(group, keys.size))
    if counts.size and counts.max() > MAX_POSITIONS:
        keys = keys[_within(group, counts) < MAX_POSITIONS]
        group = np.flatnonzero(_changes(keys >> 16))
        counts = np.diff(np.append(group, keys.size))
    entry_row = keys[group] >> 37
    entry_lexeme = order.lexemes[(keys[group] >> 16) & 0x1FFFFF]
    sizes = order.sizes[(keys[group] >> 16) & 0x1FFFFF] + 3 + 2 * counts
    places = ((keys & 0xFFFC) >> 2) | ((keys & 3) << 14)
    keep, truncated = _head(rows, entry_row, sizes, places[group] & MAX_POSITION)
    if truncated:
        places = places[np.repeat(keep, counts)]
        entry_row, entry_lexeme = entry_row[keep], entry_lexeme[keep]
        counts, sizes = counts[keep], sizes[keep]
    starts = np.searchsorted(entry_row, np.arange(rows + 1))
    data = _encode(order, entry_lexeme, counts, sizes, places)
    ends = np.concatenate(([0], np.cumsum(sizes)))[starts]
    heads = np.diff(starts).astype(">i4").tobytes()
    view = memoryview(data)
    tsvectors = [
        heads[4 * i : 4 * i + 4] + view[ends[i] : ends[i + 1]].tobytes() for i in range(rows)
    ]
    return Built(
        tsvectors, entry_lexeme.astype(np.int32), counts.astype(np.uint8), starts, truncated
    )


class _Order(NamedTuple):
    """The lexemes of a batch in byte order, which PostgreSQL would have to establish otherwise."""

    lexemes: Ints
    rank: Ints
    sizes: Ints
    offsets: Ints
    pool: NDArray[np.uint8]


def _byte_order(lexeme: Ints, names: Sequence[bytes]) -> _Order:
    present = np.flatnonzero(np.bincount(lexeme, minlength=1)).tolist() if lexeme.size else []
    present.sort(key=names.__getitem__)
    found = [names[i] for i in present]
    lexemes = np.array(present, np.int64)
    rank = np.zeros(int(lexemes.max(initial=0)) + 1, np.int64)
    rank[lexemes] = np.arange(lexemes.size)
    sizes = np.fromiter(map(len, found), np.int64, len(found))
    pool = np.frombuffer(b"".join(found), np.uint8)
    return _Order(lexemes, rank, sizes, np.cumsum(sizes) - sizes, pool)


def _changes(values: Ints) -> NDArray[np.bool_]:
    changed = np.ones(values.size, np.bool_)
    np.not_equal(values[1:], values[:-1], out=changed[1:])
    return changed


def _unique(keys: Ints) -> Ints:
    """Drop a place that a lexeme has twice; the higher label stays."""
    return keys[np.append(_changes(keys >> 2)[1:], True)] if keys.size else keys


def _within(starts: Ints, counts: Ints) -> Ints:
    """Number the members of each group from 0."""
    return np.arange(int(counts.sum())) - np.repeat(starts, counts)


def _head(rows: int, row: Ints, sizes: Ints, first: Ints) -> tuple[NDArray[np.bool_], int]:
    """Choose the lexemes to keep, the earliest of each row; and the number of rows cut."""
    keep = np.ones(row.size, np.bool_)
    too_large = np.flatnonzero(np.bincount(row, sizes, rows) > MAX_BYTES)
    for number in too_large:
        entries = np.flatnonzero(row == number)
        entries = entries[np.argsort(first[entries], kind="stable")]
        keep[entries[np.cumsum(sizes[entries]) > MAX_BYTES]] = False
    return keep, too_large.size


def _encode(order: _Order, lexeme: Ints, counts: Ints, sizes: Ints, places: Ints) -> bytearray:
    data = bytearray(int(sizes.sum()))
    out = np.frombuffer(data, np.uint8)
    rank = order.rank[lexeme]
    lengths, offsets = order.sizes[rank], order.offsets[rank]
    starts = np.cumsum(sizes) - sizes
    # Each byte of a name goes to the same distance from the entry's start in the output.
    byte, before = _flat(lengths)
    source = byte + np.repeat((offsets - before).astype(np.int32), lengths)
    byte += np.repeat((starts - before).astype(np.int32), lengths)
    out[byte] = order.pool[source]
    tail = starts + lengths
    out[tail + 2] = counts
    place, before = _flat(counts)
    place *= 2
    place += np.repeat((tail + 3 - 2 * before).astype(np.int32), counts)
    out[place] = places >> 8
    out[place + 1] = places & 0xFF
    return data


def _flat(counts: Ints) -> tuple[NDArray[np.int32], Ints]:
    """Number the members of all groups in one row; and say how many are before each group.

    32 bits: half the memory to go through, and a block is far from 2 GB.
    """
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if ends.size else 0, dtype=np.int32), ends - counts
