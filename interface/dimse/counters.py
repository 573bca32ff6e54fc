"""Numbers of one receive process for health, metrics and the devices page. Thread-safe.

Imports nothing of ours. Changes when something else about receiving is worth counting.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from typing import Any, Final

#: Upper bounds (ms) of the histogram of the time from the last byte of an image to its durable answer.
ANSWER_BOUNDS_MS: Final = (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


class Counters:
    """Counts since the start of the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}
        self._statuses: dict[str, int] = {}
        self._answers = [0] * (len(ANSWER_BOUNDS_MS) + 1)
        self._answer_s = 0.0

    def add(self, name: str, amount: int = 1) -> None:
        """Add `amount` to the counter `name`."""
        with self._lock:
            self._counts[name] = self._counts.get(name, 0) + amount

    def store(self, status: int, size_bytes: int, answer_s: float) -> None:
        """Count one answered C-STORE of `size_bytes`; `answer_s` passed from its last byte to the answer."""
        slot = bisect_left(ANSWER_BOUNDS_MS, answer_s * 1000)
        with self._lock:
            name = f"0x{status:04X}"
            self._statuses[name] = self._statuses.get(name, 0) + 1
            if status == 0:
                self._counts["instances"] = self._counts.get("instances", 0) + 1
                self._counts["bytes"] = self._counts.get("bytes", 0) + size_bytes
                self._answers[slot] += 1
                self._answer_s += answer_s

    def shown(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        with self._lock:
            return {
                **self._counts,
                "statuses": dict(self._statuses),
                "answer_ms": {"bounds": ANSWER_BOUNDS_MS, "counts": list(self._answers), "sum_s": self._answer_s},
            }
