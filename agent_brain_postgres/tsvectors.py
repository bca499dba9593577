"""Many tsvectors at once, as PostgreSQL sends and receives them.

A tsvector in binary form is the number of its lexemes, then each lexeme, a zero byte, the number of
its positions and the positions: 14 bits of place, 2 bits of label. The server sorts the lexemes.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agent_brain_postgres.arrays import Ints, changes, lasts, ranges
from agent_brain_postgres.slices import PADDING, Slices, Texts

MAX_POSITION = 16_383
"""Words beyond this place are all said to stand there, as `to_tsvector` does."""

MAX_POSITIONS = 255
"""Of one lexeme."""

MAX_BYTES = (1 << 20) - 1

LABELS = {"A": 3, "B": 2, "C": 1}


# A key is where a lexeme stands: from the highest bits on its row, its number, the position and the
# label. Sorting keys brings them into the order of a tsvector.
_POSITION, _LEXEME, _ROW = 2, 26, 53
_POSITIONS, _LEXEMES = (1 << _LEXEME - _POSITION) - 1, (1 << _ROW - _LEXEME) - 1


class Built(NamedTuple):
    """Binary tsvectors, and the lexemes of each as a slice of `lexemes` and `counts`."""

    tsvectors: list[bytes]
    lexemes: NDArray[np.int32]
    counts: NDArray[np.uint8]
    starts: Ints
    truncated: int


def place_keys(row: Ints, position: Ints, label: Ints) -> Ints:
    """Give the part of keys that says where something stands; rows are 1,024 at most."""
    position = np.minimum(position, _POSITIONS >> 1)
    return (row << _ROW) | (position << _POSITION) | label


def lexeme_keys(lexeme: Ints, offset: Ints) -> Ints:
    """Give the part of keys that says what stands there, or so many positions after: to be added."""
    return (lexeme << _LEXEME) | (np.minimum(offset, MAX_POSITION) << _POSITION)


def build(rows: int, keys: Ints, names: Texts) -> Built:
    """Build the tsvectors of `rows` rows from keys, row after row.

    `names` are the lexemes that the keys number, without zero bytes. Of a row that is too large for
    a tsvector only the head is indexed.
    """
    keys = _unique(_limited(_sorted(rows, keys)))
    group = np.flatnonzero(changes(keys >> _LEXEME))
    counts = np.diff(np.append(group, keys.size))
    if counts.size and counts.max() > MAX_POSITIONS:
        keys = keys[ranges(np.zeros_like(counts), counts) < MAX_POSITIONS]
        group = np.flatnonzero(changes(keys >> _LEXEME))
        counts = np.diff(np.append(group, keys.size))
    entry_row = keys[group] >> _ROW
    entry_lexeme = (keys[group] >> _LEXEME) & _LEXEMES
    sizes = names[entry_lexeme].sizes + 3 + 2 * counts
    places = ((keys >> _POSITION) & MAX_POSITION) | ((keys & 3) << 14)
    keep, truncated = _head(rows, entry_row, sizes, places[group] & MAX_POSITION)
    if truncated:
        places = places[np.repeat(keep, counts)]
        entry_row, entry_lexeme = entry_row[keep], entry_lexeme[keep]
        counts, sizes = counts[keep], sizes[keep]
    starts = np.searchsorted(entry_row, np.arange(rows + 1))
    data = _encode(names[entry_lexeme], counts, sizes, places)
    ends = np.concatenate(([0], np.cumsum(sizes)))[starts]
    heads = np.diff(starts).astype(">i4").tobytes()
    view = memoryview(data)
    tsvectors = [
        heads[4 * i : 4 * i + 4] + view[ends[i] : ends[i + 1]].tobytes() for i in range(rows)
    ]
    return Built(
        tsvectors, entry_lexeme.astype(np.int32), counts.astype(np.uint8), starts, truncated
    )


def _sorted(rows: int, keys: Ints) -> Ints:
    keys = keys.copy()
    ends = np.searchsorted(keys >> _ROW, np.arange(rows + 1)).tolist()
    for start, end in pairwise(ends):  # ten times as fast as the whole at once
        keys[start:end].sort()
    return keys


def _limited(keys: Ints) -> Ints:
    """Let nothing stand beyond the last position."""
    position = (keys >> _POSITION) & _POSITIONS
    beyond = position > MAX_POSITION
    if not beyond.any():
        return keys
    return np.sort(keys - (np.where(beyond, position - MAX_POSITION, 0) << _POSITION))


def _unique(keys: Ints) -> Ints:
    """Drop a place that a lexeme has twice; the higher label stays."""
    return keys[lasts(keys >> _POSITION)]


def _head(rows: int, row: Ints, sizes: Ints, first: Ints) -> tuple[NDArray[np.bool_], int]:
    """Choose the lexemes to keep, the earliest of each row; and the number of rows cut."""
    keep = np.ones(row.size, np.bool_)
    too_large = np.flatnonzero(np.bincount(row, sizes, rows) > MAX_BYTES)
    for number in too_large:
        entries = np.flatnonzero(row == number)
        entries = entries[np.argsort(first[entries], kind="stable")]
        keep[entries[np.cumsum(sizes[entries]) > MAX_BYTES]] = False
    return keep, too_large.size


def _encode(lexemes: Slices, counts: Ints, sizes: Ints, places: Ints) -> bytearray:
    data = bytearray(int(sizes.sum()) + PADDING)
    out = np.frombuffer(data, np.uint8)
    starts = np.cumsum(sizes) - sizes
    lexemes.copy(out, starts)
    tail = starts + lexemes.sizes
    out[tail] = out[tail + 1] = 0
    out[tail + 2] = counts
    before = np.cumsum(counts) - counts
    place = 2 * np.arange(places.size) + np.repeat(tail + 3 - 2 * before, counts)
    out[place] = places >> 8
    out[place + 1] = places & 0xFF
    return data
