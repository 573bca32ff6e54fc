"""Connections, transactions and migrations of the one database.

Used by `index`, `jobs` and their callers; imports errors and `engines`, which knows the two SQL dialects.
Changes when a process needs another kind of access to its database.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import unquote, urlsplit

from internal.engines import Connection, Dialect, Postgresql, Row, Sqlite, storable
from internal.errors import ConfigurationInvalid, DatabaseTooNew, StorageFailed, Transient

__all__ = ["Dialect", "Row", "Store", "Tx", "storable"]

_MIGRATIONS = Path(__file__).parent / "migrations"
_READERS = 4


class Tx:
    """What can be done inside one transaction. Text is stored without NUL and lone surrogates (see `storable`).

    Attributes
    ----------
    dialect : "sqlite" or "postgresql".
    for_update : fragment that locks the rows read, "" on SQLite, where the whole database is locked.
    skip_locked : fragment that locks the rows read and skips those locked by others.
    ended_transactions : condition on a column `xact`: every transaction up to it has ended.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.dialect: Dialect = connection.dialect
        self.for_update = connection.for_update
        self.skip_locked = connection.skip_locked
        self.ended_transactions = connection.ended_transactions

    def rows(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        """Return all rows of one statement, which may also be a write with RETURNING."""
        return self._connection.query(sql, params)

    def row(self, sql: str, params: Sequence[Any] = ()) -> Row | None:
        """Return the first row, None if there is none."""
        found = self._connection.query(sql, params)
        return found[0] if found else None

    def value(self, sql: str, params: Sequence[Any] = ()) -> Any:
        """Return the first column of the first row, None if there is none."""
        found = self._connection.query(sql, params)
        return found[0][0] if found else None

    def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Run one statement and return the number of rows it changed."""
        return self._connection.change(sql, params)

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement once for each row of parameters."""
        self._connection.change_many(sql, rows)

    def clock_ms(self, now: int) -> int:
        """Return the clock leases are compared with: the server's on PostgreSQL, `now` on SQLite (one node)."""
        return self._connection.clock_ms(now)


class Store:
    """One database for one process: a write connection behind a lock, a few query-only ones, one that watches."""

    def __init__(
        self, url: str, *, read_only: bool = False, wait_s: float = 10.0, read_limit_s: float | None = None,
    ) -> None:
        self._url = url
        self._wait_s = wait_s
        self._read_limit_s = read_limit_s
        self._read_only = read_only
        self._path = _sqlite_path(url)
        self.dialect: Dialect = "postgresql" if self._path is None else "sqlite"
        self._writing = threading.Lock()
        self._write_connection: Connection | None = None
        self._readers = threading.BoundedSemaphore(_READERS)
        self._idle: deque[Connection] = deque()
        self._watching = threading.Lock()
        self._watcher: Connection | None = None
        self._inside = threading.local()

    @classmethod
    def open(
        cls, url: str, *, read_only: bool = False, wait_s: float = 10.0, read_limit_s: float | None = None,
    ) -> Store:
        """Open ``sqlite:///abs/path/index.db`` or ``postgresql://...``; creates a missing SQLite file unless read-only.

        `wait_s`: how long anybody waits for a lock or a free connection, in seconds. `read_limit_s`: how long one
        `reading` (on PostgreSQL: one statement of it) may take before it ends with Transient; None for ever.
        Raises ConfigurationInvalid for another URL or a missing driver, Transient if the database is not there or not
        reachable now, StorageFailed if the file is no database.
        """
        store = cls(url, read_only=read_only, wait_s=wait_s, read_limit_s=read_limit_s)
        store._idle.append(store._connect(query_only=True))
        return store

    @contextmanager
    def transaction(self) -> Iterator[Tx]:
        """Write: BEGIN IMMEDIATE on SQLite, READ COMMITTED on PostgreSQL; committed and durable on return.

        An exception rolls back and passes. Raises Transient (busy, connection lost: nothing was done, or on PostgreSQL
        at the very commit the outcome is unknown), StorageFull or StorageFailed. Does not nest. Keep it below 20 ms.
        """
        if self._read_only:
            raise RuntimeError("this store was opened read-only")
        if getattr(self._inside, "writing", False):
            raise RuntimeError("transactions do not nest")
        if not self._writing.acquire(timeout=self._wait_s):
            raise Transient("another thread keeps the database's writer", code="database-busy")
        self._inside.writing = True
        try:
            self._write_connection = self._begun(self._write_connection, write=True)
            with _ended_well(self._write_connection):
                yield Tx(self._write_connection)
        finally:
            self._inside.writing = False
            self._writing.release()

    @contextmanager
    def reading(self) -> Iterator[Tx]:
        """Read one consistent snapshot on a query-only connection; at most four at once per process.

        Raises Transient when no connection becomes free within `wait_s` or the database cannot be reached.
        """
        if not self._readers.acquire(timeout=self._wait_s):
            raise Transient("too many database readers at once", code="database-busy")
        try:
            idle = self._idle.pop() if self._idle else None
            connection = self._begun(idle, write=False)
            try:
                yield Tx(connection)
            finally:
                connection.rollback()
                if connection.usable:
                    self._idle.append(connection)
                else:
                    connection.close()
        finally:
            self._readers.release()

    def migrate(self) -> int:
        """Bring the schema up to date, each migration and its record in one transaction; return the version.

        Safe to call from several processes at once. Raises DatabaseTooNew when a newer router wrote this database.
        """
        migrations = _migrations()
        newest = max(migrations)
        while True:
            with self.transaction() as tx:
                tx._connection.lock_migrations()
                version = _schema_version(tx)
                if version > newest:
                    raise DatabaseTooNew(f"the database has schema {version}, this router knows {newest} at most:"
                                         " install the newer version again, or restore the backup made before it")
                if version == newest:
                    return version
                _apply(tx, version + 1, migrations[version + 1])

    def schema_version(self) -> int:
        """Return the number of the last migration applied, 0 for an empty database."""
        with self.reading() as tx:
            return _schema_version(tx)

    def is_up_to_date(self) -> bool:
        """Return whether the schema is the one this router knows: a process that does not migrate waits for it."""
        return self.schema_version() == max(_migrations())

    def changed(self) -> int | str:
        """Return a token that differs once another connection has committed: a cheap "look again?", never a proof.

        `PRAGMA data_version` on SQLite, the current snapshot on PostgreSQL (any transaction of the server changes it).
        """
        with self._watching:
            if self._watcher is None or not self._watcher.usable:
                self._watcher = self._connect(query_only=True)
            return self._watcher.token()

    def checkpoint(self) -> tuple[int, int]:
        """Move SQLite's log into the database file without waiting for anybody; (pages in the log, pages moved).

        Only the process that is to do this calls it: nobody else ever checkpoints. (0, 0) on PostgreSQL.
        """
        if self._path is None:
            return 0, 0
        connection = Sqlite(self._path, query_only=False, create=False, wait_s=self._wait_s)
        try:
            return connection.checkpoint()
        finally:
            connection.close()

    def quick_check(self) -> list[str]:
        """Return what is wrong with the database file, [] if nothing; on PostgreSQL only that it answers."""
        sql = "PRAGMA quick_check" if self.dialect == "sqlite" else "SELECT 'ok'"
        try:
            with self.reading() as tx:
                return [str(line) for (line,) in tx.rows(sql) if line != "ok"]
        except StorageFailed as error:
            return [str(error)]

    def close(self) -> None:
        """Close every connection; the store cannot be used afterwards."""
        with self._writing, self._watching:
            for connection in (self._write_connection, self._watcher, *self._idle):
                if connection is not None:
                    connection.close()
            self._idle.clear()
            self._write_connection = self._watcher = None

    def _connect(self, *, query_only: bool) -> Connection:
        limit_s = self._read_limit_s if query_only else None
        if self._path is None:
            return Postgresql(self._url, query_only=query_only, wait_s=self._wait_s, limit_s=limit_s)
        return Sqlite(
            self._path, query_only=query_only, create=not self._read_only, wait_s=self._wait_s, limit_s=limit_s)

    def _begun(self, connection: Connection | None, *, write: bool) -> Connection:
        """Return a connection inside a transaction; one that died while it was idle is replaced, once."""
        if connection is not None and connection.usable:
            try:
                connection.begin(write=write)
                return connection
            except Transient:
                if connection.usable:
                    raise
                connection.close()
        connection = self._connect(query_only=not write)
        connection.begin(write=write)
        return connection


@contextmanager
def _ended_well(connection: Connection) -> Iterator[None]:
    """Commit when the body returns, roll back when it raises."""
    try:
        yield
        connection.commit()
    except BaseException:
        connection.rollback()
        raise


def _sqlite_path(url: str) -> Path | None:
    """Return the file of a sqlite URL, None for PostgreSQL; never repeats the URL, which may hold a password."""
    parts = urlsplit(url)
    if parts.scheme in ("postgresql", "postgres"):
        return None
    if parts.scheme != "sqlite" or parts.netloc or not parts.path:
        raise ConfigurationInvalid("the database must be sqlite:///absolute/path or postgresql://user@host/name")
    path = unquote(parts.path)
    return Path(path[1:] if re.match(r"/[A-Za-z]:", path) else path)


def _migrations() -> dict[int, Path]:
    return {int(path.name[:4]): path for path in sorted(_MIGRATIONS.glob("[0-9][0-9][0-9][0-9]_*.sql"))}


def _schema_version(tx: Tx) -> int:
    if not tx._connection.has_table("schema_migration"):
        return 0
    return int(tx.value("SELECT COALESCE(MAX(version), 0) FROM schema_migration"))


def _apply(tx: Tx, version: int, path: Path) -> None:
    connection = tx._connection
    sql = Template(path.read_text(encoding="utf-8")).substitute(
        serial=connection.serial, writer_xact=connection.writer_xact, bytewise=connection.bytewise)
    if connection.dialect == "postgresql":
        sql = re.sub(r"\bINTEGER\b", "BIGINT", sql)
        sql = re.sub(r"\bBLOB\b", "BYTEA", sql)
    connection.script(
        "CREATE TABLE IF NOT EXISTS schema_migration"
        " (version BIGINT PRIMARY KEY, name TEXT NOT NULL, applied_at BIGINT NOT NULL)")
    connection.script(sql)
    tx.execute("INSERT INTO schema_migration (version, name, applied_at) VALUES (?, ?, ?)",
               (version, path.stem, int(time.time() * 1000)))
