"""How often each kind of request arrived, for tests that count.

Filled by the dispatcher, shown by the control interface. Imports the standard library. Changes when counting does.
Counters start at zero with each start of the process.
"""

from __future__ import annotations

import threading


class RequestCounter:
    """Counts requests by "METHOD /path-template"."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals: dict[str, int] = {}

    def add(self, name: str) -> None:
        """Count one request."""
        with self._lock:
            self._totals[name] = self._totals.get(name, 0) + 1

    def totals(self) -> dict[str, int]:
        """All counters, by name."""
        with self._lock:
            return dict(sorted(self._totals.items()))

    def clear(self) -> None:
        """Start again from zero."""
        with self._lock:
            self._totals.clear()
