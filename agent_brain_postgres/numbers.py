"""Strings by number, and columns that grow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class Lookup(dict[str, int]):
    """Strings by number; what is missing is for the subclass to say."""

    def of(self, texts: Sequence[str]) -> Ints:
        """Give the numbers of texts."""
        return np.fromiter(map(self.__getitem__, texts), np.int64, len(texts))


class Numbers(Lookup):
    """Strings numbered in the order of their first appearance, in which `texts` has them."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def __missing__(self, text: str) -> int:
        self.texts.append(text)
        number = self[text] = len(self)
        return number


def ranges(starts: Ints, counts: Ints) -> Ints:
    """Give, for one group after the other, the numbers from its start on, as many as it counts."""
    ends = np.cumsum(counts)
    flat = np.arange(ends[-1] if ends.size else 0)
    flat += np.repeat(starts - (ends - counts), counts)
    return flat


class Column:
    """A column of values with room at its end."""

    def __init__(self, dtype: type[np.generic] = np.int64) -> None:
        self._data: NDArray[Any] = np.empty(1024, dtype)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def values(self) -> NDArray[Any]:
        """Show what is there now, without a copy."""
        return self._data[: self._size]

    def extend(self, values: NDArray[Any]) -> None:
        """Add values."""
        size = self._size + values.size
        if size > self._data.size:
            larger = np.empty(2 * size, self._data.dtype)
            larger[: self._size] = self.values
            self._data = larger
        self._data[self._size : size] = values
        self._size = size

    def fill(self, count: int, value: int) -> None:
        """Add `count` times the same."""
        self.extend(np.full(count, value))


class Texts:
    """Texts in UTF-8, by number, one after the other in one column."""

    def __init__(self) -> None:
        self._data = Column(np.uint8)
        self._starts, self._sizes = Column(), Column()

    def __len__(self) -> int:
        return len(self._sizes)

    def extend(self, texts: Sequence[str]) -> None:
        """Add texts."""
        encoded = [text.encode() for text in texts]
        sizes = np.fromiter(map(len, encoded), np.int64, len(encoded))
        self._starts.extend(np.cumsum(sizes) - sizes + len(self._data))
        self._sizes.extend(sizes)
        self._data.extend(np.frombuffer(b"".join(encoded), np.uint8))

    def sizes(self, numbers: Ints) -> Ints:
        """Give the length of texts in bytes."""
        sizes: Ints = self._sizes.values[numbers]
        return sizes

    def copy(self, numbers: Ints, out: NDArray[np.uint8], where: Ints) -> None:
        """Copy texts into a buffer, each to its own place."""
        sizes = self.sizes(numbers)
        out[ranges(where, sizes)] = self._data.values[ranges(self._starts.values[numbers], sizes)]

    def in_order(self, numbers: Ints) -> Ints:
        """Sort texts by their first eight bytes, which is order enough for an index to grow fast."""
        sizes, starts = self.sizes(numbers), self._starts.values[numbers]
        prefix = np.zeros((numbers.size, 8), np.uint8)
        for i in range(8):
            longer = sizes > i
            prefix[longer, i] = self._data.values[starts[longer] + i]
        return numbers[np.argsort(prefix.view(">u8").ravel())]

    def decode(self, number: int) -> str:
        """Give one text."""
        start, size = self._starts.values[number], self._sizes.values[number]
        return self._data.values[start : start + size].tobytes().decode()
