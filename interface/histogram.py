"""Counts of measured values by size, for status files and metrics. Thread-safe where its owner says so.

Imports nothing of ours. Changes when figures are to be kept in another form.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, Final

#: Upper bounds in ms of the time from the last byte of an image to its durable answer.
ANSWER_BOUNDS_MS: Final = (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
#: Upper bounds in bytes of one image.
SIZE_BOUNDS_BYTES: Final = (16e3, 64e3, 256e3, 1e6, 4e6, 16e6, 64e6, 256e6, 1e9)
#: Upper bounds in ms of one push to a destination.
PUSH_BOUNDS_MS: Final = (20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000, 300_000)


class Histogram:
    """How many values were at most as large as each bound, and their sum; since the start of the process."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._lock = threading.Lock()
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        slot = bisect_left(self._bounds, value)
        with self._lock:
            self._counts[slot] += 1
            self._sum += value

    def shown(self) -> dict[str, Any]:
        """Return bounds, counts (one more than bounds: the rest) and sum as JSON values."""
        with self._lock:
            return {"bounds": self._bounds, "counts": list(self._counts), "sum": round(self._sum, 6)}
