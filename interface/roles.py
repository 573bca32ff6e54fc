"""What the role processes have in common: stop signals, the supervisor's pipe, the status file.

Used by every role; imports only the spool. Changes when roles have to tell the supervisor or the web role more.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from internal.config import Settings
from internal.errors import StorageFailed
from internal.new_directory import make_durably
from internal.spool import Spool
from internal.store import Store

#: Exit status of a role that cannot start until a person changes something; the supervisor does not restart it.
EXIT_CANNOT_START = 2
STATUS_EVERY_S = 5.0
_LOCK_WAIT_S = 10.0
#: Longer than any role drains: a supervisor that was killed leaves its roles to finish what they have in hand.
_SUPERVISED_LOCK_WAIT_S = 30.0


def lock_wait_s(*, supervised: bool) -> float:
    """Return how long a role waits for a predecessor that still holds its lock, in seconds."""
    return _SUPERVISED_LOCK_WAIT_S if supervised else _LOCK_WAIT_S


def open_spool(settings: Settings, *, create: bool = True) -> Spool:
    """Open the spool of this node, data_dir/spool; data_dir is made 0700, an empty one too.

    Raises ConfigurationInvalid, StorageNotMounted, StorageFailed.
    """
    if create:
        try:
            make_durably(settings.data_dir)
            if not any(settings.data_dir.iterdir()):
                with suppress(PermissionError):  # a volume that belongs to somebody else: what lies in it is 0600
                    settings.data_dir.chmod(0o700)
        except OSError as error:
            raise StorageFailed(
                f"data_dir {settings.data_dir} cannot be made ({error.strerror}): choose a folder that this "
                "user may write, in [router] data_dir"
            ) from error
    return Spool.open(
        settings.spool_dir, fsync=settings.spool.fsync, create=create,
        min_free_bytes=settings.spool.min_free,
    )


def open_store(settings: Settings) -> Store:
    """Open the database; the caller migrates and closes it."""
    return Store.open(settings.database_url)


class SystemClock:
    """The clock of this machine (ports.Clock)."""

    def now_ms(self) -> int:
        """Return UTC epoch milliseconds."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()


def stop_on_signals(stop: threading.Event, at_once: Callable[[], None] | None = None) -> None:
    """Set `stop` at SIGTERM or SIGINT, in a thread; a second signal ends the process at once.

    `at_once` is called before that, in the handler: it must take no lock.
    """
    reader, writer = os.pipe()
    told = False

    def handle(signum: int, _frame: object) -> None:
        # It interrupts the main thread anywhere, also inside stop.wait(): stop.set() might wait for its lock for ever.
        nonlocal told
        if told:
            if at_once is not None:
                at_once()
            os._exit(128 + signum)
        told = True
        os.write(writer, b"\0")

    def tell() -> None:
        os.read(reader, 1)
        stop.set()

    threading.Thread(target=tell, name="stop", daemon=True).start()
    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    ignore_hangup()


def ignore_hangup() -> None:
    """Survive SIGHUP: only the receive role has something to read again; the default would end this process."""
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def stop_with_parent(stop: threading.Event, on_stop: Callable[[], None] | None = None) -> None:
    """Set `stop` when the supervisor's end of our standard input closes, however it died."""

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        stop.set()
        if on_stop is not None:
            on_stop()

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


class StatusFile:
    """run/<role>.json, rewritten every 5 s: alive, pid, counters. Older than 15 s means: this role is not well."""

    def __init__(self, spool: Spool, role: str, counters: Callable[[], Mapping[str, Any]]) -> None:
        self._spool = spool
        self._role = role
        self._counters = counters
        self._started_at = time.time_ns() // 1_000_000
        self._last_s = 0.0

    def publish(self, *, force: bool = False) -> None:
        """Write the file if it is due."""
        if not force and time.monotonic() - self._last_s < STATUS_EVERY_S:
            return
        self._last_s = time.monotonic()
        status = {
            "role": self._role,
            "pid": os.getpid(),
            "alive_at": time.time_ns() // 1_000_000,
            "started_at": self._started_at,
            "counters": dict(self._counters()),
        }
        self._spool.publish(f"{self._role}.json", json.dumps(status).encode())
