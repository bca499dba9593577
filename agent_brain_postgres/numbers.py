"""Texts by number: a hash table whose lookups take thousands of texts at a time."""

from __future__ import annotations

import numpy as np

from agent_brain_postgres.arrays import Column, Ints
from agent_brain_postgres.slices import Hashes, Slices, Texts

FREE = -1

MOST_FULL = 2  # slots a text, at least: so that most are found at the first


class Numbers:
    """Texts numbered in the order of their first appearance, in which `texts` has them.

    Open addressing with linear probing: a text is in the first slot from that of its hash on which
    was free when it came. Not to be used by two threads at a time.
    """

    def __init__(self) -> None:
        self.texts = Texts()
        self._hashes = Column(np.uint64)
        self._slots: Ints = np.full(1 << 12, FREE)

    def __len__(self) -> int:
        return len(self.texts)

    def of(self, texts: Slices) -> Ints:
        """Give the numbers of texts; new ones get one."""
        hashes = texts.hashes()
        numbers = self._find(texts, hashes)
        missing = np.flatnonzero(numbers == FREE)
        while missing.size:
            _, first, which = np.unique(hashes[missing], return_index=True, return_inverse=True)
            order = np.argsort(first)
            new, which = missing[first[order]], np.argsort(order)[which]
            same = texts.chosen(missing).equal(texts.chosen(new[which]))
            numbers[missing[same]] = len(self) + which[same]
            self._enter(texts.chosen(new), hashes[new])
            missing = missing[~same]  # those that share the hash of another new one
        return numbers

    def _find(self, texts: Slices, hashes: Hashes) -> Ints:
        """Give the numbers of texts, `FREE` for those that have none."""
        numbers = np.full(len(texts), FREE)
        left, at = np.arange(len(texts) if len(self) else 0), self._home(hashes)
        while left.size:
            at = self._probe(at, hashes[left])
            found = self._slots[at]
            held = np.flatnonzero(found != FREE)
            same = texts.chosen(left[held]).equal(self.texts[found[held]])
            numbers[left[held[same]]] = found[held[same]]
            other = held[~same]
            left, at = left[other], self._next(at[other])
        return numbers

    def _probe(self, start: Ints, hashes: Hashes) -> Ints:
        """Give the slots, from `start` on, that have hashes, or else the first free ones."""
        at: Ints = start.copy()
        left = np.arange(start.size)
        while left.size:
            found = self._slots[at[left]]
            left = left[(found != FREE) & (self._hashes.values[found] != hashes[left])]
            at[left] = self._next(at[left])
        return at

    def _enter(self, texts: Slices, hashes: Hashes) -> None:
        first = len(self)
        self.texts.extend(texts)
        self._hashes.extend(hashes)
        if len(self) * MOST_FULL > self._slots.size:
            size = 1 << (2 * MOST_FULL * len(self)).bit_length()
            self._slots = np.full(size, FREE)
            first = 0
        self._place(first)

    def _place(self, first: int) -> None:
        """Give slots to the texts from number `first` on."""
        number = np.arange(first, len(self))
        at = self._home(self._hashes.values[first:])
        while number.size:
            free = self._slots[at] == FREE
            self._slots[at[free]] = number[free]  # of several for one slot, the last has it
            homeless = np.flatnonzero(self._slots[at] != number)
            number, at = number[homeless], self._next(at[homeless])

    def _home(self, hashes: Hashes) -> Ints:
        home: Ints = (hashes & np.uint64(self._slots.size - 1)).astype(np.int64)
        return home

    def _next(self, at: Ints) -> Ints:
        following: Ints = (at + 1) & (self._slots.size - 1)
        return following
