"""Real databases for contract tests: each test gets one of its own, migrated and empty, on both engines."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from internal.errors import Transient
from internal.store import Store

OpenStore = Callable[..., Store]


class Postgres:
    """A real server with one database that is emptied for each test: a hundred copies of it would be a gigabyte."""

    def __init__(self) -> None:
        self._psycopg = importlib.import_module("psycopg")
        # Not pytest's folder: the server runs as a user of its own, and pytest closes that folder to others.
        self._folder = Path(tempfile.mkdtemp(prefix="router-postgres-"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pgserver's own import warns about XDG_RUNTIME_DIR
            import pgserver
            from pgserver._commands import pg_ctl
        self._pg_ctl = pg_ctl
        self.server: Any = pgserver.get_server(self._folder / "data")
        self._count = 0
        self._shared = self.fresh_database()
        store = Store.open(self._shared)
        self._version = store.migrate()
        store.close()

    def _sql(self, sql: str, database: str = "postgres") -> None:
        with self._psycopg.connect(self.server.get_uri(database=database), autocommit=True) as connection:
            connection.execute(sql.encode())

    def fresh_database(self) -> str:
        """Return the URL of a new database that nobody has migrated."""
        self._count += 1
        self._sql(f"CREATE DATABASE router_{self._count}")
        return str(self.server.get_uri(database=f"router_{self._count}"))

    def database(self) -> str:
        """Return the URL of the migrated database, emptied; whoever was still connected is cut off."""
        self.kill_connections(self._shared)
        with self._psycopg.connect(self._shared, autocommit=True) as connection:
            tables = [name for (name,) in connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'schema_migration'")]
            connection.execute(f"TRUNCATE {', '.join(tables)} RESTART IDENTITY".encode())
            connection.execute("DELETE FROM schema_migration WHERE version > %s", (self._version,))
        return self._shared

    def forget_durability(self) -> None:
        """Let the server skip fsync: it is thrown away with the tests that share it."""
        self._sql("ALTER SYSTEM SET fsync = off")
        self._sql("SELECT pg_reload_conf()")

    def kill_connections(self, url: str) -> None:
        """End every connection to the database of `url`, as a restart or an administrator does."""
        name = self._psycopg.conninfo.conninfo_to_dict(url)["dbname"]
        with self._psycopg.connect(self.server.get_uri(database="postgres"), autocommit=True) as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))

    def stop_hard(self) -> None:
        """Stop the server as a crash does."""
        self._pg_ctl(["-m", "immediate", "-w", "stop"], pgdata=self.server.pgdata, user=self.server.system_user)

    def start(self) -> None:
        """Start it again, on the same address."""
        self.server.ensure_postgres_running()

    def close(self) -> None:
        """Stop the server, without the checkpoint of an orderly end: nobody needs its data again."""
        self.stop_hard()
        self.server.cleanup()
        shutil.rmtree(self._folder, ignore_errors=True)


def started() -> Postgres:
    """Return a running server, or skip; with CI=true its absence is a failure."""
    try:
        return Postgres()
    except (ImportError, OSError, AssertionError, RuntimeError, subprocess.SubprocessError, Transient) as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"PostgreSQL (pip pgserver) cannot start here: {error}")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    server = started()
    server.forget_durability()
    yield server
    server.close()


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A server for one test that stops it."""
    server = started()
    yield server
    server.close()


_ENGINES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]


@pytest.fixture(params=_ENGINES)
def fresh_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database that nobody has migrated."""
    if request.param == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        return server.fresh_database()
    return f"sqlite://{quote(str(tmp_path / 'fresh.db'))}"


@pytest.fixture(params=_ENGINES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a migrated, empty database."""
    if request.param == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        return server.database()
    url = f"sqlite://{quote(str(tmp_path / 'index.db'))}"
    store = Store.open(url)
    store.migrate()
    store.close()
    return url


@pytest.fixture
def open_store(database_url: str) -> Iterator[OpenStore]:
    """Open one more store, as another process would, on the test's database."""
    stores: list[Store] = []

    def opened(**options: bool) -> Store:
        stores.append(Store.open(database_url, **options))
        return stores[-1]

    yield opened
    for store in stores:
        store.close()


@pytest.fixture
def store(open_store: OpenStore) -> Store:
    return open_store()
