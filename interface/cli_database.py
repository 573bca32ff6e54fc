"""How a command reaches the database, and how it shows moments; it works whether or not the router runs.

Changes when commands have to open something else.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from interface.roles import open_store
from internal.config import Settings
from internal.errors import NotFound
from internal.store import Store


@contextmanager
def opened(settings: Settings) -> Iterator[Store]:
    """Open the database as it is; NotFound before the router's first start."""
    if not settings.database.url and not settings.database_path.is_file():
        raise NotFound(f"no data yet under {settings.data_dir}: start the router first (python main.py -v)")
    store = open_store(settings)
    try:
        store.migrate()
        yield store
    finally:
        store.close()


def now_ms() -> int:
    """Return this machine's clock."""
    return time.time_ns() // 1_000_000


def iso(at: int | None) -> str:
    """Return a moment in local time, "" for none."""
    return "" if at is None else datetime.fromtimestamp(at / 1000, UTC).astimezone().isoformat(timespec="seconds")
