"""One connection to SQLite (apsw) or PostgreSQL (psycopg): everything in which the two differ.

Used by `store` alone; imports errors. SQL is written once, with ``?`` placeholders; what cannot be said alike is a
fragment here. Changes when an engine has to be opened, locked or asked for its state in another way.
"""

from __future__ import annotations

import math
import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import apsw

from internal.errors import ConfigurationInvalid, StorageFailed, StorageFull, Transient

Row = tuple[Any, ...]
Dialect = Literal["sqlite", "postgresql"]

_STEPS_BETWEEN_LOOKS = 20_000  # of SQLite's machine: about a millisecond
_MIGRATION_LOCK = 0x5A705E47  # any constant: pg_advisory_xact_lock's key
_PLACEHOLDER = re.compile(r"'(?:[^']|'')*'|\?|%")


def storable(text: str) -> str:
    """Return `text` as every engine can keep it: NUL and lone surrogates become U+FFFD."""
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    if text.isascii():
        return text
    return "".join("\ufffd" if "\ud800" <= letter <= "\udfff" else letter for letter in text)


def _storable_row(params: Sequence[Any]) -> list[Any]:
    return [storable(value) if type(value) is str and (not value.isascii() or "\0" in value) else value
            for value in params]


class Connection(ABC):
    """One database connection; used by one thread at a time."""

    dialect: Dialect
    for_update: str
    skip_locked: str
    ended_transactions: str
    serial: str
    writer_xact: str
    bytewise: str
    usable = True

    @abstractmethod
    def query(self, sql: str, params: Sequence[Any]) -> list[Row]:
        """Run one statement and return its rows."""

    @abstractmethod
    def change(self, sql: str, params: Sequence[Any]) -> int:
        """Run one statement and return the number of rows it changed."""

    @abstractmethod
    def change_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement for each row of parameters."""

    @abstractmethod
    def script(self, sql: str) -> None:
        """Run several statements without parameters."""

    @abstractmethod
    def begin(self, *, write: bool) -> None:
        """Begin a transaction."""

    @abstractmethod
    def rollback(self) -> None:
        """Undo; never raises, but may leave the connection unusable."""

    @abstractmethod
    def close(self) -> None:
        """Close; never raises."""

    @abstractmethod
    def clock_ms(self, now: int) -> int:
        """Return the clock that all nodes share, or `now` where there is one node only."""

    @abstractmethod
    def has_table(self, name: str) -> bool:
        """Return whether the table exists."""

    @abstractmethod
    def token(self) -> int | str:
        """Return a value that differs after any other connection has committed."""

    @abstractmethod
    def lock_migrations(self) -> None:
        """Keep every other process from migrating until this transaction ends."""

    def commit(self) -> None:
        """Commit; durable on return."""
        self.script("COMMIT")


class Sqlite(Connection):
    """An apsw connection; it brings its own SQLite (Source: facts/dependencies.md section 4)."""

    dialect: Dialect = "sqlite"
    for_update = ""
    skip_locked = ""
    ended_transactions = "1 = 1"
    serial = "INTEGER PRIMARY KEY AUTOINCREMENT"
    writer_xact = "INTEGER NOT NULL DEFAULT 0"
    bytewise = ""

    def __init__(
        self, path: Path, *, query_only: bool, create: bool, wait_s: float, limit_s: float | None = None,
    ) -> None:
        self._deadline_s = math.inf
        self._limit_s = limit_s
        flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if create else 0)
        if create:
            # It holds names of patients. SQLite's own files beside it get the permissions that it has.
            with suppress(OSError):
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600))
        try:
            self._db = apsw.Connection(str(path), flags=flags)
            self._db.setbusytimeout(int(wait_s * 1000))
            # Only `checkpoint()` moves pages: a reader that closes last would otherwise do it at any moment.
            self._db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            self._db.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
            # A plan never depends on bound values. Without it SQLite compiles every statement with a bound value and
            # an ORDER BY again at each execution, which costs more than most of them take.
            self._db.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
            self._db.wal_autocheckpoint(0)
            mode = self._db.pragma("journal_mode", "wal")
            for name, value in (("synchronous", "full"), ("foreign_keys", 1), ("mmap_size", 0), ("trusted_schema", 0),
                                ("temp_store", "memory"), ("query_only", int(query_only))):
                self._db.pragma(name, value)
        except apsw.CantOpenError:
            raise Transient("the database file cannot be opened, or is not there yet",
                            code="database-missing") from None
        except apsw.Error as error:
            raise _sqlite_meaning(error) from error
        if limit_s is not None:
            self._db.set_progress_handler(lambda: time.monotonic() > self._deadline_s, _STEPS_BETWEEN_LOOKS)
        if mode != "wal":
            raise StorageFailed("SQLite cannot use its write-ahead log here; a network folder cannot hold the database")

    def query(self, sql: str, params: Sequence[Any]) -> list[Row]:
        try:
            return list(self._db.execute(sql, _storable_row(params)))
        except apsw.Error as error:
            raise _sqlite_meaning(error) from error

    def change(self, sql: str, params: Sequence[Any]) -> int:
        before = self._db.total_changes()
        self.query(sql, params)
        return int(self._db.total_changes()) - int(before)

    def change_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        try:
            self._db.executemany(sql, [_storable_row(row) for row in rows])
        except apsw.Error as error:
            raise _sqlite_meaning(error) from error

    def script(self, sql: str) -> None:
        self.query(sql, ())

    def begin(self, *, write: bool) -> None:
        self.script("BEGIN IMMEDIATE" if write else "BEGIN")
        self._deadline_s = math.inf if self._limit_s is None else time.monotonic() + self._limit_s

    def rollback(self) -> None:
        self._deadline_s = math.inf
        with suppress(apsw.Error):
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def close(self) -> None:
        with suppress(apsw.Error):
            self._db.close()

    def clock_ms(self, now: int) -> int:
        return now

    def has_table(self, name: str) -> bool:
        # Not apsw's table_exists: that looks at the schema as this connection last read it.
        return bool(self.query("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (name,)))

    def token(self) -> int | str:
        return int(self.query("PRAGMA data_version", ())[0][0])

    def lock_migrations(self) -> None:
        """BEGIN IMMEDIATE already keeps other writers out."""

    def checkpoint(self) -> tuple[int, int]:
        """Move committed pages from the log to the database file; return (pages in the log, pages moved)."""
        try:
            in_log, moved = self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error as error:
            raise _sqlite_meaning(error) from error
        return int(in_log), int(moved)


def _sqlite_meaning(error: apsw.Error) -> Exception:
    """Return the router's error for one of apsw; the error itself where our SQL is at fault."""
    if isinstance(error, apsw.BusyError | apsw.LockedError | apsw.InterruptError):
        return Transient("the database is busy", code="database-busy")
    if isinstance(error, apsw.FullError):
        return StorageFull("the disk that holds the database is full")
    if isinstance(error, apsw.CorruptError | apsw.NotADBError | apsw.IOError | apsw.ReadOnlyError
                  | apsw.PermissionsError | apsw.CantOpenError):
        return StorageFailed(f"the database failed: {type(error).__name__} {getattr(error, 'extendedresult', '')}")
    return error


class Postgresql(Connection):
    """A psycopg connection in autocommit mode: BEGIN and COMMIT are ours."""

    dialect: Dialect = "postgresql"
    for_update = " FOR UPDATE"
    skip_locked = " FOR UPDATE SKIP LOCKED"
    ended_transactions = "xact < pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
    serial = "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY"
    writer_xact = "BIGINT NOT NULL DEFAULT (pg_current_xact_id()::text::bigint)"
    bytewise = ' COLLATE "C"'

    def __init__(self, url: str, *, query_only: bool, wait_s: float, limit_s: float | None = None) -> None:
        self._driver = _psycopg()
        setup = ("SELECT set_config('lock_timeout', %s, false), set_config('idle_in_transaction_session_timeout',"
                 " '60s', false), set_config('default_transaction_read_only', %s, false),"
                 " set_config('synchronous_commit', 'on', false), set_config('statement_timeout', %s, false)")
        try:
            self._db = self._driver.connect(
                url, autocommit=True, connect_timeout=5, keepalives_idle=10, keepalives_interval=5, keepalives_count=3,
                tcp_user_timeout=30_000, application_name="satusehat-dicom-router",
            )
            self._db.execute(setup, (f"{int(wait_s * 1000)}ms", "on" if query_only else "off",
                                     f"{int((limit_s or 0) * 1000)}ms"))
        except self._driver.ProgrammingError:
            raise ConfigurationInvalid("the database URL is not one that PostgreSQL understands") from None
        except self._driver.Error as error:
            raise _postgresql_meaning(self._driver, error) from None

    def query(self, sql: str, params: Sequence[Any]) -> list[Row]:
        try:
            cursor = self._db.execute(_with_percents(sql), _storable_row(params))
            return cursor.fetchall() if cursor.description else []
        except self._driver.Error as error:
            raise self._failed(error) from error

    def change(self, sql: str, params: Sequence[Any]) -> int:
        try:
            return int(self._db.execute(_with_percents(sql), _storable_row(params)).rowcount)
        except self._driver.Error as error:
            raise self._failed(error) from error

    def change_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        try:
            with self._db.cursor() as cursor:
                cursor.executemany(_with_percents(sql), [_storable_row(row) for row in rows])
        except self._driver.Error as error:
            raise self._failed(error) from error

    def script(self, sql: str) -> None:
        try:
            self._db.execute(sql)
        except self._driver.Error as error:
            raise self._failed(error) from error

    def begin(self, *, write: bool) -> None:
        self.script("BEGIN ISOLATION LEVEL READ COMMITTED" if write
                    else "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")

    def rollback(self) -> None:
        try:
            self._db.execute("ROLLBACK")
        except self._driver.Error:
            self.usable = False

    def close(self) -> None:
        with suppress(self._driver.Error):
            self._db.close()

    def clock_ms(self, now: int) -> int:
        return int(self.query("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint", ())[0][0])

    def has_table(self, name: str) -> bool:
        return self.query("SELECT to_regclass(?)", (name,))[0][0] is not None

    def token(self) -> int | str:
        return str(self.query("SELECT pg_current_snapshot()::text", ())[0][0])

    def lock_migrations(self) -> None:
        self.query("SELECT pg_advisory_xact_lock(?)", (_MIGRATION_LOCK,))

    def _failed(self, error: Exception) -> Exception:
        self.usable = self.usable and not self._db.broken and not self._db.closed
        return _postgresql_meaning(self._driver, error)


def _postgresql_meaning(driver: ModuleType, error: Exception) -> Exception:
    """Return the router's error for one of psycopg; the error itself where our SQL is at fault."""
    state = getattr(error, "sqlstate", None) or ""
    if state == "53100":
        return StorageFull("the disk that holds the database is full")
    if state in ("58030", "XX001", "XX002"):
        return StorageFailed(f"the database failed: SQLSTATE {state}")
    if state == "23505":
        return Transient("another writer was first", code="database-race")
    if isinstance(error, driver.OperationalError | driver.InterfaceError):
        return Transient(f"the database cannot be reached or is busy (SQLSTATE {state or 'none'})",
                         code="database-unreachable" if state in ("", "57P01", "57P02", "57P03") else "database-busy")
    return error


def _psycopg() -> ModuleType:
    try:
        import psycopg
    except ImportError:
        raise ConfigurationInvalid(
            "a postgresql:// database needs the extra 'postgres': pip install 'satusehat-dicom-router[postgres]'"
        ) from None
    return psycopg


@lru_cache(maxsize=512)
def _with_percents(sql: str) -> str:
    """Translate ``?`` to ``%s`` outside of string literals, and escape every other per cent sign."""
    def translated(match: re.Match[str]) -> str:
        found = match.group()
        return "%s" if found == "?" else found.replace("%", "%%")

    return _PLACEHOLDER.sub(translated, sql)
