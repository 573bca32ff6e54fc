"""Numbers of one receive process for health, metrics and the devices page. Thread-safe.

Imports histogram. Changes when something else about receiving is worth counting.
"""

from __future__ import annotations

import threading
from typing import Any

from interface.histogram import ANSWER_BOUNDS_MS, SIZE_BOUNDS_BYTES, Histogram


class Counters:
    """Counts since the start of the process; the histograms are of images that were stored."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}
        self._statuses: dict[str, int] = {}
        self._answers = Histogram(ANSWER_BOUNDS_MS)
        self._sizes = Histogram(SIZE_BOUNDS_BYTES)

    def add(self, name: str, amount: int = 1) -> None:
        """Add `amount` to the counter `name`."""
        with self._lock:
            self._counts[name] = self._counts.get(name, 0) + amount

    def store(self, status: int, size_bytes: int, answer_s: float) -> None:
        """Count one answered C-STORE of `size_bytes`; `answer_s` passed from its last byte to the answer."""
        with self._lock:
            name = f"0x{status:04X}"
            self._statuses[name] = self._statuses.get(name, 0) + 1
            if status == 0:
                self._counts["instances"] = self._counts.get("instances", 0) + 1
                self._counts["bytes"] = self._counts.get("bytes", 0) + size_bytes
        if status == 0:
            self._answers.add(answer_s * 1000)
            self._sizes.add(size_bytes)

    def shown(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        with self._lock:
            counts = {**self._counts, "statuses": dict(self._statuses)}
        return {**counts, "answer_ms": self._answers.shown(), "size_bytes": self._sizes.shown()}
