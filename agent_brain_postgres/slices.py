"""Texts in UTF-8 that stand in one buffer: compared, hashed and copied thousands at a time."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent_brain_postgres.arrays import Bools, Column, Ints, ranges

Hashes = NDArray[np.uint64]

PADDING = 8
"""Bytes of a buffer before its first text and after its last: texts are read in words of eight."""

LONG = 64
"""Bytes from which on a text is hashed and compared by itself: there are few."""

NEWLINE = 10

_WORD = 8  # bytes
MULTIPLIER = secrets.randbits(64) | 1
"""Odd, so that no two words give the same; by chance, so that nobody can make texts that collide."""
_FACTOR, _HALF = np.uint64(MULTIPLIER), np.uint64(32)


@dataclass(frozen=True, slots=True)
class Slices:
    """Texts by where they stand; none in the first or last `PADDING` bytes of the buffer."""

    buffer: NDArray[np.uint8]
    starts: Ints
    sizes: Ints

    def __len__(self) -> int:
        return self.starts.size

    @classmethod
    def of(cls, texts: Sequence[str]) -> Slices:
        """Put texts into a buffer."""
        encoded = [text.encode() for text in texts]
        sizes = np.fromiter(map(len, encoded), np.int64, len(encoded))
        buffer = np.frombuffer(b"".join([bytes(PADDING), *encoded, bytes(PADDING)]), np.uint8)
        return cls(buffer, np.cumsum(sizes) - sizes + PADDING, sizes)

    def chosen(self, which: Bools | Ints) -> Slices:
        """Give some of them."""
        return Slices(self.buffer, self.starts[which], self.sizes[which])

    def texts(self) -> list[str]:
        """Give them as strings."""
        return [text.decode() for text in self._each()]

    def copy(self, out: NDArray[np.uint8], where: Ints) -> None:
        """Copy them into another buffer, each to its own place, in the order of these.

        The `PADDING` bytes after each may be overwritten too: put what stands there in afterwards.
        """
        words = (self.sizes + (_WORD - 1)) // _WORD
        at = _WORD * ranges(np.zeros_like(words), words)
        # What is too much of one text is overwritten by the next: numpy assigns in this order,
        # which it does not promise and the tests watch.
        _words(out)[np.repeat(where, words) + at] = _words(self.buffer)[
            np.repeat(self.starts, words) + at
        ]

    def packed(self) -> NDArray[np.uint8]:
        """Copy them one after the other, `PADDING` bytes after the last."""
        ends = np.cumsum(self.sizes)
        out = np.empty((ends[-1] if ends.size else 0) + PADDING, np.uint8)
        self.copy(out, ends - self.sizes)
        return out

    def lines(self) -> Slices:
        """Copy them into a buffer of their own, where a newline is before and after each."""
        ends = np.cumsum(self.sizes + 1) + PADDING
        buffer = np.full((ends[-1] if ends.size else PADDING) + PADDING, NEWLINE, np.uint8)
        lines = Slices(buffer, ends - 1 - self.sizes, self.sizes)
        self.copy(buffer, lines.starts)
        buffer[ends - 1] = NEWLINE
        buffer[-PADDING:] = NEWLINE
        return lines

    def joined(self) -> str:
        """Give them as one string, with newlines between."""
        return self.lines().buffer[PADDING : -PADDING - 1].tobytes().decode()

    def hashes(self) -> Hashes:
        """Give a hash of each, of 64 bits. Within a length up to eight bytes no two share one."""
        hashes: Hashes = self.sizes.astype(np.uint64) * _FACTOR
        for which, word in self._words_from_the_end():
            mixed = (hashes[which] ^ word) * _FACTOR
            hashes[which] = mixed ^ (mixed >> _HALF)
        long = np.flatnonzero(self.sizes > LONG)
        of_long = [hash(text) for text in self.chosen(long)._each()]
        hashes[long] = np.array(of_long, np.int64).view(np.uint64)
        return hashes

    def equal(self, other: Slices) -> Bools:
        """Compare each with that of the same place in `other`, which has the same hash.

        So sizes and all words but the first tell: the hash cannot differ by that one alone.
        """
        same: Bools = self.sizes == other.sizes
        longer = np.flatnonzero(same & (self.sizes > _WORD))
        one, two = self.chosen(longer), other.chosen(longer)
        for (which, word), (_, word_of_other) in zip(one._words_from_the_end(), two._words_from_the_end(), strict=True):
            same[longer[which]] &= word == word_of_other
        long = np.flatnonzero(one.sizes > LONG)
        pairs = zip(one.chosen(long)._each(), two.chosen(long)._each(), strict=True)
        same[longer[long]] = [a == b for a, b in pairs]
        return same

    def in_order(self) -> Ints:
        """Sort them by their first eight bytes, which is order enough for an index to grow fast."""
        prefix = np.zeros((len(self), 8), np.uint8)
        for i in range(8):
            longer = self.sizes > i
            prefix[longer, i] = self.buffer[self.starts[longer] + i]
        return np.argsort(prefix.view(">u8").ravel())

    def _words_from_the_end(self) -> Iterator[tuple[Ints | slice, Hashes]]:
        """Give the words of eight bytes, from the ends of the texts, and which texts have these.

        The first word of a text, which comes last, has zeros in place of what stands before.
        """
        words = _words(self.buffer)
        which: Ints | slice = slice(None)
        at, left = self.starts + self.sizes - _WORD, self.sizes
        short = left <= LONG
        if not short.all():
            which = np.flatnonzero(short)
            at, left = at[which], left[which]
        while at.size:
            absent = 8 * np.maximum(_WORD - left, 0)
            yield which, words[at] >> absent.astype(np.uint64)
            more = np.flatnonzero(left > _WORD)
            which = more if isinstance(which, slice) else which[more]
            at, left = at[more] - _WORD, left[more] - _WORD

    def _each(self) -> Iterator[bytes]:
        data = memoryview(self.buffer)  # type: ignore[arg-type]
        for start, size in zip(self.starts.tolist(), self.sizes.tolist(), strict=True):
            yield data[start : start + size].tobytes()


def _words(buffer: NDArray[np.uint8]) -> Hashes:
    """See a buffer as words of eight bytes, one from each byte on."""
    words: Hashes = np.ndarray((buffer.size - _WORD + 1,), "<u8", buffer, strides=(1,))
    return words


class Texts:
    """Texts by number, in one buffer that grows."""

    def __init__(self) -> None:
        self._buffer = Column(np.uint8, spare=PADDING)
        self._buffer.fill(PADDING, 0)
        self._starts, self._sizes = Column(), Column()

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, numbers: Ints | slice) -> Slices:
        starts, sizes = self._starts.values[numbers], self._sizes.values[numbers]
        return Slices(self._buffer.with_spare, starts, sizes)

    @property
    def size(self) -> int:
        """How many bytes they take."""
        return len(self._buffer)

    def extend(self, texts: Slices) -> None:
        """Add texts."""
        self._starts.extend(np.cumsum(texts.sizes) - texts.sizes + len(self._buffer))
        self._sizes.extend(texts.sizes)
        self._buffer.extend(texts.packed()[:-PADDING])
