"""Many tsvectors at once, as PostgreSQL sends and receives them.

A tsvector in binary form is the number of its lexemes, then each lexeme, a zero byte, the number of
its positions and the positions: 14 bits of place, 2 bits of label. The server sorts the lexemes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agent_brain_postgres.numbers import Ints, Texts, ranges

MAX_POSITION = 16_383
"""Words beyond this place are all said to stand there, as `to_tsvector` does."""

MAX_POSITIONS = 255
"""Of one lexeme."""

MAX_BYTES = (1 << 20) - 1

MAX_LEXEME = (1 << 37) - 1
"""Number of a lexeme: what a sorting key has room for."""

LABELS = {"A": 3, "B": 2, "C": 1}


class Built(NamedTuple):
    """Binary tsvectors, and the lexemes of each as a slice of `lexemes` and `counts`."""

    tsvectors: list[bytes]
    lexemes: NDArray[np.int32]
    counts: NDArray[np.uint8]
    starts: Ints
    truncated: int


def build(
    rows: int, row: Ints, lexeme: Ints, position: Ints, label: Ints, names: Texts
) -> Built:
    """Build the tsvectors of `rows` rows, 1,024 at most, from their entries: four arrays.

    `names` are the lexemes that the array `lexeme` numbers, without zero bytes. Of a row that is
    too large for a tsvector only the head is indexed.
    """
    keys = (row << 53) | (lexeme << 16) | (np.minimum(position, MAX_POSITION) << 2) | label
    keys = _unique(np.sort(keys))
    group = np.flatnonzero(_changes(keys >> 16))
    counts = np.diff(np.append(group, keys.size))
    if counts.size and counts.max() > MAX_POSITIONS:
        keys = keys[ranges(np.zeros_like(counts), counts) < MAX_POSITIONS]
        group = np.flatnonzero(_changes(keys >> 16))
        counts = np.diff(np.append(group, keys.size))
    entry_row = keys[group] >> 53
    entry_lexeme = (keys[group] >> 16) & MAX_LEXEME
    sizes = names.sizes(entry_lexeme) + 3 + 2 * counts
    places = ((keys & 0xFFFC) >> 2) | ((keys & 3) << 14)
    keep, truncated = _head(rows, entry_row, sizes, places[group] & MAX_POSITION)
    if truncated:
        places = places[np.repeat(keep, counts)]
        entry_row, entry_lexeme = entry_row[keep], entry_lexeme[keep]
        counts, sizes = counts[keep], sizes[keep]
    starts = np.searchsorted(entry_row, np.arange(rows + 1))
    data = _encode(names, entry_lexeme, counts, sizes, places)
    ends = np.concatenate(([0], np.cumsum(sizes)))[starts]
    heads = np.diff(starts).astype(">i4").tobytes()
    view = memoryview(data)
    tsvectors = [
        heads[4 * i : 4 * i + 4] + view[ends[i] : ends[i + 1]].tobytes() for i in range(rows)
    ]
    return Built(
        tsvectors, entry_lexeme.astype(np.int32), counts.astype(np.uint8), starts, truncated
    )


def _changes(values: Ints) -> NDArray[np.bool_]:
    changed = np.ones(values.size, np.bool_)
    np.not_equal(values[1:], values[:-1], out=changed[1:])
    return changed


def _unique(keys: Ints) -> Ints:
    """Drop a place that a lexeme has twice; the higher label stays."""
    return keys[np.append(_changes(keys >> 2)[1:], True)] if keys.size else keys


def _head(rows: int, row: Ints, sizes: Ints, first: Ints) -> tuple[NDArray[np.bool_], int]:
    """Choose the lexemes to keep, the earliest of each row; and the number of rows cut."""
    keep = np.ones(row.size, np.bool_)
    too_large = np.flatnonzero(np.bincount(row, sizes, rows) > MAX_BYTES)
    for number in too_large:
        entries = np.flatnonzero(row == number)
        entries = entries[np.argsort(first[entries], kind="stable")]
        keep[entries[np.cumsum(sizes[entries]) > MAX_BYTES]] = False
    return keep, too_large.size


def _encode(names: Texts, lexeme: Ints, counts: Ints, sizes: Ints, places: Ints) -> bytearray:
    data = bytearray(int(sizes.sum()))
    out = np.frombuffer(data, np.uint8)
    starts = np.cumsum(sizes) - sizes
    names.copy(lexeme, out, starts)
    tail = starts + names.sizes(lexeme)
    out[tail + 2] = counts
    before = np.cumsum(counts) - counts
    place = 2 * np.arange(places.size) + np.repeat(tail + 3 - 2 * before, counts)
    out[place] = places >> 8
    out[place + 1] = places & 0xFF
    return data
