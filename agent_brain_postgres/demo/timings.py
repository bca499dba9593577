"""How long each step took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Timings:
    """Seconds by step, in the order in which the steps first began."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def measure(self, step: str) -> Iterator[None]:
        """Add the time spent inside to a step."""
        self.seconds.setdefault(step, 0.0)
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[step] += time.perf_counter() - begun
