"""What searches know of a store without asking it: size, index, and how much each filter keeps."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field

REMEMBERED = 512  # filters
STALE_AFTER = 300.0  # seconds


@dataclass(slots=True)
class Estimates:
    """Figures of one store, kept up to date by its `Indexer`; wrong ones cost time, never rows."""

    rows: int = 0
    ef_search: int | None = None
    _kept: OrderedDict[Hashable, tuple[float, float]] = field(default_factory=OrderedDict)

    def learn(self, condition: Hashable, kept: float) -> None:
        """Remember which share of the rows a filter keeps."""
        self._kept[condition] = (kept, time.monotonic())
        self._kept.move_to_end(condition)
        if len(self._kept) > REMEMBERED:
            self._kept.popitem(last=False)

    def kept(self, condition: Hashable) -> float | None:
        """Give the share of the rows that a filter keeps, None when that is not known."""
        known = self._kept.get(condition)
        if known is None or time.monotonic() - known[1] > STALE_AFTER:
            return None
        return known[0]

    def resize(self, rows: int) -> None:
        """Set the number of rows; a large change makes the shares worthless."""
        if not self.rows / 2 <= rows <= self.rows * 2:
            self._kept.clear()
        self.rows = rows
