"""The one SQLite file of the sandbox: schema, transactions, and the clock that stamps versions.

Below everything that keeps something. Imports the standard library and apsw. Changes when a table changes.
Every accepted write is committed before the answer: it survives kill -9 of the sandbox, not a power cut
(synchronous=OFF, so that the sandbox adds no fsync to the disk of a router that is being measured).
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw

SCHEMA = """
CREATE TABLE IF NOT EXISTS resource (
  number INTEGER PRIMARY KEY, type TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, version_ns INTEGER NOT NULL,
  created_at INTEGER NOT NULL, writes INTEGER NOT NULL, is_base INTEGER NOT NULL, UNIQUE (type, id));
CREATE TABLE IF NOT EXISTS term (
  type TEXT NOT NULL, id TEXT NOT NULL, param TEXT NOT NULL, system TEXT NOT NULL, value TEXT NOT NULL,
  visible_at INTEGER NOT NULL, hidden_at INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS term_value ON term (type, param, value, system);
CREATE INDEX IF NOT EXISTS term_system ON term (type, param, system);
CREATE INDEX IF NOT EXISTS term_owner ON term (type, id);
CREATE TABLE IF NOT EXISTS instance (
  number INTEGER PRIMARY KEY, study_uid TEXT NOT NULL, series_uid TEXT NOT NULL, sop_uid TEXT NOT NULL,
  sop_class_uid TEXT NOT NULL, imaging_study_id TEXT NOT NULL, sha256 TEXT NOT NULL, dataset_sha256 TEXT NOT NULL,
  bytes INTEGER NOT NULL, times_received INTEGER NOT NULL, times_conflicting INTEGER NOT NULL,
  received_at INTEGER NOT NULL, UNIQUE (sop_uid, series_uid, study_uid));
CREATE TABLE IF NOT EXISTS token (token TEXT PRIMARY KEY, expires_at INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS privacy (patient_id TEXT PRIMARY KEY, mode TEXT NOT NULL);
"""


class DataFolderUnusable(Exception):
    """The data folder cannot be used; the text is one sentence for a person."""


class Database:
    """One connection, one lock; safe to use from any thread."""

    def __init__(self, folder: Path) -> None:
        self._lock = threading.RLock()
        self._last_version_ns = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._connection: Any = apsw.Connection(str(folder / "sandbox.db"))
            for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=OFF", "cache_size=-32000"):
                self._connection.execute(f"PRAGMA {pragma}")
            self._connection.execute(SCHEMA)
        except apsw.BusyError as error:
            raise DataFolderUnusable(f"{folder} is in use by another sandbox: stop it or choose another --data.") \
                from error
        except (OSError, apsw.Error) as error:
            raise DataFolderUnusable(f"{folder} cannot be used as data folder ({error}).") from error
        for (newest,) in self.query("SELECT max(version_ns) FROM resource"):
            self._last_version_ns = newest or 0

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Hold the lock and one transaction; committed on leaving, rolled back when an exception passes."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def query(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """All rows of one statement (also used for writes, inside `transaction`)."""
        with self._lock:
            return list(self._connection.execute(sql, tuple(values)))

    def write_many(self, sql: str, rows: Sequence[Sequence[object]]) -> None:
        """One statement for many rows; call it inside `transaction`."""
        with self._lock:
            self._connection.executemany(sql, rows)

    def next_version_ns(self) -> int:
        """Now in nanoseconds since the epoch, strictly larger than every version given before."""
        with self._lock:
            # The platform shows microseconds, so two versions must differ in those.
            self._last_version_ns = max(time.time_ns(), self._last_version_ns + 1000)
            return self._last_version_ns

    def close(self) -> None:
        """Close the file after the transaction in progress; later calls fail."""
        with self._lock:
            self._connection.close()


def now_ms() -> int:
    """UTC epoch milliseconds."""
    return time.time_ns() // 1_000_000


def format_version_id(version_ns: int) -> str:
    """Unpadded base64 of the decimal nanoseconds. Source: fact sheet section 2.1."""
    return base64.b64encode(str(version_ns).encode()).decode().rstrip("=")


def format_last_updated(version_ns: int) -> str:
    """`meta.lastUpdated` of a version: microseconds, +00:00. Source: fact sheet section 2.1."""
    moment = datetime.datetime.fromtimestamp(version_ns // 10**9, datetime.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{version_ns % 10**9 // 1000:06d}+00:00"


def format_last_modified(version_ns: int) -> str:
    """The Last-Modified header, with the platform's `UTC` for `GMT`. Source: fact sheet section 2.1."""
    moment = datetime.datetime.fromtimestamp(version_ns // 10**9, datetime.UTC)
    days = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
    months = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
    return (f"{days[moment.weekday()]}, {moment.day:02d} {months[moment.month - 1]} {moment.year}"
            f" {moment:%H:%M:%S} UTC")
