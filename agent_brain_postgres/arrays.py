"""Arrays of integers: groups, runs, and columns that grow."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def ranges(starts: Ints, counts: Ints) -> Ints:
    """Give, for one group after the other, the numbers from its start on, as many as it counts."""
    ends = np.cumsum(counts)
    flat = np.arange(ends[-1] if ends.size else 0)
    flat += np.repeat(starts - (ends - counts), counts)
    return flat


def changes(values: Ints) -> Bools:
    """Tell where a value differs from the one before; the first does."""
    changed = np.ones(values.size, np.bool_)
    np.not_equal(values[1:], values[:-1], out=changed[1:])
    return changed


def lasts(values: Ints) -> Bools:
    """Tell where a value differs from the one after; the last does."""
    last = np.ones(values.size, np.bool_)
    np.not_equal(values[1:], values[:-1], out=last[:-1])
    return last


class Column:
    """A column of values with room at its end, for `spare` values at least."""

    def __init__(self, dtype: type[np.generic] = np.int64, spare: int = 0) -> None:
        self._data: NDArray[Any] = np.empty(1024, dtype)
        self._size, self._spare = 0, spare

    def __len__(self) -> int:
        return self._size

    @property
    def values(self) -> NDArray[Any]:
        """Show what is there now, without a copy."""
        return self._data[: self._size]

    @property
    def with_spare(self) -> NDArray[Any]:
        """Show what is there, and after it what may be anything."""
        return self._data[: self._size + self._spare]

    def extend(self, values: NDArray[Any]) -> None:
        """Add values."""
        size = self._size + values.size
        if size + self._spare > self._data.size:
            larger = np.empty(2 * (size + self._spare), self._data.dtype)
            larger[: self._size] = self.values
            self._data = larger
        self._data[self._size : size] = values
        self._size = size

    def fill(self, count: int, value: int) -> None:
        """Add `count` times the same."""
        self.extend(np.full(count, value))
