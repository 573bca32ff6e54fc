"""How many examples a property is tried with: all of them in `make proof`, a share in the gate, each time another."""

from __future__ import annotations

import os

_SHARE = 4
_LEAST = 10


def examples(full: int) -> int:
    """Return `full` if every long test runs (--all-long), else a quarter, but not less than ten."""
    return full if os.environ.get("ALL_LONG") else min(full, max(full // _SHARE, _LEAST))
