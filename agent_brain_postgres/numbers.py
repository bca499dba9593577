"""Strings by number, and columns of numbers that grow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class Numbers(dict[str, int]):
    """Strings numbered in the order of their first appearance."""

    def __init__(self) -> None:
        super().__init__()
        self._new: list[str] = []

    def __missing__(self, text: str) -> int:
        self._new.append(text)
        number = self[text] = len(self)
        return number

    def of(self, texts: Sequence[str]) -> Ints:
        """Give the numbers of texts; new ones get one."""
        return np.fromiter(map(self.__getitem__, texts), np.int64, len(texts))

    def take_new(self) -> list[str]:
        """Give those that came since the last time, in order."""
        new, self._new = self._new, []
        return new


class Column:
    """A column of numbers with room at its end."""

    def __init__(self) -> None:
        self._data = np.empty(1024, np.int64)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def values(self) -> Ints:
        """Show what is there now, without a copy."""
        return self._data[: self._size]

    def extend(self, values: Ints) -> None:
        """Add values."""
        size = self._size + values.size
        if size > self._data.size:
            larger = np.empty(2 * size, np.int64)
            larger[: self._size] = self.values
            self._data = larger
        self._data[self._size : size] = values
        self._size = size

    def fill(self, count: int, value: int) -> None:
        """Add `count` times the same."""
        self.extend(np.full(count, value, np.int64))
